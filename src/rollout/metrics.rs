//! What reloads count. Every series exists from the start, at zero.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::refusal::ReloadStage;

/// Counters of all reloads of a process.
#[derive(Debug, Clone)]
pub(super) struct ReloadMetrics {
    total: IntCounterVec,
    seconds: HistogramVec,
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
        total.with_label_values(&[TAKEN, ReloadStage::Swap.name()]);
        for stage in ReloadStage::ALL {
            total.with_label_values(&[REFUSED, stage.name()]);
            seconds.with_label_values(&[stage.name()]);
        }
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { total, seconds })
    }

    pub(super) fn taken(&self) {
        self.total.with_label_values(&[TAKEN, ReloadStage::Swap.name()]).inc();
    }

    pub(super) fn refused(&self, stage: ReloadStage) {
        self.total.with_label_values(&[REFUSED, stage.name()]).inc();
    }

    pub(super) fn took(&self, stage: ReloadStage, time: Duration) {
        self.seconds.with_label_values(&[stage.name()]).observe(time.as_secs_f64());
    }
}
