//! What the history store counts.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

#[derive(Debug)]
pub(super) struct HistoryMetrics {
    pub(super) users: IntGauge,
    pub(super) evicted: IntCounter,
    pub(super) hits: IntCounter,
    pub(super) misses: IntCounter,
}

impl HistoryMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let users = IntGauge::new("reg4rec_history_users", "Users whose recent events are kept")?;
        let evicted = IntCounter::new("reg4rec_history_evicted_total", "Users dropped to make room for others")?;
        let lookups = IntCounterVec::new(
            Opts::new("reg4rec_history_lookups_total", "Look-ups of a user's recent events"),
            &["result"],
        )?;
        registry.register(Box::new(users.clone()))?;
        registry.register(Box::new(evicted.clone()))?;
        registry.register(Box::new(lookups.clone()))?;
        let (hits, misses) = (lookups.with_label_values(&["hit"]), lookups.with_label_values(&["miss"]));
        Ok(Self { users, evicted, hits, misses })
    }
}
