//! What reloads count. Every series exists from the start, at zero.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::refusal::ReloadStage;

/// Counters of all reloads of a process.
#[derive(Debug, Clone)]
pub(super) struct ReloadMetrics {
    total: IntCounterVec,
    seconds: HistogramVec,
    registry_answers: IntGauge,
    registry_errors: IntCounter,
}

const TAKEN: &str = "taken";
const REFUSED: &str = "refused";

impl ReloadMetrics {
    /// Registers the series. Fails when they are registered already.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let total = IntCounterVec::new(
            Opts::new("reg4rec_reload_total", "Bundles taken, or refused at a stage"),
            &["result", "stage"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("reg4rec_reload_duration_seconds", "Time that a bundle spent in each stage")
                .buckets(vec![0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]),
            &["stage"],
        )?;
        let registry_answers = IntGauge::new(
            "reg4rec_registry_reachable",
            "1 unless the last call to the registry's object store went unanswered; a directory always answers",
        )?;
        registry_answers.set(1);
        let registry_errors =
            IntCounter::new("reg4rec_registry_errors_total", "Calls to the registry's object store that failed")?;
        total.with_label_values(&[TAKEN, ReloadStage::Swap.name()]);
        for stage in ReloadStage::ALL {
            total.with_label_values(&[REFUSED, stage.name()]);
            seconds.with_label_values(&[stage.name()]);
        }
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(registry_answers.clone()))?;
        registry.register(Box::new(registry_errors.clone()))?;
        Ok(Self { total, seconds, registry_answers, registry_errors })
    }

    pub(super) fn taken(&self) {
        self.total.with_label_values(&[TAKEN, ReloadStage::Swap.name()]).inc();
    }

    pub(super) fn refused(&self, stage: ReloadStage) {
        self.total.with_label_values(&[REFUSED, stage.name()]).inc();
    }

    pub(super) fn registry_answers(&self) {
        self.registry_answers.set(1);
    }

    pub(super) fn registry_away(&self) {
        self.registry_answers.set(0);
        self.registry_errors.inc();
    }

    pub(super) fn took(&self, stage: ReloadStage, time: Duration) {
        self.seconds.with_label_values(&[stage.name()]).observe(time.as_secs_f64());
    }
}
