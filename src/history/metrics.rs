//! What the histories count.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// What the store in memory holds.
#[derive(Debug)]
pub(super) struct MemoryMetrics {
    pub(super) users: IntGauge,
    pub(super) evicted: IntCounter,
}

impl MemoryMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let users = IntGauge::new("reg4rec_history_users", "Users whose recent events are kept in memory")?;
        let evicted = IntCounter::new("reg4rec_history_evicted_total", "Users dropped to make room for others")?;
        registry.register(Box::new(users.clone()))?;
        registry.register(Box::new(evicted.clone()))?;
        Ok(Self { users, evicted })
    }
}

/// How a look-up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookupResult {
    /// With events.
    Hit,
    /// The store knows nothing of the user.
    Miss,
    /// The store failed.
    Error,
    /// The store took too long.
    Timeout,
    /// The store was not asked, as it failed a moment ago.
    Skipped,
}

impl LookupResult {
    const ALL: [Self; 5] = [Self::Hit, Self::Miss, Self::Error, Self::Timeout, Self::Skipped];

    fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Skipped => "skipped",
        }
    }
}

/// How look-ups went, whatever the store.
#[derive(Debug)]
pub(super) struct LookupMetrics {
    lookups: IntCounterVec,
    seconds: Histogram,
}

impl LookupMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let lookups = IntCounterVec::new(
            Opts::new("reg4rec_history_lookups_total", "Look-ups of a user's recent events"),
            &["result"],
        )?;
        let seconds = Histogram::with_opts(
            HistogramOpts::new("reg4rec_history_lookup_seconds", "Seconds that a look-up in the history store took")
                .buckets(vec![0.000_01, 0.000_1, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0]),
        )?;
        LookupResult::ALL.iter().for_each(|result| drop(lookups.with_label_values(&[result.name()])));
        registry.register(Box::new(lookups.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { lookups, seconds })
    }

    /// Counts one look-up; `took` is none where the store was not asked.
    pub(super) fn count(&self, result: LookupResult, took: Option<Duration>) {
        self.lookups.with_label_values(&[result.name()]).inc();
        took.iter().for_each(|took| self.seconds.observe(took.as_secs_f64()));
    }
}
