//! Settings of one lane.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::Violation;

/// How many jobs run together and how many may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Most jobs in one batch; 1 to 4096.
    pub max_batch: usize,
    /// Most jobs that wait; `max_batch` to 1,000,000.
    pub max_queue: usize,
    /// How long an idle worker waits for company after the first job came, in microseconds; 0 to 2000. 0 waits never.
    pub linger_us: u64,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { max_batch: 64, max_queue: 4096, linger_us: 0 }
    }
}

impl BatchConfig {
    /// Names every field that is out of range.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        if !(1..=4096).contains(&self.max_batch) {
            wrong.push(Violation::new("max_batch", format!("{}: expected 1 to 4096", self.max_batch)));
        }
        if self.max_queue < self.max_batch || self.max_queue > 1_000_000 {
            let expected = format!("{}: expected max_batch ({}) to 1000000", self.max_queue, self.max_batch);
            wrong.push(Violation::new("max_queue", expected));
        }
        if self.linger_us > 2000 {
            wrong.push(Violation::new("linger_us", format!("{}: expected 0 to 2000", self.linger_us)));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// The linger as a duration.
    pub fn linger(&self) -> Duration {
        Duration::from_micros(self.linger_us)
    }
}
