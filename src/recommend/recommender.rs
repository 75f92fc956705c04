//! The sentence itself.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use prometheus::Registry;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::domain::{
    CatalogChange, CatalogChanged, Event, ExperimentsChange, ExperimentsEdition, Exposure, Failure, Forgotten,
    ItemPage, RecommendAnswer, RecommendRequest, Recorded, Stage, StoredItem, UserEvent, Violation,
};
use crate::experiment::{
    ExperimentBook, ExperimentMetrics, Experiments, ExperimentsConfig, Shadow, ShadowMetrics, Trial,
};
use crate::history::{Histories, Lookup};

use super::RecommendConfig;
use super::catalogue::Catalogue;
use super::door::Door;
use super::events::{Recorder, away};
use super::known::Known;
use super::ladder::{Found, Ladder, Question};
use super::metrics::RecommendMetrics;
use super::name::RequestIds;
use super::shadow::Shadows;
use super::shelf::{NoWayBack, Shelf, SlotView};
use super::steering::bias;
use super::stopwatch::Stopwatch;
use super::variant::{Loaded, Variant, VariantView};

/// Why no recommender could be made.
#[derive(Debug, Error)]
pub enum RecommenderError {
    /// Settings are wrong; every wrong field is named.
    #[error("settings: {0:?}")]
    Config(Vec<Violation>),
    /// Two variants have the same name.
    #[error("two variants are named {0:?}")]
    Twice(String),
    /// The default variant is not among the variants.
    #[error("the default variant {0:?} is not loaded")]
    NoDefault(String),
    /// The metrics are registered already.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// How often a variant that was let go is looked at, whether its last request has ended.
const LAST_REQUEST: Duration = Duration::from_millis(20);

/// Answers requests. Clones share everything.
#[derive(Clone)]
pub struct Recommender {
    inner: Arc<Inner>,
}

struct Inner {
    shelf: ArcSwap<Shelf>,
    /// Held by whoever changes the shelf, so that the metrics follow in the same order.
    changing: Mutex<()>,
    /// Marked whenever the shelf changes.
    swapped: watch::Sender<()>,
    histories: Histories,
    /// None yet, or never: events are not recorded.
    recorder: OnceLock<Recorder>,
    /// None yet, or never: the catalogue is what bundles say.
    catalogue: OnceLock<Catalogue>,
    config: RecommendConfig,
    ladder: Ladder,
    experiments: ArcSwap<Experiments>,
    /// None: experiments are what [`Recommender::set_experiments`] said.
    book: OnceLock<Mutex<ExperimentBook>>,
    experiment_metrics: ExperimentMetrics,
    shadows: ArcSwap<Shadows>,
    shadow_metrics: ShadowMetrics,
    metrics: RecommendMetrics,
    ids: RequestIds,
    door: Door,
}

impl Recommender {
    /// A recommender that is ready at once: the engines of its variants are warm.
    pub fn new(
        variants: Vec<Variant>,
        default: String,
        histories: Histories,
        config: RecommendConfig,
        registry: &Registry,
    ) -> Result<Self, RecommenderError> {
        config.validate().map_err(RecommenderError::Config)?;
        let metrics = RecommendMetrics::new(registry)?;
        let mut shelf = Shelf::new(default);
        for variant in variants {
            let loaded = Loaded::new(variant).map_err(RecommenderError::Config)?;
            let name = loaded.variant.name.clone();
            if shelf.get(&name).is_some() {
                return Err(RecommenderError::Twice(name));
            }
            metrics.show(&loaded, None);
            shelf.put(Arc::new(loaded));
        }
        if shelf.get("").is_none() {
            return Err(RecommenderError::NoDefault(shelf.default_name().to_owned()));
        }
        let experiment_metrics = ExperimentMetrics::new(registry)?;
        let shadow_metrics = ShadowMetrics::new(registry)?;
        let none = Experiments::new(&ExperimentsConfig::default(), experiment_metrics.clone());
        let inner = Inner {
            shelf: ArcSwap::from_pointee(shelf),
            changing: Mutex::new(()),
            swapped: watch::Sender::new(()),
            histories,
            recorder: OnceLock::new(),
            catalogue: OnceLock::new(),
            ladder: Ladder::new(&config),
            config,
            experiments: ArcSwap::from_pointee(none.map_err(RecommenderError::Config)?),
            book: OnceLock::new(),
            experiment_metrics,
            shadows: ArcSwap::from_pointee(Shadows::new(Vec::new(), shadow_metrics.clone())),
            shadow_metrics,
            metrics,
            ids: RequestIds::new(),
            door: Door::open(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs these experiments instead of those before, of which there are none at first. The series of
    /// the metrics begin anew; an experiment whose settings stay the same keeps its killed arms and the units of its ratio.
    ///
    /// # Errors
    /// [`RecommenderError::Config`] names every wrong field; those before go on then.
    pub fn set_experiments(&self, config: &ExperimentsConfig) -> Result<(), RecommenderError> {
        let Inner { experiments, experiment_metrics, .. } = &*self.inner;
        let before = experiments.load_full();
        let next = Experiments::following(Some(&before), config, experiment_metrics.clone());
        let next = next.map_err(RecommenderError::Config)?;
        experiments.store(Arc::new(next));
        let arms = config.shadow.iter().map(Shadow::new).collect();
        self.inner.shadows.store(Arc::new(Shadows::new(arms, self.inner.shadow_metrics.clone())));
        Ok(())
    }

    /// Runs the experiments of the book instead of those before, and lets operators change them from here on. A recommender
    /// has one book: a second is refused, and the answer is false.
    ///
    /// # Errors
    /// As [`Recommender::set_experiments`].
    pub fn run_book(&self, book: ExperimentBook) -> Result<bool, RecommenderError> {
        self.set_experiments(&book.running().map_err(RecommenderError::Config)?)?;
        Ok(self.inner.book.set(Mutex::new(book)).is_ok())
    }

    /// The experiments that run, and those before them, newest first, at most `most`.
    ///
    /// # Errors
    /// `Off` without a book.
    pub fn experiments(&self, most: usize) -> Result<(ExperimentsEdition, Vec<ExperimentsEdition>), Failure> {
        let book = self.book()?;
        Ok((book.current(), book.before(most)))
    }

    /// Runs other experiments, once they are on disk, and answers the version that runs. What goes on is as
    /// [`Recommender::set_experiments`] says. Blocks its thread on the disk.
    ///
    /// # Errors
    /// `Off` without a book; else as [`ExperimentBook::change`], and those before go on.
    pub fn change_experiments(&self, change: ExperimentsChange) -> Result<ExperimentsEdition, Failure> {
        let mut book = self.book()?;
        let check_only = change.check_only;
        let running = book.change(change)?;
        if !check_only {
            let refused = |error: RecommenderError| Failure::Internal(format!("checked experiments: {error}"));
            self.set_experiments(&running).map_err(refused)?;
        }
        Ok(book.current())
    }

    /// Held while it is changed, so that what runs is what it says.
    fn book(&self) -> Result<MutexGuard<'_, ExperimentBook>, Failure> {
        let book = self.inner.book.get().ok_or(Failure::Off("this server's experiments cannot be changed"))?;
        // It is changed in one assignment, after all that may panic.
        Ok(book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers one request, no later than its deadline or the configured maximum. Dropping the future gives it up.
    ///
    /// # Errors
    /// `UnknownVariant`; `Invalid` when decode settings are out of range; `NotReady` once drained or when the engine has
    /// stopped; `Late`, `Overloaded` and `Internal` as the engine says; `Invalid` and `Denied` when an arm is forced that
    /// does not exist, or without the right to. A user without usable history is none: the answer comes from the prior
    /// and says `cold_start`; so it does, and says `history_missed`, while the history store does not
    /// answer. With a recorder, an answer that an experiment has an arm for is left for the event log.
    pub async fn recommend(
        &self,
        request: RecommendRequest,
        deadline: Option<Instant>,
    ) -> Result<RecommendAnswer, Failure> {
        let _visit = self.inner.door.enter()?;
        let stopwatch = Stopwatch::start();
        let deadline = self.deadline(deadline);
        let mut trial = self.inner.experiments.load_full().enter(&request, SystemTime::now())?;
        let mut outcome = self.answer(&request, &trial, deadline, stopwatch.clone()).await;
        while let Err(failure) = &outcome
            && trial.falls_back(failure)
        {
            tracing::debug!(request_id = request.request_id, %failure, "answering without the arm");
            outcome = self.answer(&request, &trial, deadline, stopwatch.clone()).await;
        }
        let recorder = self.inner.recorder.get();
        let arms = recorder.map_or_else(Vec::new, |_| trial.exposed(&request));
        let answer = trial.settle(outcome)?;
        self.inner.shadows.load().copy(self, &request, &answer);
        if let Some(recorder) = recorder.filter(|_| !arms.is_empty()) {
            recorder.expose(Exposure::of(&answer, request.user_id, arms));
        }
        Ok(answer)
    }

    /// What every request that came now with this deadline would be refused with if it needed an engine, so that nobody has to
    /// read it; none where one might be answered.
    pub fn refusal(&self, deadline: Option<Instant>) -> Option<Failure> {
        let Inner { config, shelf, .. } = &*self.inner;
        if !config.refuse_unread || config.cache.entries > 0 {
            return None;
        }
        let deadline = self.deadline(deadline);
        let shelf = shelf.load();
        let mut refusals = shelf.serving().map(|loaded| loaded.variant.engine.refusal(deadline));
        let first = refusals.next()??;
        refusals.all(|refusal| refusal.is_some()).then_some(first)
    }

    /// Answers by the variant and with the settings that the trial says.
    async fn answer(
        &self,
        request: &RecommendRequest,
        trial: &Trial,
        deadline: Instant,
        mut stopwatch: Stopwatch,
    ) -> Result<RecommendAnswer, Failure> {
        let Inner { config, ladder, metrics, ids, histories, .. } = &*self.inner;
        // Kept to the end of the request, whatever serves under that name by then.
        let loaded = self.loaded(trial.variant()).ok_or_else(|| self.unknown(trial.variant()))?;
        let settings = loaded.settings(&trial.decode())?;
        loaded.variant.engine.refuse_late(deadline)?;
        // What the catalogue says now is kept to the end, too.
        let live = loaded.live.load_full();
        let (view, index) = (&live.view, live.view.index());

        let RecommendRequest { filter, steering, .. } = request;
        let limit = config.max_history.min(loaded.variant.max_history);
        let (events, history_missed) = self.events(request, deadline).await;
        let known = Known::of(&events, index, filter, histories.kind_weights(), limit);
        let root = view.root(filter, &known.excluded);
        let bias = bias(steering, view);
        stopwatch.lap(Stage::History);

        let cold_start = known.history.is_empty();
        let found = if cold_start {
            metrics.cold_start.inc();
            Found::cold(live.popularity.best(index, &root, &bias, request.k), view)
        } else {
            let question = Question { request, known, root, settings, bias, deadline };
            ladder.find(&loaded, view, question, metrics, &mut stopwatch).await?
        };

        stopwatch.lap(Stage::Resolve);
        let timings = stopwatch.stop();
        metrics.count(found.short, found.pruned, &timings);
        Ok(RecommendAnswer {
            request_id: ids.keep_or_make(&request.request_id),
            items: found.items,
            variant: loaded.variant.name.clone(),
            bundle_version: loaded.variant.bundle_version.clone(),
            index_version: view.version().to_owned(),
            assignments: Vec::new(),
            cold_start,
            history_missed,
            degraded: found.degraded || history_missed,
            short: found.short,
            timings,
        })
    }

    /// Takes events down from here on. A recommender has one recorder: a second is refused, and the answer is false.
    pub fn record_with(&self, recorder: Recorder) -> bool {
        self.inner.recorder.set(recorder).is_ok()
    }

    /// Takes the events down; when this resolves they are in the log, and in the histories that the next request reads.
    ///
    /// # Errors
    /// `Off` without a recorder; `NotReady` once drained or when the log cannot be written; `Overloaded` when too many
    /// wait. After the last two the events may be sent again.
    pub async fn record(&self, events: Vec<UserEvent>) -> Result<Recorded, Failure> {
        let _visit = self.inner.door.enter()?;
        let off = Failure::Off("this server records no events: events.path is not set");
        self.inner.recorder.get().ok_or(off)?.record(events).await
    }

    /// Removes all that is stored of the user: the history, and the events and exposures of the log where there is one.
    ///
    /// # Errors
    /// As [`Recommender::record`], but never `Off`. A user may then be forgotten in part, and be forgotten again.
    pub async fn forget(&self, user: String) -> Result<Forgotten, Failure> {
        let Inner { histories, recorder, .. } = &*self.inner;
        match recorder.get() {
            Some(recorder) => recorder.forget(user).await,
            None => {
                let history_events = histories.store().remove(&user).await.map_err(|error| away(&error))?;
                Ok(Forgotten { history_events, ..Forgotten::default() })
            }
        }
    }

    /// Lets the catalogue be changed from here on, and tells what was said of it before to all that is loaded. Not for an
    /// async task. A recommender has one catalogue: a second is refused, and the answer is false.
    pub fn open_catalogue(&self, catalogue: Catalogue) -> bool {
        let loaded: Vec<Arc<Loaded>> = self.inner.shelf.load().loaded().cloned().collect();
        loaded.iter().for_each(|loaded| drop(catalogue.bring_up(loaded)));
        let opened = self.inner.catalogue.set(catalogue).is_ok();
        self.show_items();
        opened
    }

    /// Changes items; when this resolves the changes are durable, and every request that comes sees them.
    ///
    /// # Errors
    /// `Off` without a catalogue; `Invalid` when an embedding is none of the default variant's, and `Unmet` when its bundle
    /// has no tokenizer for new items, with nothing changed; `Overloaded` when too many wait; `NotReady` once drained or
    /// when the log cannot be written: then the changes may be sent again.
    pub async fn change_items(&self, changes: Vec<CatalogChange>) -> Result<CatalogChanged, Failure> {
        let _visit = self.inner.door.enter()?;
        let answer = self.catalogue()?.ask(changes)?;
        let recommender = self.clone();
        // Goes on when the caller goes away: others may wait for the same write.
        let working = tokio::task::spawn_blocking(move || recommender.work_off_changes());
        working.await.map_err(|error| Failure::Internal(format!("changing items ended: {error}")))?;
        answer.await.unwrap_or_else(|_| Err(Failure::Internal("changing items gave no answer".into())))
    }

    fn work_off_changes(&self) {
        let Some(catalogue) = self.inner.catalogue.get() else { return };
        catalogue.work_off(|| {
            let shelf = self.inner.shelf.load();
            let default = shelf.get("").cloned();
            default.map(|default| (default, shelf.loaded().cloned().collect()))
        });
        self.show_items();
    }

    /// One item as it stands now.
    ///
    /// # Errors
    /// `UnknownItem`; `Off` without a catalogue.
    pub fn item(&self, id: &str) -> Result<StoredItem, Failure> {
        let default = self.loaded("").ok_or_else(|| self.unknown(""))?;
        self.catalogue()?.item(&default, id).ok_or_else(|| Failure::UnknownItem(id.to_owned()))
    }

    /// At most `most` items in the order of their ids, those after `after`.
    ///
    /// # Errors
    /// `Off` without a catalogue.
    pub fn items(&self, after: Option<&str>, most: usize) -> Result<ItemPage, Failure> {
        let default = self.loaded("").ok_or_else(|| self.unknown(""))?;
        Ok(self.catalogue()?.page(&default, after, most))
    }

    /// Folds overlays into indexes on the catalogue's schedule, for ever; without a catalogue it never ends either.
    pub async fn tend_catalogue(&self) {
        let Some(every) = self.inner.catalogue.get().map(Catalogue::fold_every) else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(every).await;
            let recommender = self.clone();
            let folded = tokio::task::spawn_blocking(move || {
                if let Some(catalogue) = recommender.inner.catalogue.get() {
                    catalogue.fold(|| recommender.inner.shelf.load().loaded().cloned().collect());
                    recommender.show_items();
                }
            });
            // A panic there is told by the runtime; the next turn comes all the same.
            drop(folded.await);
        }
    }

    fn catalogue(&self) -> Result<&Catalogue, Failure> {
        let off = Failure::Off("this server's catalogue cannot be changed: catalogue.path is not set");
        self.inner.catalogue.get().ok_or(off)
    }

    /// Lets the metrics say how many items there are now.
    fn show_items(&self) {
        self.inner.shelf.load().serving().for_each(|loaded| self.inner.metrics.show_items(loaded));
    }

    /// Adds a variant, or replaces the one of the same name. Requests that run keep the one they began with. What was
    /// replaced stays loaded and warm, for [`Recommender::rollback`]; the one before that ends with its last request.
    ///
    /// Called within a tokio runtime.
    pub fn set_variant(&self, variant: Variant) -> Result<(), RecommenderError> {
        let loaded = Arc::new(Loaded::new(variant).map_err(RecommenderError::Config)?);
        let name = loaded.variant.name.clone();
        // Held until it serves, so that no change of the catalogue passes it by.
        let _unchanged = self.inner.catalogue.get().map(|catalogue| catalogue.bring_up(&loaded));
        let evicted = self.change(&name, |shelf| shelf.put(loaded));
        if let Some(evicted) = evicted {
            tokio::spawn(end(evicted));
        }
        Ok(())
    }

    /// Lets the variant that served before under this name serve again: a swap, as both are loaded.
    ///
    /// # Errors
    /// When there is no such name, or nothing to go back to; then nothing is changed.
    pub fn rollback(&self, name: &str) -> Result<(), NoWayBack> {
        self.change(name, |shelf| shelf.go_back(name))
    }

    /// Makes a loaded variant the one of requests that name none. False when no such variant is loaded.
    pub fn set_default(&self, name: &str) -> bool {
        self.change(name, |shelf| shelf.make_default(name))
    }

    /// Changes a copy of the shelf, puts it in the shelf's place, and lets the metrics of `name` follow.
    fn change<T>(&self, name: &str, change: impl FnOnce(&mut Shelf) -> T) -> T {
        let Inner { shelf, changing, swapped, metrics, .. } = &*self.inner;
        // Nothing is kept under the lock, so a poisoned one guards nothing that is broken.
        let changing = changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = shelf.load_full();
        let mut next = Shelf::clone(&before);
        let outcome = change(&mut next);
        let (old, new) = (before.get(name).cloned(), next.get(name).cloned());
        shelf.store(Arc::new(next));
        if let Some(new) = new.filter(|new| !old.as_ref().is_some_and(|old| Arc::ptr_eq(old, new))) {
            metrics.show(&new, old.as_deref());
        }
        drop(changing);
        swapped.send_replace(());
        outcome
    }

    /// The variants that serve, by name.
    pub fn variants(&self) -> Vec<VariantView> {
        self.slots().into_iter().map(|slot| slot.current).collect()
    }

    /// The loaded variants with what each would go back to, by name.
    pub fn slots(&self) -> Vec<SlotView> {
        self.inner.shelf.load().views()
    }

    /// Marked whenever a variant is added, replaced, rolled back or made the default.
    pub fn watch_variants(&self) -> watch::Receiver<()> {
        self.inner.swapped.subscribe()
    }

    /// Whether requests should be sent here: not draining, and the default variant's engine runs.
    pub fn ready(&self) -> bool {
        let runs = self.loaded("").is_some_and(|loaded| loaded.variant.engine.alive());
        *self.inner.door.watch_ready().borrow() && runs
    }

    /// Turns false when a drain begins. An engine that stops is told by [`Recommender::engine_stopped`].
    pub fn watch_ready(&self) -> watch::Receiver<bool> {
        self.inner.door.watch_ready()
    }

    /// Turns not ready at once, keeps answering for `lag`, the time that routers need to notice, then refuses new
    /// requests and resolves when the last one is answered. The caller sets the limit of patience.
    pub async fn drain(&self, lag: Duration) {
        self.inner.door.drain(lag).await;
    }

    /// How many requests are being answered.
    pub fn inflight(&self) -> usize {
        self.inner.door.inside()
    }

    /// Resolves with the name of a variant whose engine has stopped, which only a panic in its thread does. A process
    /// should end then, and say so by its exit code.
    pub async fn engine_stopped(&self) -> String {
        let mut swapped = self.inner.swapped.subscribe();
        loop {
            let shelf = self.inner.shelf.load_full();
            if let Some(stopped) = shelf.serving().find(|loaded| !loaded.variant.engine.alive()) {
                return stopped.variant.name.clone();
            }
            let mut changes = JoinSet::new();
            for loaded in shelf.serving() {
                let mut alive = loaded.variant.engine.watch_alive();
                changes.spawn(async move { drop(alive.changed().await) });
            }
            // Not held while waiting: a variant that is replaced must be free to end.
            drop(shelf);
            tokio::select! {
                _ = swapped.changed() => {}
                _ = changes.join_next() => {}
            }
        }
    }

    fn deadline(&self, given: Option<Instant>) -> Instant {
        let latest = Instant::now() + self.inner.config.max_deadline();
        if given.is_none() {
            self.inner.metrics.without_deadline.inc();
        }
        given.map_or(latest, |given| given.min(latest))
    }

    /// Newest events of a history that networks read at most.
    pub(super) fn max_history(&self) -> usize {
        self.inner.config.max_history
    }

    pub(super) fn histories(&self) -> &Histories {
        &self.inner.histories
    }

    /// The variant that serves under this name now, the default for an empty one; none when none is loaded.
    pub(super) fn loaded(&self, name: &str) -> Option<Arc<Loaded>> {
        self.inner.shelf.load().get(name).cloned()
    }

    fn unknown(&self, asked: &str) -> Failure {
        let default = || self.inner.shelf.load().default_name().to_owned();
        Failure::UnknownVariant(if asked.is_empty() { default() } else { asked.to_owned() })
    }

    /// The history that came with the request, or else the stored one; and whether the store was asked in vain.
    pub(super) async fn events<'a>(
        &self,
        request: &'a RecommendRequest,
        deadline: Instant,
    ) -> (Cow<'a, [Event]>, bool) {
        if !request.history.is_empty() {
            return (Cow::Borrowed(&request.history), false);
        }
        if request.user_id.is_empty() {
            return (Cow::Borrowed(&[]), false);
        }
        // All of it: what is excluded looks further back than the network does.
        let asked = tokio::time::timeout_at(deadline.into(), self.inner.histories.recent(&request.user_id)).await;
        let Lookup { events, missed } = asked.unwrap_or(Lookup { events: Vec::new(), missed: true });
        (Cow::Owned(events), missed)
    }
}

/// Lets a variant go once its last request has ended, on a thread that may wait for the engine's.
async fn end(loaded: Arc<Loaded>) {
    // No shelf holds it any more, so nobody takes it up again.
    while Arc::strong_count(&loaded) > 1 {
        tokio::time::sleep(LAST_REQUEST).await;
    }
    let bundle = format!("{}/{}", loaded.variant.bundle_name, loaded.variant.bundle_version);
    let variant = loaded.variant.name.clone();
    if tokio::task::spawn_blocking(move || drop(loaded)).await.is_ok() {
        tracing::info!(variant, bundle, "let go");
    }
}
