//! From a question to its items, with as much effort as there is time for: the engine, under pressure with a narrower
//! beam, and where it has no time an answer from before. What is less than was asked for says so.

use std::time::Instant;

use crate::catalog::{Candidates, View};
use crate::domain::{Failure, Filter, RecommendRequest, Recommendation, Steering};
use crate::engine::{Bias, DecodeRequest, DecodeSettings, Outcome};

use super::RecommendConfig;
use super::cache::{AnswerCache, Cached, Key};
use super::known::Known;
use super::metrics::{CacheResult, Less, RecommendMetrics};
use super::name;
use super::stopwatch::Stopwatch;
use super::variant::{Loaded, Variant};

/// From this share of the pressure on that would have a request refused, the beam is narrower.
const NARROW_FROM: f64 = 0.5;

/// The steps down, and what they need.
#[derive(Debug)]
pub(super) struct Ladder {
    narrow_beam: usize,
    cache: AnswerCache,
}

/// What is asked of one variant.
pub(super) struct Question<'a> {
    pub(super) request: &'a RecommendRequest,
    pub(super) known: Known,
    pub(super) root: Candidates,
    pub(super) settings: DecodeSettings,
    pub(super) bias: Bias,
    pub(super) deadline: Instant,
}

/// What was found.
pub(super) struct Found {
    pub(super) items: Vec<Recommendation>,
    pub(super) short: bool,
    pub(super) pruned: u32,
    pub(super) degraded: bool,
}

/// Everything that an answer depends on but the clock.
#[derive(Debug)]
#[allow(dead_code, reason = "its fields are told by Debug, which is what is hashed")]
struct Asked<'a> {
    variant: (&'a str, &'a std::path::Path, std::time::SystemTime, &'a str, &'a str),
    known: &'a Known,
    filter: &'a Filter,
    steering: &'a Steering,
    settings: &'a DecodeSettings,
    k: usize,
    explain: bool,
}

impl Ladder {
    pub(super) fn new(config: &RecommendConfig) -> Self {
        Self { narrow_beam: config.narrow_beam, cache: AnswerCache::new(config.cache) }
    }

    /// # Errors
    /// As the engine says; `Overloaded` only where there is no answer from before either.
    pub(super) async fn find(
        &self,
        loaded: &Loaded,
        view: &View,
        question: Question<'_>,
        metrics: &RecommendMetrics,
        stopwatch: &mut Stopwatch,
    ) -> Result<Found, Failure> {
        let engine = &loaded.variant.engine;
        let key = self.cache.is_on().then(|| question.key(loaded, view));
        if let Some(key) = key {
            let fresh = self.cache.fresh(key);
            metrics.cached(if fresh.is_some() { CacheResult::Hit } else { CacheResult::Miss });
            if let Some(cached) = fresh {
                return Ok(Found::before(&cached, false));
            }
        }
        let narrowed = self.narrowed(&question, engine.pressure(question.deadline));
        let degraded = narrowed.is_some();
        let Question { request, known, root, settings, bias, deadline } = question;
        let (settings, history) = (narrowed.unwrap_or(settings), known.history);
        // Told of again only where paths are.
        let told = if request.explain { history.clone() } else { Vec::new() };
        let job = DecodeRequest { history, k: request.k, root, settings, explain: request.explain, bias, deadline };
        let failure = match engine.decode(job).await {
            Ok(answer) => {
                stopwatch.engine(&answer);
                let (short, pruned) = (answer.outcome.short, answer.outcome.pruned);
                let items: Vec<_> =
                    answer.outcome.items.into_iter().map(|ranked| name::item(view, &told, ranked)).collect();
                match key {
                    _ if degraded => metrics.gave_less(Less::Narrow),
                    Some(key) => self.cache.put(key, &items, short),
                    None => {}
                }
                return Ok(Found { items, short, pruned, degraded });
            }
            Err(failure) => failure,
        };
        let before =
            key.filter(|_| matches!(failure, Failure::Overloaded { .. })).and_then(|key| self.cache.stale(key));
        let cached = before.ok_or(failure)?;
        metrics.cached(CacheResult::Stale);
        metrics.gave_less(Less::Cached);
        Ok(Found::before(&cached, true))
    }

    /// Settings of less effort, where there is pressure and the caller has not set the effort itself.
    fn narrowed(&self, question: &Question<'_>, pressure: f64) -> Option<DecodeSettings> {
        let may = self.narrow_beam > 0 && question.request.decode.beam.is_none() && pressure > NARROW_FROM;
        may.then(|| question.settings.narrowed(self.narrow_beam)).flatten()
    }
}

impl Found {
    /// What is popular.
    pub(super) fn cold(outcome: Outcome, view: &View) -> Self {
        let items = outcome.items.into_iter().map(|ranked| name::item(view, &[], ranked)).collect();
        Self { items, short: outcome.short, pruned: outcome.pruned, degraded: false }
    }

    fn before(cached: &Cached, degraded: bool) -> Self {
        Self { items: cached.items.to_vec(), short: cached.short, pruned: 0, degraded }
    }
}

impl Question<'_> {
    fn key(&self, loaded: &Loaded, view: &View) -> Key {
        let Variant { name, directory, created, bundle_version, .. } = &loaded.variant;
        Key::of(&Asked {
            variant: (name, directory, *created, bundle_version, view.version()),
            known: &self.known,
            filter: &self.request.filter,
            steering: &self.request.steering,
            settings: &self.settings,
            k: self.request.k,
            explain: self.request.explain,
        })
    }
}
