//! Settings of the history store.

use serde::{Deserialize, Serialize};

use crate::domain::Violation;

/// The bounds of the store. An event takes about 60 bytes and its item id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryConfig {
    /// Newest events kept of each user; 1 to 10,000.
    pub max_events: usize,
    /// Users kept; those not seen for long make room. 1 to 1,000,000,000.
    pub max_users: usize,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self { max_events: 200, max_users: 1_000_000 }
    }
}

impl HistoryConfig {
    /// Names every field that is out of range.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        if !(1..=10_000).contains(&self.max_events) {
            wrong.push(Violation::new("max_events", format!("{}: expected 1 to 10000", self.max_events)));
        }
        if !(1..=1_000_000_000).contains(&self.max_users) {
            wrong.push(Violation::new("max_users", format!("{}: expected 1 to 1000000000", self.max_users)));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}
