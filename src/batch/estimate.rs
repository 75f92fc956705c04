//! How long a batch takes, as a moving average.

use std::time::Duration;

/// The share of the newest batch in the average: it remembers about the last ten.
const NEWEST: f64 = 0.2;

/// Exponential moving averages of service time.
///
/// Full batches are kept apart, because whoever is asked about has at least one batch before it, and that one will be
/// full. Until a full batch has run the average of all batches stands in: too low, so it refuses too little, never too
/// much.
#[derive(Debug, Default)]
pub(super) struct ServiceEstimate {
    any: Option<f64>,
    full: Option<f64>,
}

impl ServiceEstimate {
    /// Learns from one batch that has run.
    pub(super) fn record(&mut self, took: Duration, full: bool) {
        mix(&mut self.any, took);
        if full {
            mix(&mut self.full, took);
        }
    }

    /// How long the batch that runs now takes in all; none before the first batch has ended.
    pub(super) fn running(&self) -> Option<Duration> {
        self.any.map(Duration::from_secs_f64)
    }

    /// How long a full batch takes; none before the first batch has ended.
    pub(super) fn full(&self) -> Option<Duration> {
        self.full.or(self.any).map(Duration::from_secs_f64)
    }
}

fn mix(average: &mut Option<f64>, took: Duration) {
    let newest = took.as_secs_f64();
    *average = Some(average.map_or(newest, |old| old + NEWEST * (newest - old)));
}
