//! The catalogue while it serves: what its owner says goes into a log, and from there into every loaded variant.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::catalog::{CatalogueConfig, ChangeLog, ChangeLogError, Entries, Entry, Word};
use crate::domain::{CatalogChange, CatalogChanged, DescribedItem, Failure, ItemPage, Overload, StoredItem, Violation};

use super::live::Said;
use super::variant::Loaded;

/// Why the catalogue cannot be opened.
#[derive(Debug, Error)]
pub enum CatalogueError {
    /// Its log.
    #[error(transparent)]
    Log(#[from] ChangeLogError),
    /// The metrics are registered already.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What the owner of the items said since, durable.
#[derive(Debug)]
pub struct Catalogue {
    config: CatalogueConfig,
    /// Held by whoever changes what is said or what is loaded.
    log: Mutex<ChangeLog>,
    entries: RwLock<Entries>,
    /// When something was said last, in Unix milliseconds; 0: never.
    last_ms: AtomicI64,
    waiting: Mutex<Vec<Asked>>,
    metrics: CatalogueMetrics,
}

/// Changes that wait for the log; all that wait share one write and one new index.
#[derive(Debug)]
struct Asked {
    changes: Vec<CatalogChange>,
    reply: oneshot::Sender<Result<CatalogChanged, Failure>>,
}

/// What a write is to say of an item.
#[derive(Debug, Clone)]
struct Staged {
    entry: Arc<Entry>,
    /// Text or embedding are other ones than before.
    retold: bool,
}

#[derive(Debug)]
struct CatalogueMetrics {
    changes: IntCounterVec,
    failed: IntCounter,
    left_out: IntCounter,
    entries: IntGauge,
    bytes: IntGauge,
    taken_in: Histogram,
}

/// While this lives no change passes by.
#[derive(Debug)]
pub(super) struct Unchanged<'a>(#[allow(dead_code, reason = "held, not read")] MutexGuard<'a, ChangeLog>);

impl Catalogue {
    /// Opens the log and reads what it holds. Not for an async task. None: the settings name no log.
    ///
    /// # Errors
    /// See [`ChangeLog::open`].
    pub fn open(config: &CatalogueConfig, registry: &Registry) -> Result<Option<Self>, CatalogueError> {
        let metrics = CatalogueMetrics::new(registry)?;
        if !config.is_set() {
            return Ok(None);
        }
        let (log, entries) = ChangeLog::open(&config.path)?;
        metrics.show(&log, &entries);
        tracing::info!(items = entries.len(), bytes = log.bytes(), "the catalogue's log is open");
        let last_ms = AtomicI64::new(entries.values().map(|entry| entry.changed_ms).max().unwrap_or(0));
        let (log, entries) = (Mutex::new(log), RwLock::new(entries));
        Ok(Some(Self { config: config.clone(), log, entries, last_ms, waiting: Mutex::default(), metrics }))
    }

    /// Tells a variant that serves nobody yet all that was said. Not for an async task.
    pub(super) fn bring_up(&self, loaded: &Loaded) -> Unchanged<'_> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = self.read();
        if !entries.is_empty() {
            let version = version(loaded, self.last_ms.load(Ordering::Relaxed));
            let made_ms = loaded.variant.created.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
            // A bundle that came later has learnt what was told before it: its tokens are the better ones.
            let said = entries.iter().map(|(id, entry)| {
                let retold = entry.described_ms.is_some_and(|told| told > made_ms);
                Said { id, entry, retold }
            });
            self.taken_in(loaded, loaded.take_in(said, &version, self.config.max_overlay));
        }
        drop(entries);
        Unchanged(log)
    }

    /// Puts changes in line.
    pub(super) fn ask(
        &self,
        changes: Vec<CatalogChange>,
    ) -> Result<oneshot::Receiver<Result<CatalogChanged, Failure>>, Failure> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= self.config.max_queue {
            let retry_after = Duration::from_millis(500);
            return Err(Failure::Overloaded { reason: Overload::CatalogueFull, retry_after });
        }
        let (reply, answer) = oneshot::channel();
        waiting.push(Asked { changes, reply });
        Ok(answer)
    }

    /// Works off all that wait: one write, one new view of each variant. `loaded` tells the default variant and all that are
    /// loaded. Not for an async task.
    pub(super) fn work_off(&self, loaded: impl FnOnce() -> Option<(Arc<Loaded>, Vec<Arc<Loaded>>)>) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at only now: who came before the lock was had is in it.
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let Some((default, loaded)) = loaded().filter(|_| !waiting.is_empty()) else { return };
        let began = Instant::now();
        let now = self.now();
        let mut staged = BTreeMap::new();
        let mut answers = Vec::with_capacity(waiting.len());
        for Asked { changes, reply } in waiting {
            answers.push((reply, self.stage(&default, changes, now, &mut staged)));
        }
        let written = log.append(staged.iter().map(|(id, staged)| (id.as_str(), &*staged.entry)));
        if let Err(error) = &written {
            self.metrics.failed.inc();
            tracing::error!(%error, changes = staged.len(), "the catalogue's log cannot be written");
        } else {
            let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
            entries.extend(staged.iter().map(|(id, staged)| (id.clone(), Arc::clone(&staged.entry))));
            self.metrics.show(&log, &entries);
            drop(entries);
            self.last_ms.store(now, Ordering::Relaxed);
            for loaded in loaded.iter().filter(|_| !staged.is_empty()) {
                let said = staged.iter().map(|(id, Staged { entry, retold })| Said { id, entry, retold: *retold });
                self.taken_in(loaded, loaded.take_in(said, &version(loaded, now), self.config.max_overlay));
            }
        }
        self.metrics.taken_in.observe(began.elapsed().as_secs_f64());
        for (reply, answer) in answers {
            let answer = answer.and_then(|changed| match written {
                Ok(()) => {
                    let index_version = default.live.load().view.version().to_owned();
                    Ok(CatalogChanged { index_version, ..changed })
                }
                Err(_) => Err(Failure::NotReady {
                    reason: "the catalogue's log cannot be written",
                    retry_after: Duration::from_secs(5),
                }),
            });
            // Who asked may have gone.
            drop(reply.send(answer));
        }
    }

    /// Folds the overlays of all that are loaded, and the log where much of it was said otherwise since. Not for an async
    /// task.
    pub(super) fn fold(&self, loaded: impl FnOnce() -> Vec<Arc<Loaded>>) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        for loaded in loaded() {
            self.taken_in(&loaded, loaded.fold());
        }
        let entries = self.read();
        match log.compact(&entries) {
            Ok(true) => {
                tracing::info!(bytes = log.bytes(), items = entries.len(), "the catalogue's log was written anew")
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the catalogue's log could not be written anew"),
        }
        self.metrics.show(&log, &entries);
    }

    /// How often that is due.
    pub(super) fn fold_every(&self) -> Duration {
        self.config.fold()
    }

    /// The item as it stands; none where there is none, or no more.
    pub(super) fn item(&self, default: &Loaded, id: &str) -> Option<StoredItem> {
        stored(default, id, self.read().get(id))
    }

    /// At most `most` items after `after`, by id.
    pub(super) fn page(&self, default: &Loaded, after: Option<&str>, most: usize) -> ItemPage {
        let (sorted, learnt) = (default.by_id(), &default.variant.index);
        let id = |&number: &u32| learnt.id(number);
        let first = sorted.partition_point(|number| after.is_some_and(|after| id(number) <= after));
        let entries = self.read();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut said = entries.range::<str, _>((from, Bound::Unbounded)).map(|(id, _)| id.as_str()).peekable();
        let mut known = sorted[first..].iter().map(id).peekable();
        let mut page = ItemPage::default();
        let mut last: Option<&str> = None;
        loop {
            let next = match (said.peek(), known.peek()) {
                (Some(one), Some(other)) => *one.min(other),
                (Some(one), None) | (None, Some(one)) => *one,
                (None, None) => return page,
            };
            if page.items.len() == most {
                page.next = last.map(str::to_owned);
                return page;
            }
            said.next_if_eq(&next);
            known.next_if_eq(&next);
            last = Some(next);
            page.items.extend(stored(default, next, entries.get(next)));
        }
    }

    /// What the changes of one call come to, on top of what is staged already: all of it, or nothing.
    fn stage(
        &self,
        default: &Loaded,
        changes: Vec<CatalogChange>,
        now: i64,
        staged: &mut BTreeMap<String, Staged>,
    ) -> Result<CatalogChanged, Failure> {
        let entries = self.read();
        let (mut changed, mut wrong, mut own) =
            (CatalogChanged::default(), Vec::new(), BTreeMap::<String, Staged>::new());
        let mut kinds = [0; 3];
        for (at, change) in changes.into_iter().enumerate() {
            let id = change.item_id().to_owned();
            let earlier = own.get(&id).or_else(|| staged.get(&id));
            let before = earlier.map(|staged| &staged.entry).or_else(|| entries.get(&id)).cloned();
            let known =
                before.as_ref().map_or(default.variant.index.number(&id).is_some(), |entry| !entry.is_removed());
            match &change {
                CatalogChange::Upsert(described) => {
                    self.check(default, at, described, &mut wrong)?;
                    if known {
                        changed.changed += 1
                    } else {
                        changed.added += 1
                    }
                    kinds[0] += 1;
                }
                _ if !known => {
                    changed.unknown.push(id);
                    continue;
                }
                CatalogChange::Remove(_) => (changed.changed, kinds[1]) = (changed.changed + 1, kinds[1] + 1),
                CatalogChange::SetEligibility(..) => (changed.changed, kinds[2]) = (changed.changed + 1, kinds[2] + 1),
            }
            let entry = Entry::after(before.as_deref(), change, now);
            let retold = entry.described_ms == Some(now);
            own.insert(id, Staged { entry: Arc::new(entry), retold });
        }
        if !wrong.is_empty() {
            return Err(Failure::Invalid(wrong));
        }
        staged.extend(own);
        CatalogueMetrics::KINDS.iter().zip(kinds).for_each(|(kind, count)| {
            self.metrics.changes.with_label_values(&[kind]).inc_by(count);
        });
        Ok(changed)
    }

    /// Refuses what the default variant could find no place for.
    fn check(
        &self,
        default: &Loaded,
        at: usize,
        described: &DescribedItem,
        wrong: &mut Vec<Violation>,
    ) -> Result<(), Failure> {
        match &default.variant.newcomers {
            Some(newcomers) => {
                let fault = newcomers.fault(described);
                wrong.extend(fault.map(|fault| Violation::new(format!("items[{at}].embedding"), fault)));
                Ok(())
            }
            None if default.variant.index.number(&described.item.id).is_some() => Ok(()),
            None => Err(Failure::Unmet {
                code: "NO_TOKENIZER",
                reason: format!(
                    "items[{at}]: {:?} is new, and the bundle of variant {:?} has no tokenizer to give it tokens",
                    described.item.id, default.variant.name
                ),
            }),
        }
    }

    fn taken_in(&self, loaded: &Loaded, outcome: Result<(), String>) {
        if let Err(reason) = outcome {
            self.metrics.left_out.inc();
            tracing::warn!(variant = loaded.variant.name, reason, "a variant goes without some items");
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now, and later than anything that was said: versions of an index differ by it.
    fn now(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        now.max(self.last_ms.load(Ordering::Relaxed) + 1)
    }
}

/// The index version of a variant with everything in it that was said up to some time.
fn version(loaded: &Loaded, last_ms: i64) -> String {
    format!("{}+{last_ms}", loaded.variant.index.version())
}

fn stored(default: &Loaded, id: &str, entry: Option<&Arc<Entry>>) -> Option<StoredItem> {
    let learnt = &default.variant.index;
    let bundle = learnt.number(id).map(|number| learnt.item(number).item);
    let described = match entry.map(|entry| &entry.word) {
        Some(Word::Removed) => return None,
        Some(Word::Item(described)) => DescribedItem::clone(described),
        Some(Word::Eligible(_)) | None => {
            let item = entry.map_or_else(|| bundle.clone(), |entry| entry.item(bundle.as_ref()))?;
            DescribedItem { item, text: None, embedding: None }
        }
    };
    let live = default.live.load();
    let index = live.view.index();
    let code = index.number(id).map(|number| index.codes().code(number).to_vec()).unwrap_or_default();
    Some(StoredItem { described, code, changed_ms: entry.map(|entry| entry.changed_ms), learnt: bundle.is_some() })
}

impl CatalogueMetrics {
    const KINDS: [&'static str; 3] = ["upsert", "remove", "eligibility"];

    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let changes = IntCounterVec::new(
            Opts::new("reg4rec_catalogue_changes_total", "Changes of items that were asked for and in order, by kind"),
            &["kind"],
        )?;
        Self::KINDS.iter().for_each(|kind| drop(changes.with_label_values(&[kind])));
        let failed =
            IntCounter::new("reg4rec_catalogue_failed_total", "Writes that the log of changes could not take")?;
        let left_out =
            IntCounter::new("reg4rec_catalogue_left_out_total", "Times that a variant had no place for new items")?;
        let entries = IntGauge::new("reg4rec_catalogue_entries", "Items of which something was said beside bundles")?;
        let bytes = IntGauge::new("reg4rec_catalogue_log_bytes", "Bytes of the log of changes")?;
        let taken_in = Histogram::with_opts(
            HistogramOpts::new("reg4rec_catalogue_change_seconds", "From the first change of a write to all variants")
                .buckets(vec![0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]),
        )?;
        registry.register(Box::new(changes.clone()))?;
        registry.register(Box::new(failed.clone()))?;
        registry.register(Box::new(left_out.clone()))?;
        registry.register(Box::new(entries.clone()))?;
        registry.register(Box::new(bytes.clone()))?;
        registry.register(Box::new(taken_in.clone()))?;
        Ok(Self { changes, failed, left_out, entries, bytes, taken_in })
    }

    fn show(&self, log: &ChangeLog, entries: &Entries) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.entries.set(number(entries.len() as u64));
        self.bytes.set(number(log.bytes()));
    }
}
