//! What engines count, with what their queues count.

use prometheus::{Histogram, HistogramOpts, IntCounter, Registry};

use crate::batch::BatchMetrics;
use crate::domain::History;

/// Counters of all engines of a process. Registered once, cloned into every engine.
#[derive(Debug, Clone)]
pub struct EngineMetrics {
    pub(super) batch: BatchMetrics,
    pub(super) non_finite: IntCounter,
    padding: Histogram,
}

impl EngineMetrics {
    /// Registers the series, each at zero. Fails when they are registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let batch = BatchMetrics::new(registry)?;
        let non_finite =
            IntCounter::new("reg4rec_non_finite_scores_total", "Scores of a network that were not finite numbers")?;
        let padding = Histogram::with_opts(
            HistogramOpts::new(
                "reg4rec_batch_padding_ratio",
                "Share of a batch's history positions that only fill it up to its longest history",
            )
            .buckets(vec![0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        )?;
        registry.register(Box::new(non_finite.clone()))?;
        registry.register(Box::new(padding.clone()))?;
        Ok(Self { batch, non_finite, padding })
    }

    /// Observes the padding of one batch.
    pub(super) fn observe_padding<'a>(&self, histories: impl ExactSizeIterator<Item = &'a History>) {
        let rows = histories.len();
        let (events, longest) =
            histories.fold((0, 0), |(events, longest), one| (events + one.len(), longest.max(one.len())));
        let positions = rows * longest;
        if positions > 0 {
            self.padding.observe(1.0 - events as f64 / positions as f64);
        }
    }
}
