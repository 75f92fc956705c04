//! What the sidecar counts. Every series but that of the published version exists from the start; labels are closed lists.

use std::time::{Duration, Instant};

use prometheus::{Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::drift::Drift;
use super::gate::Compared;
use super::increment::Counts;

const RESULTS: [&str; 4] = ["published", "refused", "too_few", "failed"];
const STAGES: [&str; 5] = ["load", "increment", "tune", "evaluate", "publish"];
const SORTS: [&str; 5] = ["learnt", "held_out", "unknown_item", "hidden", "repeated"];
const DECISIONS: [&str; 2] = ["passed", "refused"];
const MODELS: [&str; 2] = ["current", "candidate"];
const METRICS: [&str; 3] = ["ndcg@10", "recall@10", "slate_order"];
/// Seconds: from a small shop's cycle to a day's.
const SECONDS: [f64; 12] = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0];

/// The sidecar's metrics. Clones count together.
#[derive(Debug, Clone)]
pub struct SidecarMetrics {
    cycles: IntCounterVec,
    stages: HistogramVec,
    events: IntCounterVec,
    gate: IntCounterVec,
    waiting: IntGauge,
    quality: GaugeVec,
    unknown_share: Gauge,
    codebook_use: Gauge,
    retrain_suggested: IntGauge,
    published: IntGaugeVec,
    published_at: IntGauge,
}

impl SidecarMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, about: &str, label: &str| IntCounterVec::new(Opts::new(name, about), &[label]);
        let metrics = Self {
            cycles: counter("reg4rec_sidecar_cycles_total", "Cycles that ended, by result.", "result")?,
            stages: HistogramVec::new(
                HistogramOpts::new("reg4rec_sidecar_stage_duration_seconds", "Seconds of each stage of a cycle.")
                    .buckets(SECONDS.to_vec()),
                &["stage"],
            )?,
            events: counter(
                "reg4rec_sidecar_events_total",
                "New events that cycles read, by what became of them.",
                "sort",
            )?,
            gate: counter("reg4rec_sidecar_gate_total", "Candidates that the gate judged, by decision.", "decision")?,
            waiting: IntGauge::new("reg4rec_sidecar_waiting_events", "Events of the log that no cycle has looked at.")?,
            quality: GaugeVec::new(
                Opts::new(
                    "reg4rec_sidecar_quality",
                    "Metrics of the last comparison, seen items filtered; slate_order of replayed exposures, 0 without any.",
                ),
                &["model", "metric"],
            )?,
            unknown_share: Gauge::new(
                "reg4rec_sidecar_unknown_item_share",
                "Share of the last cycle's new events that are on items which the bundle does not know.",
            )?,
            codebook_use: Gauge::new(
                "reg4rec_sidecar_codebook_use_ratio",
                "Mean perplexity of the codebooks over the last cycle's new events, beside that over the bundle's popularity.",
            )?,
            retrain_suggested: IntGauge::new(
                "reg4rec_sidecar_retrain_suggested",
                "1 when the last cycle's drift suggests a full retrain.",
            )?,
            published: IntGaugeVec::new(
                Opts::new("reg4rec_sidecar_published_info", "1 for the version that was published last."),
                &["variant", "version"],
            )?,
            published_at: IntGauge::new(
                "reg4rec_sidecar_published_timestamp_seconds",
                "When this process published last, in Unix seconds; 0: never.",
            )?,
        };
        metrics.register(registry)?;
        metrics.start_at_zero();
        Ok(metrics)
    }

    fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        for family in [&self.cycles, &self.events, &self.gate] {
            registry.register(Box::new(family.clone()))?;
        }
        for gauge in [&self.waiting, &self.retrain_suggested, &self.published_at] {
            registry.register(Box::new(gauge.clone()))?;
        }
        for gauge in [&self.unknown_share, &self.codebook_use] {
            registry.register(Box::new(gauge.clone()))?;
        }
        registry.register(Box::new(self.stages.clone()))?;
        registry.register(Box::new(self.quality.clone()))?;
        registry.register(Box::new(self.published.clone()))
    }

    fn start_at_zero(&self) {
        RESULTS.iter().for_each(|label| drop(self.cycles.with_label_values(&[label])));
        STAGES.iter().for_each(|label| drop(self.stages.with_label_values(&[label])));
        SORTS.iter().for_each(|label| drop(self.events.with_label_values(&[label])));
        DECISIONS.iter().for_each(|label| drop(self.gate.with_label_values(&[label])));
        for model in MODELS {
            METRICS.iter().for_each(|metric| drop(self.quality.with_label_values(&[model, metric])));
        }
        self.codebook_use.set(1.0);
    }

    /// Runs one stage of a cycle and notes how long it took.
    pub(super) fn stage<T>(&self, stage: &str, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let outcome = work();
        self.stages.with_label_values(&[stage]).observe(began.elapsed().as_secs_f64());
        tracing::info!(stage, seconds = began.elapsed().as_secs_f64(), "done");
        outcome
    }

    /// A cycle ended.
    pub(super) fn ended(&self, result: &str) {
        self.cycles.with_label_values(&[result]).inc();
    }

    /// So many events wait for the next cycle.
    pub(super) fn waiting(&self, events: u64) {
        self.waiting.set(i64::try_from(events).unwrap_or(i64::MAX));
    }

    /// What a cycle read.
    pub(super) fn read(&self, counts: &Counts) {
        let Counts { learnt, held_out, unknown, hidden, repeated, .. } = *counts;
        for (sort, count) in SORTS.into_iter().zip([learnt, held_out, unknown, hidden, repeated]) {
            self.events.with_label_values(&[sort]).inc_by(count);
        }
    }

    /// How far the events have drifted.
    pub(super) fn drifted(&self, drift: &Drift, suggested: bool) {
        self.unknown_share.set(drift.unknown_share);
        if let Some(ratio) = drift.codebook_use {
            self.codebook_use.set(ratio);
        }
        self.retrain_suggested.set(i64::from(suggested));
    }

    /// What the gate compared and decided.
    pub(super) fn judged(&self, compared: &Compared, passed: bool) {
        for (model, quality) in MODELS.into_iter().zip([&compared.current, &compared.candidate]) {
            let (metrics, order) = (&quality.metrics, quality.slate_order.unwrap_or_default());
            for (name, value) in METRICS.into_iter().zip([metrics.ndcg_at_10, metrics.recall_at_10, order]) {
                self.quality.with_label_values(&[model, name]).set(value);
            }
        }
        self.gate.with_label_values(&[DECISIONS[usize::from(!passed)]]).inc();
    }

    /// The version that is the last published one, as the state says; `now` when that was just now.
    pub(super) fn published(&self, variant: &str, version: &str, now: Option<Duration>) {
        self.published.reset();
        self.published.with_label_values(&[variant, version]).set(1);
        if let Some(now) = now {
            self.published_at.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        }
    }
}
