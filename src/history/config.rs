//! Settings of the histories.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rules::KindWeights;
use crate::domain::{Secret, Violation};

/// Where histories are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// In the process; gone when it ends, and read from the event log when it starts.
    #[default]
    Memory,
    /// In a file beside the process, which outlives it.
    Embedded,
    /// In Redis, where servers share them.
    Redis,
}

/// Section `[history]`; `src/config/defaults.toml` says what each setting is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryConfig {
    /// Where histories are kept.
    pub store: StoreKind,
    /// Newest events kept of each user, hides aside; 1 to 10,000. An event takes about 60 bytes and its item id.
    pub max_events: usize,
    /// Newest hides kept of each user; 1 to 10,000.
    pub max_hides: usize,
    /// Users kept in memory; those not seen for long make room. 1 to 1,000,000,000.
    pub max_users: usize,
    /// The embedded store's file.
    pub path: PathBuf,
    /// How long a request waits for the store, in milliseconds; 1 to 60,000.
    pub timeout_ms: u64,
    /// After three failures in a row no request asks the store for so long, in milliseconds; 1 to 60,000.
    pub retry_ms: u64,
    /// Events of one item and kind that lie so close together count once, in seconds; 0: all count. At most 31,536,000.
    pub repeats_within_s: u64,
    /// Which events are read when there are more than the network reads.
    pub kind_weights: KindWeights,
    /// Section `[history.redis]`.
    pub redis: RedisConfig,
}

/// Section `[history.redis]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// `redis://[USER:PASSWORD@]HOST:PORT[/DB]`, or `rediss://` for TLS; of a cluster some of its nodes, with commas between
    /// them.
    pub url: Secret,
    /// PEM file of the authorities that sign the server's certificate. Empty: those of the system.
    pub ca: PathBuf,
    /// PEM file of the certificate that is shown to the server. Empty: none.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// Whether it is a cluster.
    pub cluster: bool,
    /// Connections; 1 to 256. Each carries many commands at once.
    pub pool: usize,
    /// What every key begins with; 1 to 64 of A-Z a-z 0-9 - _ .
    pub prefix: String,
    /// A user of whom no event came for so many days is dropped; 0: never. At most 36,500.
    pub keep_days: u32,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            store: StoreKind::Memory,
            max_events: 200,
            max_hides: 1000,
            max_users: 1_000_000,
            path: PathBuf::new(),
            timeout_ms: 50,
            retry_ms: 500,
            repeats_within_s: 0,
            kind_weights: KindWeights::default(),
            redis: RedisConfig::default(),
        }
    }
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            ca: PathBuf::new(),
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            cluster: false,
            pool: 4,
            prefix: "reg4rec".to_owned(),
            keep_days: 0,
        }
    }
}

impl RedisConfig {
    /// Whether every address is one for TLS.
    pub fn is_tls(&self) -> bool {
        self.url.reveal().split(',').all(|url| url.trim().starts_with("rediss://"))
    }

    fn tls_problems(&self) -> Vec<Violation> {
        let files = [("redis.ca", &self.ca), ("redis.certificate", &self.certificate), ("redis.key", &self.key)];
        let given = |path: &PathBuf| !path.as_os_str().is_empty();
        let mut wrong = Vec::new();
        if !self.url.is_empty() && !self.is_tls() {
            let set = files.iter().filter(|(_, path)| given(path));
            wrong.extend(set.map(|(field, path)| {
                Violation::new(*field, format!("{path:?}: expected none with an address that is not rediss://"))
            }));
        }
        if given(&self.certificate) != given(&self.key) {
            wrong.push(Violation::new("redis.key", "expected a certificate and its key, or neither"));
        }
        wrong
    }
}

impl HistoryConfig {
    /// Names every field that is out of range.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        let mut within = |field: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                wrong.push(Violation::new(field, format!("{value}: expected {least} to {most}")));
            }
        };
        within("max_events", self.max_events as u64, 1, 10_000);
        within("max_hides", self.max_hides as u64, 1, 10_000);
        within("max_users", self.max_users as u64, 1, 1_000_000_000);
        within("timeout_ms", self.timeout_ms, 1, 60_000);
        within("retry_ms", self.retry_ms, 1, 60_000);
        within("repeats_within_s", self.repeats_within_s, 0, 31_536_000);
        within("redis.pool", self.redis.pool as u64, 1, 256);
        within("redis.keep_days", u64::from(self.redis.keep_days), 0, 36_500);
        wrong.extend(self.kind_weights.problems());
        let prefix = &self.redis.prefix;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if prefix.is_empty() || prefix.len() > 64 || !prefix.chars().all(legal) {
            wrong.push(Violation::new("redis.prefix", format!("{prefix:?}: expected 1 to 64 of A-Z a-z 0-9 - _ .")));
        }
        if self.store == StoreKind::Embedded && self.path.as_os_str().is_empty() {
            wrong.push(Violation::new("path", "empty: expected the file of the embedded store"));
        }
        if self.store == StoreKind::Redis && self.redis.url.is_empty() {
            wrong.push(Violation::new("redis.url", "empty: expected redis://HOST:PORT"));
        }
        wrong.extend(self.redis.tls_problems());
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// How long a request waits for the store.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// How long nobody asks a store that fails.
    pub fn retry(&self) -> Duration {
        Duration::from_millis(self.retry_ms)
    }
}
