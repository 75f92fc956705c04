//! Settings of the event log.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::Violation;

/// When an event counts as recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sync {
    /// Once the disk says that it holds it: it survives a loss of power.
    Batch,
    /// Once the operating system has it: it survives the end of the process, not that of the machine.
    Never,
}

/// Settings of the event log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsConfig {
    /// The log's directory; empty: no events are recorded.
    pub path: PathBuf,
    /// When an event counts as recorded.
    pub sync: Sync,
    /// A segment that has grown to so many bytes is closed; 4096 to 2^40.
    pub segment_bytes: u64,
    /// Most requests that wait for the writer; 1 to 1,000,000.
    pub max_queue: usize,
    /// Most exposures that wait for the writer; more are dropped. 1 to 1,000,000.
    pub max_exposure_queue: usize,
    /// Newest events whose ids are known, so that a second delivery is noticed; 24 bytes each. 1 to 1,000,000,000.
    pub known_ids: usize,
    /// Whether a closed segment is also written as a Parquet file beside it.
    pub parquet: bool,
    /// Closed segments are deleted when their newest event arrived so many days ago; 0: never. At most 36,500.
    pub keep_days: u32,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            sync: Sync::Batch,
            segment_bytes: 64 << 20,
            max_queue: 4096,
            max_exposure_queue: 4096,
            known_ids: 1_000_000,
            parquet: false,
            keep_days: 0,
        }
    }
}

impl EventsConfig {
    /// Names every field that is out of range.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        let mut within = |field: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                wrong.push(Violation::new(field, format!("{value}: expected {least} to {most}")));
            }
        };
        within("segment_bytes", self.segment_bytes, 4096, 1 << 40);
        within("max_queue", self.max_queue as u64, 1, 1_000_000);
        within("max_exposure_queue", self.max_exposure_queue as u64, 1, 1_000_000);
        within("known_ids", self.known_ids as u64, 1, 1_000_000_000);
        within("keep_days", u64::from(self.keep_days), 0, 36_500);
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}
