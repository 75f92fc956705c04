//! The sentence itself.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use prometheus::Registry;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::domain::{Event, Failure, RecommendAnswer, RecommendRequest, Stage, Violation};
use crate::engine::DecodeRequest;
use crate::experiment::{ExperimentMetrics, Experiments, ExperimentsConfig, Trial};
use crate::history::HistoryStore;

use super::RecommendConfig;
use super::door::Door;
use super::known::Known;
use super::metrics::RecommendMetrics;
use super::name::{self, RequestIds};
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

type Variants = BTreeMap<String, Arc<Loaded>>;

/// Answers requests. Clones share everything.
#[derive(Clone)]
pub struct Recommender {
    inner: Arc<Inner>,
}

struct Inner {
    variants: ArcSwap<Variants>,
    /// Marked whenever the variants change.
    swapped: watch::Sender<()>,
    default: String,
    histories: Arc<HistoryStore>,
    config: RecommendConfig,
    experiments: ArcSwap<Experiments>,
    experiment_metrics: ExperimentMetrics,
    metrics: RecommendMetrics,
    ids: RequestIds,
    door: Door,
}

impl Recommender {
    /// A recommender that is ready at once: the engines of its variants are warm.
    pub fn new(
        variants: Vec<Variant>,
        default: String,
        histories: Arc<HistoryStore>,
        config: RecommendConfig,
        registry: &Registry,
    ) -> Result<Self, RecommenderError> {
        config.validate().map_err(RecommenderError::Config)?;
        let metrics = RecommendMetrics::new(registry)?;
        let mut loaded = Variants::new();
        for variant in variants {
            let variant = Loaded::new(variant).map_err(RecommenderError::Config)?;
            metrics.show(&variant.variant, None);
            let name = variant.variant.name.clone();
            if loaded.insert(name.clone(), Arc::new(variant)).is_some() {
                return Err(RecommenderError::Twice(name));
            }
        }
        if !loaded.contains_key(&default) {
            return Err(RecommenderError::NoDefault(default));
        }
        let experiment_metrics = ExperimentMetrics::new(registry)?;
        let none = Experiments::new(&ExperimentsConfig::default(), experiment_metrics.clone());
        let inner = Inner {
            variants: ArcSwap::from_pointee(loaded),
            swapped: watch::Sender::new(()),
            default,
            histories,
            config,
            experiments: ArcSwap::from_pointee(none.map_err(RecommenderError::Config)?),
            experiment_metrics,
            metrics,
            ids: RequestIds::new(),
            door: Door::open(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs these experiments instead of those before, of which there are none at first. Counts begin anew.
    ///
    /// # Errors
    /// [`RecommenderError::Config`] names every wrong field; those before go on then.
    pub fn set_experiments(&self, config: &ExperimentsConfig) -> Result<(), RecommenderError> {
        let Inner { experiments, experiment_metrics, .. } = &*self.inner;
        let next = Experiments::new(config, experiment_metrics.clone()).map_err(RecommenderError::Config)?;
        experiments.store(Arc::new(next));
        Ok(())
    }

    /// Answers one request, no later than its deadline or the configured maximum. Dropping the future gives it up.
    ///
    /// # Errors
    /// `UnknownVariant`; `Invalid` when decode settings are out of range; `NotReady` once drained or when the engine has
    /// stopped; `Late`, `Overloaded` and `Internal` as the engine says; `Invalid` and `Denied` when an arm is forced that
    /// does not exist, or without the right to. A user without usable history is none: the answer comes from the prior
    /// and says `cold_start`.
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
        trial.settle(outcome)
    }

    /// Answers by the variant and with the settings that the trial says.
    async fn answer(
        &self,
        request: &RecommendRequest,
        trial: &Trial,
        deadline: Instant,
        mut stopwatch: Stopwatch,
    ) -> Result<RecommendAnswer, Failure> {
        let Inner { config, metrics, ids, .. } = &*self.inner;
        let loaded = self.variant(trial.variant())?;
        let settings = loaded.settings(&trial.decode())?;
        let Variant { engine, index, .. } = &loaded.variant;
        engine.refuse_late(deadline)?;

        let RecommendRequest { k, explain, filter, .. } = request;
        let limit = config.max_history.min(loaded.variant.max_history);
        let Known { history, excluded } = Known::of(&self.events(request), index, filter, limit);
        let root = index.root(filter, &excluded);
        stopwatch.lap(Stage::History);

        let cold_start = history.is_empty();
        let outcome = if cold_start {
            metrics.cold_start.inc();
            loaded.popularity.best(index, &root, *k)
        } else {
            let job = DecodeRequest { history, k: *k, root, settings, explain: *explain, deadline };
            let answer = engine.decode(job).await?;
            stopwatch.engine(&answer);
            answer.outcome
        };

        let items = outcome.items.into_iter().map(|ranked| name::item(index, ranked)).collect();
        stopwatch.lap(Stage::Resolve);
        let timings = stopwatch.stop();
        metrics.count(outcome.short, outcome.pruned, &timings);
        Ok(RecommendAnswer {
            request_id: ids.keep_or_make(&request.request_id),
            items,
            variant: loaded.variant.name.clone(),
            bundle_version: loaded.variant.bundle_version.clone(),
            index_version: index.version().to_owned(),
            assignments: Vec::new(),
            cold_start,
            degraded: false,
            short: outcome.short,
            timings,
        })
    }

    /// Adds a variant, or replaces the one of the same name. Requests that run keep the one they began with; when the
    /// last of them is done its engine is dropped, which waits for the engine's thread.
    pub fn set_variant(&self, variant: Variant) -> Result<(), RecommenderError> {
        let Inner { variants, swapped, metrics, .. } = &*self.inner;
        let loaded = Arc::new(Loaded::new(variant).map_err(RecommenderError::Config)?);
        let name = loaded.variant.name.clone();
        let before = variants.rcu(|now| {
            let mut next = Variants::clone(now);
            next.insert(name.clone(), loaded.clone());
            next
        });
        metrics.show(&loaded.variant, before.get(&name).map(|old| &old.variant));
        swapped.send_replace(());
        Ok(())
    }

    /// The loaded variants, by name.
    pub fn variants(&self) -> Vec<VariantView> {
        self.inner.variants.load().values().map(|loaded| loaded.view(&self.inner.default)).collect()
    }

    /// Whether requests should be sent here: not draining, and the default variant's engine runs.
    pub fn ready(&self) -> bool {
        let variants = self.inner.variants.load();
        let runs = variants.get(&self.inner.default).is_some_and(|loaded| loaded.variant.engine.alive());
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
            let variants = self.inner.variants.load_full();
            if let Some(stopped) = variants.values().find(|loaded| !loaded.variant.engine.alive()) {
                return stopped.variant.name.clone();
            }
            let mut changes = JoinSet::new();
            for loaded in variants.values() {
                let mut alive = loaded.variant.engine.watch_alive();
                changes.spawn(async move { drop(alive.changed().await) });
            }
            // Not held while waiting: a variant that is replaced must be free to end.
            drop(variants);
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

    fn variant(&self, asked: &str) -> Result<Arc<Loaded>, Failure> {
        let name = if asked.is_empty() { &self.inner.default } else { asked };
        self.inner.variants.load().get(name).cloned().ok_or_else(|| Failure::UnknownVariant(name.to_owned()))
    }

    /// The history that came with the request, or else the stored one.
    fn events<'a>(&self, request: &'a RecommendRequest) -> Cow<'a, [Event]> {
        if !request.history.is_empty() {
            return Cow::Borrowed(&request.history);
        }
        if request.user_id.is_empty() {
            return Cow::Borrowed(&[]);
        }
        // All of it: what is excluded looks further back than the network does.
        Cow::Owned(self.inner.histories.recent(&request.user_id, usize::MAX))
    }
}
