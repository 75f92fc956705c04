//! Settings of the two ports.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

/// Section `[server]` of the settings; `src/config/defaults.toml` says what each is for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Where gRPC listens.
    pub listen: SocketAddr,
    /// Where the admin page listens.
    pub admin: SocketAddr,
    /// How much of a caller's deadline is kept for the way back, in milliseconds.
    pub deadline_margin_ms: u64,
    /// Calls worked on at once; more are refused.
    pub max_inflight: usize,
    /// Largest request, in bytes.
    pub max_message_bytes: usize,
    /// Calls at once on one connection.
    pub max_streams_per_connection: u32,
    /// How often an idle connection is probed, in milliseconds.
    pub keepalive_interval_ms: u64,
    /// How long a probe may go unanswered, in milliseconds.
    pub keepalive_timeout_ms: u64,
    /// How long to go on answering after saying "not ready", in milliseconds.
    pub drain_lag_ms: u64,
    /// How long calls may then take to end, in milliseconds.
    pub drain_limit_ms: u64,
}

impl ServerConfig {
    /// Says of each value that is out of range: key, value, what was expected.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut within = |key: &str, value: u64, low: u64, high: u64| {
            if !(low..=high).contains(&value) {
                problems.push(format!("server.{key} is {value}, expected {low} to {high}"));
            }
        };
        within("deadline_margin_ms", self.deadline_margin_ms, 2, 1_000);
        within("max_inflight", self.max_inflight as u64, 1, 1_000_000);
        within("max_message_bytes", self.max_message_bytes as u64, 1 << 10, 1 << 30);
        within("max_streams_per_connection", self.max_streams_per_connection.into(), 1, 1_000_000);
        within("keepalive_interval_ms", self.keepalive_interval_ms, 100, 3_600_000);
        within("keepalive_timeout_ms", self.keepalive_timeout_ms, 100, 3_600_000);
        within("drain_lag_ms", self.drain_lag_ms, 0, 600_000);
        within("drain_limit_ms", self.drain_limit_ms, 0, 3_600_000);
        problems
    }

    pub(super) fn deadline_margin(&self) -> Duration {
        Duration::from_millis(self.deadline_margin_ms)
    }

    pub(super) fn drain_lag(&self) -> Duration {
        Duration::from_millis(self.drain_lag_ms)
    }

    pub(super) fn drain_limit(&self) -> Duration {
        Duration::from_millis(self.drain_limit_ms)
    }
}
