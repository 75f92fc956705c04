//! Settings of the event log.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::{Secret, Violation};

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
    /// Closed segments are deleted when their newest event arrived so many days ago; 0: never. At most 36,500. A segment is
    /// then also closed once its oldest event is a quarter of that old, a day at most.
    pub keep_days: u32,
    /// How often an idle log is looked after, in milliseconds; 10 to 3,600,000.
    pub tend_ms: u64,
    /// The stream that servers share.
    pub nats: NatsConfig,
}

/// Section `[events.nats]`; `src/config/defaults.toml` says what each setting is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsConfig {
    /// `nats://[USER:PASSWORD@]HOST:PORT`, several with commas between them. Empty: no stream.
    pub url: Secret,
    /// The stream's name; 1 to 64 of A-Z a-z 0-9 - _.
    pub stream: String,
    /// What the subjects of its messages begin with; 1 to 128 of A-Z a-z 0-9 - _ . and no empty part.
    pub subject: String,
    /// How long an event may take to be acknowledged, in milliseconds; 1 to 60,000.
    pub timeout_ms: u64,
    /// Where the stream is not there yet: how many servers of a NATS cluster hold each message; 1 to 5.
    pub replicas: usize,
    /// Where the stream is not there yet: how many days it keeps a message; 0: for ever. At most 36,500.
    pub keep_days: u32,
    /// Where the stream is not there yet: for how long it knows the ids of its messages, in seconds; 1 to 86,400.
    pub duplicates_s: u64,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            stream: "reg4rec-events".to_owned(),
            subject: "reg4rec.events".to_owned(),
            timeout_ms: 2000,
            replicas: 1,
            keep_days: 0,
            duplicates_s: 600,
        }
    }
}

impl NatsConfig {
    /// Whether events go through a stream.
    pub fn is_set(&self) -> bool {
        !self.url.is_empty()
    }

    fn name_problems(&self) -> Vec<Violation> {
        let mut wrong = Vec::new();
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let name = |text: &str, most: usize| (1..=most).contains(&text.len()) && text.chars().all(legal);
        if !name(&self.stream, 64) {
            let description = format!("{:?}: expected 1 to 64 of A-Z a-z 0-9 - _", self.stream);
            wrong.push(Violation::new("nats.stream", description));
        }
        if self.subject.len() > 128 || !self.subject.split('.').all(|part| name(part, 128)) {
            let description = format!("{:?}: expected names of A-Z a-z 0-9 - _ with a . between them", self.subject);
            wrong.push(Violation::new("nats.subject", description));
        }
        wrong
    }
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
            tend_ms: 60_000,
            nats: NatsConfig::default(),
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
        within("tend_ms", self.tend_ms, 10, 3_600_000);
        within("nats.timeout_ms", self.nats.timeout_ms, 1, 60_000);
        within("nats.replicas", self.nats.replicas as u64, 1, 5);
        within("nats.keep_days", u64::from(self.nats.keep_days), 0, 36_500);
        within("nats.duplicates_s", self.nats.duplicates_s, 1, 86_400);
        wrong.extend(self.nats.name_problems());
        if self.nats.is_set() && self.path.as_os_str().is_empty() {
            wrong.push(Violation::new("path", "empty beside nats.url: expected the directory of this server's log"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}
