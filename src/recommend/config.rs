//! Settings of the online sentence.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cache::CacheConfig;
use crate::domain::Violation;

/// What holds for every request, whatever its variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecommendConfig {
    /// Newest events of a history that the network reads; 1 to 10,000. A variant may read fewer.
    pub max_history: usize,
    /// The longest that a request may take, in milliseconds, whatever its own deadline says; 1 to 600,000.
    pub max_deadline_ms: u64,
    /// The beam of requests from half of what would have them refused, unless they chose one; 0: theirs, 1 to 1000.
    pub narrow_beam: usize,
    /// Whether requests are refused before they are read while every engine would refuse them. Those that need none, of
    /// users without history, are refused with them.
    pub refuse_unread: bool,
    /// Answers that are given again.
    pub cache: CacheConfig,
}

impl Default for RecommendConfig {
    fn default() -> Self {
        Self {
            max_history: 50,
            max_deadline_ms: 5000,
            narrow_beam: 8,
            refuse_unread: true,
            cache: CacheConfig::default(),
        }
    }
}

impl RecommendConfig {
    /// Names every field that is out of range.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        if !(1..=10_000).contains(&self.max_history) {
            wrong.push(Violation::new("max_history", format!("{}: expected 1 to 10000", self.max_history)));
        }
        if !(1..=600_000).contains(&self.max_deadline_ms) {
            wrong.push(Violation::new("max_deadline_ms", format!("{}: expected 1 to 600000", self.max_deadline_ms)));
        }
        if self.narrow_beam > 1000 {
            wrong.push(Violation::new("narrow_beam", format!("{}: expected 0 to 1000", self.narrow_beam)));
        }
        wrong.extend(self.cache.problems());
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// The longest that a request may take.
    pub fn max_deadline(&self) -> Duration {
        Duration::from_millis(self.max_deadline_ms)
    }
}
