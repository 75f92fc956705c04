//! Lets bundles serve: those that a registry points at, and those that an operator asks for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::time::MissedTickBehavior;

use crate::artifact::RemoteError;
use crate::domain::{Failure, Violation};
use crate::recommend::{NoWayBack, Recommender, SlotView};

use super::loader::{Candidate, Loader, Pace};
use super::pointers::{Look, Pointed, Pointers};
use super::refusal::{Refusal, Refused, ReloadStage};

/// Changes what a recommender serves. Clones share everything.
///
/// What is replaced stays loaded: a rollback is a swap, at the price of a second bundle in memory (and of a third while
/// the next one is loaded).
#[derive(Clone)]
pub struct Rollout {
    inner: Arc<Inner>,
}

struct Inner {
    recommender: Recommender,
    loader: Loader,
    pointers: Option<Arc<Pointers>>,
    /// Every variant that may be loaded, by name.
    names: Vec<String>,
    refused: Mutex<BTreeMap<String, Refused>>,
    /// Held while a bundle is loaded: one at a time, so that they do not share the memory that each was promised.
    loading: tokio::sync::Mutex<()>,
    /// Held while what serves and what the registry points at are brought to agree, which is short.
    swapping: tokio::sync::Mutex<()>,
}

/// One variant that may be loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct VariantState {
    /// Its name.
    pub name: String,
    /// What serves and what served before; none when nothing is loaded.
    pub slot: Option<SlotView>,
    /// The last bundle that was refused since one was taken.
    pub refused: Option<Refused>,
}

/// Waits until the registry points `name` at a bundle that passes every stage. Says in the log what was refused.
pub async fn first(loader: &Loader, pointers: &Arc<Pointers>, name: &str, every: Duration) -> Candidate {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some((dir, refusal)) = unfit(pointers, name).await {
            tell_refused(loader, name, &dir, &refusal);
        }
        let Some(look) = looked(pointers, name).await else { continue };
        let outcome = match &look {
            Look::Absent => {
                tracing::info!(variant = name, "the registry has no bundle for it yet; waiting");
                continue;
            }
            Look::Broken(error) => Err((PathBuf::from(&error.file), Refusal::new(ReloadStage::Find, error))),
            Look::At(pointed) => {
                let dir = &pointed.directory;
                loader.load(name, dir, Pace::Alone).await.map_err(|refusal| (dir.clone(), refusal))
            }
        };
        match outcome {
            Ok(candidate) => {
                loader.metrics.taken();
                return candidate;
            }
            Err((dir, refusal)) => tell_refused(loader, name, &dir, &refusal),
        }
    }
}

impl Rollout {
    /// Over a recommender that serves already. Without `pointers` there is no registry, and nothing to load from.
    pub fn new(recommender: Recommender, loader: Loader, pointers: Option<Arc<Pointers>>, names: Vec<String>) -> Self {
        let (refused, loading, swapping) = (Mutex::default(), Default::default(), Default::default());
        Self { inner: Arc::new(Inner { recommender, loader, pointers, names, refused, loading, swapping }) }
    }

    /// Follows the pointers for ever: reads each of them `every` so often, and lets what it points at serve. Without a
    /// registry there is nothing to follow, and it never ends all the same.
    pub async fn follow(&self, every: Duration) {
        let Some(pointers) = &self.inner.pointers else { return std::future::pending().await };
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for name in &self.inner.names {
                self.follow_one(pointers, name).await;
            }
        }
    }

    async fn follow_one(&self, pointers: &Arc<Pointers>, name: &str) {
        if let Some((dir, refusal)) = unfit(pointers, name).await {
            self.refuse(name, &dir, refusal);
        }
        let _loading = self.inner.loading.lock().await;
        match looked(pointers, name).await {
            None => {}
            Some(Look::Absent) => tracing::info!(variant = name, "the registry has no pointer; nothing is changed"),
            Some(Look::Broken(error)) => {
                let refusal = Refusal::new(ReloadStage::Find, &error);
                self.refuse(name, Path::new(&error.file), refusal);
            }
            // The outcome is in the log, the metrics and the variant's state.
            Some(Look::At(pointed)) => drop(self.replace(name, &pointed.directory.clone(), Some(pointed)).await),
        }
    }

    /// Loads the registry's bundle at `path` beside what serves as `name`, and lets it serve. The pointer stays.
    ///
    /// # Errors
    /// `UnknownVariant`, `UnknownBundle`, `Invalid` when the path leads out of the registry, `Unmet` when there is no
    /// registry or the bundle is refused.
    pub async fn load(&self, name: &str, path: &str) -> Result<VariantState, Failure> {
        let pointers = self.registry()?;
        self.known(name)?;
        let found = pointers.registry().inside(path);
        let found = found.map_err(|error| Failure::Invalid(vec![Violation::new("bundle", error.to_string())]))?;
        let dir = match path.split_once('/').filter(|_| pointers.is_mirrored()) {
            Some((variant, version)) => bring(pointers, variant, version).await?,
            None => found.ok_or_else(|| Failure::UnknownBundle(path.to_owned()))?,
        };
        let _loading = self.inner.loading.lock().await;
        self.replace(name, &dir, None).await.map_err(unmet)?;
        self.state(name)
    }

    /// With a version: loads it unless it serves already, then points the registry at it. With an empty one: makes the
    /// loaded variant the default.
    ///
    /// # Errors
    /// As [`Rollout::load`].
    pub async fn promote(&self, name: &str, version: &str) -> Result<VariantState, Failure> {
        self.known(name)?;
        if version.is_empty() {
            if !self.inner.recommender.set_default(name) {
                return Err(Failure::UnknownVariant(name.to_owned()));
            }
            tracing::info!(variant = name, "is the default now");
            return self.state(name);
        }
        let pointers = Arc::clone(self.registry()?);
        let dir = pointers.registry().directory(name, version);
        let dir = dir.map_err(|error| Failure::Invalid(vec![Violation::new("version", error.reason)]))?;
        if pointers.is_mirrored() {
            bring(&pointers, name, version).await?;
        } else if !dir.is_dir() {
            return Err(Failure::UnknownBundle(format!("{name}/{version}")));
        }
        let _loading = self.inner.loading.lock().await;
        let serves = || Ok::<_, Failure>(self.state(name)?.slot.is_some_and(|slot| slot.current.directory == dir));
        if !serves()? {
            self.replace(name, &dir, None).await.map_err(unmet)?;
        }
        let _swapping = self.inner.swapping.lock().await;
        if !serves()? {
            let reason = format!("{name}/{version} was rolled back before the registry could point at it");
            return Err(Failure::Unmet { code: "ROLLED_BACK", reason });
        }
        let pointed = point(pointers, name, version).await;
        pointed
            .map_err(|why| Failure::Internal(format!("the bundle serves, but its pointer was not written: {why}")))?;
        self.state(name)
    }

    /// Lets what served before serve again, and points the registry at it where it is a version of this variant. Where
    /// nothing is kept, as after a new start, the version that the registry says was before is loaded. Answers also
    /// whether the registry points at what serves now.
    ///
    /// # Errors
    /// `UnknownVariant`, or `Unmet` when there is nothing to go back to.
    pub async fn rollback(&self, name: &str) -> Result<(VariantState, bool), Failure> {
        self.known(name)?;
        let began = Instant::now();
        // A bundle that is just being loaded finds the registry pointing elsewhere afterwards, and does not take the place.
        let swapping = self.inner.swapping.lock().await;
        match self.inner.recommender.rollback(name) {
            Ok(()) => {}
            Err(NoWayBack::Unknown) => return Err(Failure::UnknownVariant(name.to_owned())),
            Err(NoWayBack::NoPrevious) => {
                drop(swapping);
                return Ok((self.reload_previous(name).await?, true));
            }
        }
        let state = self.state(name)?;
        let seconds = began.elapsed().as_secs_f64();
        tracing::info!(variant = name, bundle = ?directory(&state), seconds, "rolled back");
        let pointers = self.inner.pointers.as_ref().zip(directory(&state));
        let version = pointers.and_then(|(pointers, dir)| Some((pointers, pointers.registry().version_at(name, dir)?)));
        let Some((pointers, version)) = version else { return Ok((state, false)) };
        let pointed = point(Arc::clone(pointers), name, &version).await;
        // What was asked for is done: the answer says what is not.
        if let Err(why) = &pointed {
            tracing::error!(
                variant = name,
                version,
                why,
                "the registry still points at the version before the rollback"
            );
        }
        Ok((state, pointed.is_ok()))
    }

    /// Every variant that may be loaded, in the order of the configuration.
    pub fn states(&self) -> Vec<VariantState> {
        let mut slots: BTreeMap<String, SlotView> =
            self.inner.recommender.slots().into_iter().map(|slot| (slot.current.name.clone(), slot)).collect();
        let refused = self.inner.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let state = |name: &String| VariantState {
            name: name.clone(),
            slot: slots.remove(name),
            refused: refused.get(name).cloned(),
        };
        self.inner.names.iter().map(state).collect()
    }

    async fn reload_previous(&self, name: &str) -> Result<VariantState, Failure> {
        let nothing = || Failure::Unmet {
            code: "NO_PREVIOUS",
            reason: format!("variant {name:?} has no bundle to go back to, neither loaded nor in a registry"),
        };
        let pointers = self.inner.pointers.as_ref().ok_or_else(nothing)?;
        let (asked, variant) = (Arc::clone(pointers), name.to_owned());
        let version = tokio::task::spawn_blocking(move || asked.previous(&variant)).await.ok().flatten();
        let version = version.ok_or_else(nothing)?;
        self.promote(name, &version).await
    }

    /// Takes the bundle in `dir` through every stage and lets it serve as `name`. `pointed` is what the registry said,
    /// when it was the registry that asked: if it says something else by then, that has its turn.
    async fn replace(&self, name: &str, dir: &Path, pointed: Option<Pointed>) -> Result<(), Refusal> {
        let began = Instant::now();
        tracing::info!(variant = name, bundle = %dir.display(), "loading beside what serves");
        match self.load_and_swap(name, dir, pointed).await {
            Ok(()) => {
                self.inner.loader.metrics.taken();
                self.inner.refused.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
                let seconds = began.elapsed().as_secs_f64();
                tracing::info!(variant = name, bundle = %dir.display(), seconds, "serves now");
                Ok(())
            }
            Err(refusal) => {
                self.refuse(name, dir, refusal.clone());
                Err(refusal)
            }
        }
    }

    async fn load_and_swap(&self, name: &str, dir: &Path, pointed: Option<Pointed>) -> Result<(), Refusal> {
        let candidate = self.inner.loader.load(name, dir, Pace::Beside).await?;
        let began = Instant::now();
        let swap = |reason: &dyn std::fmt::Display| Refusal::new(ReloadStage::Swap, reason);
        let _swapping = self.inner.swapping.lock().await;
        if let (Some(pointed), Some(pointers)) = (pointed, &self.inner.pointers)
            && !still(pointers, name, pointed).await
        {
            return Err(swap(&"the registry points at something else by now"));
        }
        // Not on a thread that answers: it ranks the whole catalogue by popularity once.
        let recommender = self.inner.recommender.clone();
        let swapped = tokio::task::spawn_blocking(move || recommender.set_variant(candidate.variant)).await;
        swapped.map_err(|error| swap(&error))?.map_err(|error| swap(&error))?;
        self.inner.loader.metrics.took(ReloadStage::Swap, began.elapsed());
        Ok(())
    }

    fn refuse(&self, name: &str, dir: &Path, refusal: Refusal) {
        tell_refused(&self.inner.loader, name, dir, &refusal);
        let refused = Refused { directory: dir.to_owned(), refusal, time: SystemTime::now() };
        self.inner.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), refused);
    }

    fn registry(&self) -> Result<&Arc<Pointers>, Failure> {
        let reason = "the server has no registry (registry.path is empty)".to_owned();
        self.inner.pointers.as_ref().ok_or(Failure::Unmet { code: "NO_REGISTRY", reason })
    }

    fn known(&self, name: &str) -> Result<(), Failure> {
        let known = self.inner.names.iter().any(|known| known == name);
        if known { Ok(()) } else { Err(Failure::UnknownVariant(name.to_owned())) }
    }

    fn state(&self, name: &str) -> Result<VariantState, Failure> {
        let state = self.states().into_iter().find(|state| state.name == name);
        state.ok_or_else(|| Failure::UnknownVariant(name.to_owned()))
    }
}

impl std::fmt::Debug for Rollout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rollout").field("names", &self.inner.names).finish_non_exhaustive()
    }
}

/// The pointer of `name` when it changed. Files are read on a thread that may wait for them; should that fail, the next
/// look comes.
async fn looked(pointers: &Arc<Pointers>, name: &str) -> Option<Look> {
    let (pointers, name) = (Arc::clone(pointers), name.to_owned());
    tokio::task::spawn_blocking(move || pointers.changed(&name)).await.ok().flatten()
}

/// What an object store newly points at and is no whole bundle; it is brought near when it is one. A large one takes its
/// time, so no lock is held meanwhile.
async fn unfit(pointers: &Arc<Pointers>, name: &str) -> Option<(PathBuf, Refusal)> {
    if !pointers.is_mirrored() {
        return None;
    }
    let (pointers, name) = (Arc::clone(pointers), name.to_owned());
    tokio::task::spawn_blocking(move || pointers.refresh(&name)).await.ok()?.err()
}

/// Brings a version of an object store near, and answers its directory.
async fn bring(pointers: &Arc<Pointers>, variant: &str, version: &str) -> Result<PathBuf, Failure> {
    let dir = pointers.registry().directory(variant, version);
    let dir = dir.map_err(|error| Failure::Invalid(vec![Violation::new("bundle", error.to_string())]))?;
    let (pointers, named) = (Arc::clone(pointers), (variant.to_owned(), version.to_owned()));
    let outcome = tokio::task::spawn_blocking(move || pointers.bring(&named.0, &named.1)).await;
    let outcome = outcome.map_err(|error| Failure::Internal(format!("fetching a bundle: {error}")))?;
    let brought = outcome.map_err(|error| match error {
        RemoteError::Away(reason) => Failure::Unmet { code: "REGISTRY_AWAY", reason },
        RemoteError::Refused(error) => unmet(Refusal::new(ReloadStage::Fetch, error)),
    });
    brought.map(|()| dir)
}

async fn still(pointers: &Arc<Pointers>, name: &str, pointed: Pointed) -> bool {
    let (pointers, name) = (Arc::clone(pointers), name.to_owned());
    tokio::task::spawn_blocking(move || pointers.still(&name, &pointed)).await.unwrap_or(false)
}

/// Writes the registry's pointer, or says why it could not be.
async fn point(pointers: Arc<Pointers>, name: &str, version: &str) -> Result<(), String> {
    let (name, version) = (name.to_owned(), version.to_owned());
    let outcome = tokio::task::spawn_blocking(move || pointers.point(&name, &version)).await;
    outcome.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

fn tell_refused(loader: &Loader, variant: &str, dir: &Path, refusal: &Refusal) {
    loader.metrics.refused(refusal.stage);
    let (bundle, stage) = (dir.display(), refusal.stage.name());
    tracing::error!(variant, %bundle, stage, reason = refusal.reason, "bundle refused; what serves goes on");
}

fn unmet(refusal: Refusal) -> Failure {
    Failure::Unmet { code: "BUNDLE_REFUSED", reason: refusal.to_string() }
}

fn directory(state: &VariantState) -> Option<&Path> {
    state.slot.as_ref().map(|slot| slot.current.directory.as_path())
}
