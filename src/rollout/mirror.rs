//! What a registry in an object store says, brought into its mirror, which is followed as any directory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::artifact::{BundleError, BundleRegistry, ObjectMark, RemoteError, RemotePointer, RemoteRegistry};

use super::metrics::ReloadMetrics;
use super::refusal::{Refusal, ReloadStage};

/// How long a store that is away is left alone at first; twice as long after every further failure ...
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// ... and at most.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A store with the last look at each pointer. Every call blocks: it is for threads that may wait.
#[derive(Debug)]
pub(super) struct Mirror {
    store: RemoteRegistry,
    seen: Mutex<BTreeMap<String, Seen>>,
    outage: Mutex<Option<Outage>>,
    /// Held while a bundle comes, so that one comes at a time.
    bringing: Mutex<()>,
    /// How often an operator has pointed. Held while the mirror is pointed: what was read of the store before an operator
    /// pointed is not followed after.
    pointed: Mutex<u64>,
    metrics: ReloadMetrics,
}

/// What was made of a pointer.
#[derive(Debug, Clone, Default)]
struct Seen {
    tag: Option<String>,
    version: Option<String>,
    /// Of a version that came: its manifest. Of one that was refused: every object.
    marks: Vec<ObjectMark>,
    whole: bool,
    /// What was refused last, so that it is told once.
    refused: Option<BundleError>,
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    wait: Duration,
    until: Instant,
}

impl Mirror {
    pub(super) fn new(store: RemoteRegistry, metrics: ReloadMetrics) -> Self {
        Self {
            store,
            seen: Mutex::default(),
            outage: Mutex::default(),
            bringing: Mutex::default(),
            pointed: Mutex::default(),
            metrics,
        }
    }

    /// The directory that it fills.
    pub(super) fn registry(&self) -> &BundleRegistry {
        self.store.mirror()
    }

    /// Brings what the pointer of `variant` newly names into the mirror, and points the mirror at it. A store that is away
    /// is counted and told, and left alone for a while. The error is a version, by its directory, that is no bundle; it is
    /// told once.
    pub(super) fn refresh(&self, variant: &str) -> Result<(), (PathBuf, Refusal)> {
        if lock(&self.outage).is_some_and(|outage| Instant::now() < outage.until) {
            return Ok(());
        }
        let mut seen = lock(&self.seen).get(variant).cloned().unwrap_or_default();
        let outcome = self.look(variant, &mut seen);
        match outcome {
            Err(RemoteError::Away(reason)) => {
                self.away(&reason);
                Ok(())
            }
            outcome => {
                self.answers();
                let refused = outcome.err().and_then(|error| match error {
                    RemoteError::Refused(error) => Some(error),
                    RemoteError::Away(_) => None,
                });
                let news = refused != seen.refused;
                seen.refused.clone_from(&refused);
                let stage = if seen.version.is_some() { ReloadStage::Fetch } else { ReloadStage::Find };
                let place = self.place(variant, seen.version.as_deref());
                lock(&self.seen).insert(variant.to_owned(), seen);
                refused.filter(|_| news).map_or(Ok(()), |error| Err((place, Refusal::new(stage, error))))
            }
        }
    }

    /// Brings one version into the mirror.
    pub(super) fn bring(&self, variant: &str, version: &str) -> Result<PathBuf, RemoteError> {
        let _bringing = lock(&self.bringing);
        let began = Instant::now();
        let dir = Handle::current().block_on(self.store.bring(variant, version))?;
        self.metrics.took(ReloadStage::Fetch, began.elapsed());
        Ok(dir)
    }

    /// Says in the store that `version` is to serve.
    pub(super) fn point(&self, variant: &str, version: &str) -> Result<(), RemoteError> {
        Handle::current().block_on(self.store.point(variant, version))
    }

    /// The store names what an operator chose, and the mirror is about to: until the guard is gone.
    pub(super) fn was_pointed(&self) -> MutexGuard<'_, u64> {
        let mut pointed = lock(&self.pointed);
        *pointed += 1;
        pointed
    }

    /// The version that was to serve before.
    pub(super) fn previous(&self, variant: &str) -> Result<Option<String>, RemoteError> {
        Handle::current().block_on(self.store.previous(variant))
    }

    fn look(&self, variant: &str, seen: &mut Seen) -> Result<(), RemoteError> {
        let turn = *lock(&self.pointed);
        let pointer = Handle::current().block_on(self.store.current(variant, seen.tag.as_deref()));
        let pointer = pointer.inspect_err(|error| {
            // It names nothing any more.
            if matches!(error, RemoteError::Refused(_)) {
                (seen.tag, seen.version) = (None, None);
            }
        })?;
        let (version, tag) = match pointer {
            RemotePointer::Same => match &seen.version {
                Some(version) => (version.clone(), seen.tag.clone()),
                None => return Ok(()),
            },
            RemotePointer::Absent => {
                *seen = Seen::default();
                return Ok(());
            }
            RemotePointer::At { version, tag } => (version, tag),
        };
        let known = seen.version.as_ref() == Some(&version);
        let all = !(known && seen.whole);
        let mut marks = Handle::current().block_on(self.store.marks(variant, &version, all))?;
        seen.tag = tag;
        if known && marks == seen.marks {
            return seen.refused.clone().map_or(Ok(()), |error| Err(error.into()));
        }
        let outcome = match self.bring(variant, &version) {
            Err(RemoteError::Away(reason)) => {
                // Asked for again as if nothing had been seen.
                *seen = Seen { refused: seen.refused.take(), ..Seen::default() };
                return Err(RemoteError::Away(reason));
            }
            outcome => outcome,
        };
        seen.whole = outcome.is_ok();
        if seen.whole {
            let pointed = lock(&self.pointed);
            if *pointed != turn {
                // An operator pointed meanwhile: the store is looked at anew.
                *seen = Seen { refused: seen.refused.take(), ..Seen::default() };
                return Ok(());
            }
            marks.truncate(1);
            let outcome = self.registry().point(variant, &version);
            outcome.map_err(|error| RemoteError::Away(format!("the mirror: {error}")))?;
        }
        (seen.version, seen.marks) = (Some(version), marks);
        outcome.map(drop)
    }

    fn place(&self, variant: &str, version: Option<&str>) -> PathBuf {
        let place = version.and_then(|version| self.registry().directory(variant, version).ok());
        place.unwrap_or_else(|| self.registry().root().join(variant).join("current"))
    }

    fn away(&self, reason: &str) {
        self.metrics.registry_away();
        let mut outage = lock(&self.outage);
        let now = Instant::now();
        let url = self.store.url();
        let (since, wait) = match *outage {
            None => {
                tracing::warn!(url, reason, "the registry is away; what serves goes on");
                (now, FIRST_WAIT)
            }
            Some(Outage { since, wait, .. }) => {
                tracing::debug!(url, reason, seconds = since.elapsed().as_secs_f64(), "the registry is still away");
                (since, (wait * 2).min(LONGEST_WAIT))
            }
        };
        *outage = Some(Outage { since, wait, until: now + wait });
    }

    fn answers(&self) {
        self.metrics.registry_answers();
        if let Some(outage) = lock(&self.outage).take() {
            let seconds = outage.since.elapsed().as_secs_f64();
            tracing::info!(url = self.store.url(), seconds, "the registry answers again");
        }
    }
}

/// Nothing that can panic runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
