//! What the online sentence counts.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::age::ModelAges;
use super::variant::{Loaded, Variant};
use crate::domain::Stage;

/// What the cache of answers had.
#[derive(Debug, Clone, Copy)]
pub(super) enum CacheResult {
    /// The answer.
    Hit,
    /// Nothing, or something too old.
    Miss,
    /// Something old, for want of anything else.
    Stale,
}

/// How an answer is less than was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Less {
    /// Searched with a narrower beam.
    Narrow,
    /// From before.
    Cached,
}

impl CacheResult {
    const ALL: [Self; 3] = [Self::Hit, Self::Miss, Self::Stale];

    fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
        }
    }
}

impl Less {
    const ALL: [Self; 2] = [Self::Narrow, Self::Cached];

    fn name(self) -> &'static str {
        match self {
            Self::Narrow => "narrow",
            Self::Cached => "cached",
        }
    }
}

#[derive(Debug)]
pub(super) struct RecommendMetrics {
    pub(super) cold_start: IntCounter,
    pub(super) without_deadline: IntCounter,
    short: IntCounter,
    cache: IntCounterVec,
    degraded: IntCounterVec,
    pruned: IntCounterVec,
    stages: HistogramVec,
    model_info: IntGaugeVec,
    index_items: IntGaugeVec,
    overlay_items: IntGaugeVec,
    ages: ModelAges,
}

/// The one reason for which a live path ends before its time: CORP found its belief to jump.
const INCONSISTENT: &str = "inconsistent";

impl RecommendMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let cold_start = IntCounter::new("reg4rec_cold_start_total", "Requests answered from the prior")?;
        let without_deadline =
            IntCounter::new("reg4rec_requests_without_deadline_total", "Requests that came without a deadline")?;
        let short = IntCounter::new("reg4rec_results_short_total", "Answers with fewer items than asked for")?;
        let pruned =
            IntCounterVec::new(Opts::new("reg4rec_beams_pruned_total", "Paths ended by the search"), &["reason"])?;
        let stages = HistogramVec::new(
            HistogramOpts::new("reg4rec_stage_duration_seconds", "Time spent in each stage of a request")
                .buckets(vec![0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]),
            &["stage"],
        )?;
        let model_info = IntGaugeVec::new(
            Opts::new("reg4rec_model_info", "1 for the bundle of each variant"),
            &["variant", "name", "version"],
        )?;
        let index_items =
            IntGaugeVec::new(Opts::new("reg4rec_index_items", "Items in the index of each variant"), &["variant"])?;
        let overlay_items = IntGaugeVec::new(
            Opts::new("reg4rec_index_overlay_items", "Items that changed since the index of each variant was built"),
            &["variant"],
        )?;
        registry.register(Box::new(overlay_items.clone()))?;
        let cache = IntCounterVec::new(
            Opts::new("reg4rec_cache_requests_total", "Look-ups in the cache of answers, by what it had"),
            &["result"],
        )?;
        let degraded = IntCounterVec::new(
            Opts::new("reg4rec_degraded_total", "Answers with less effort than asked for, for want of time"),
            &["how"],
        )?;
        CacheResult::ALL.iter().for_each(|result| drop(cache.with_label_values(&[result.name()])));
        Less::ALL.iter().for_each(|less| drop(degraded.with_label_values(&[less.name()])));
        registry.register(Box::new(cache.clone()))?;
        registry.register(Box::new(degraded.clone()))?;
        pruned.with_label_values(&[INCONSISTENT]);
        Stage::ALL.iter().for_each(|stage| drop(stages.with_label_values(&[stage.name()])));
        registry.register(Box::new(cold_start.clone()))?;
        registry.register(Box::new(without_deadline.clone()))?;
        registry.register(Box::new(short.clone()))?;
        registry.register(Box::new(pruned.clone()))?;
        registry.register(Box::new(stages.clone()))?;
        registry.register(Box::new(model_info.clone()))?;
        registry.register(Box::new(index_items.clone()))?;
        let ages = ModelAges::new()?;
        registry.register(Box::new(ages.clone()))?;
        Ok(Self {
            cold_start,
            without_deadline,
            short,
            cache,
            degraded,
            pruned,
            stages,
            model_info,
            index_items,
            overlay_items,
            ages,
        })
    }

    /// Counts one look-up.
    pub(super) fn cached(&self, result: CacheResult) {
        self.cache.with_label_values(&[result.name()]).inc();
    }

    /// Counts one answer that is less than was asked for.
    pub(super) fn gave_less(&self, less: Less) {
        self.degraded.with_label_values(&[less.name()]).inc();
    }

    /// Counts one answer.
    pub(super) fn count(&self, short: bool, pruned: u32, timings: &[(Stage, Duration)]) {
        self.pruned.with_label_values(&[INCONSISTENT]).inc_by(pruned.into());
        self.short.inc_by(short.into());
        for (stage, took) in timings {
            self.stages.with_label_values(&[stage.name()]).observe(took.as_secs_f64());
        }
    }

    /// Shows a variant that was loaded, and no longer the one that it replaces.
    pub(super) fn show(&self, loaded: &Loaded, replaced: Option<&Loaded>) {
        if let Some(old) = replaced {
            // An error says that the series is gone already.
            drop(self.model_info.remove_label_values(&labels(&old.variant)));
        }
        self.model_info.with_label_values(&labels(&loaded.variant)).set(1);
        self.show_items(loaded);
        self.ages.set(&loaded.variant.name, loaded.variant.created);
    }

    /// Shows how many items a variant has now.
    pub(super) fn show_items(&self, loaded: &Loaded) {
        let (name, live) = (&loaded.variant.name, loaded.live.load());
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.index_items.with_label_values(&[name]).set(number(live.view.index().len()));
        self.overlay_items.with_label_values(&[name]).set(number(live.view.overlaid()));
    }
}

fn labels(variant: &Variant) -> [&str; 3] {
    [&variant.name, &variant.bundle_name, &variant.bundle_version]
}
