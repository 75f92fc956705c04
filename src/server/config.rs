//! Settings of the two ports.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::access::KeyConfig;
use super::tls::TlsConfig;

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
    /// Connections at once on each port; more are closed.
    pub max_connections: usize,
    /// How long a new connection may take to end its TLS handshake and begin to speak HTTP, in milliseconds.
    pub handshake_timeout_ms: u64,
    /// How often an idle connection is probed, in milliseconds.
    pub keepalive_interval_ms: u64,
    /// How long a probe may go unanswered, in milliseconds.
    pub keepalive_timeout_ms: u64,
    /// How long to go on answering after saying "not ready", in milliseconds.
    pub drain_lag_ms: u64,
    /// How long calls may then take to end, in milliseconds.
    pub drain_limit_ms: u64,
    /// Origins whose web pages may ask by gRPC-web; `*` alone: any.
    pub web_origins: Vec<String>,
    /// Encryption, and certificates of callers.
    pub tls: TlsConfig,
    /// Those who may call; none: everybody.
    pub key: Vec<KeyConfig>,
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
        within("max_connections", self.max_connections as u64, 1, 1_000_000);
        within("handshake_timeout_ms", self.handshake_timeout_ms, 100, 600_000);
        within("keepalive_interval_ms", self.keepalive_interval_ms, 100, 3_600_000);
        within("keepalive_timeout_ms", self.keepalive_timeout_ms, 100, 3_600_000);
        within("drain_lag_ms", self.drain_lag_ms, 0, 600_000);
        within("drain_limit_ms", self.drain_limit_ms, 0, 3_600_000);
        for (at, origin) in self.web_origins.iter().enumerate() {
            let any = origin == "*" && self.web_origins.len() == 1;
            let named = origin.contains("://") && origin.parse::<http::HeaderValue>().is_ok();
            if !any && !named {
                let expected = "expected an origin as https://shop.example, or * alone";
                problems.push(format!("server.web_origins[{at}] is {origin:?}, {expected}"));
            }
        }
        problems.extend(self.tls.problems());
        problems.extend(KeyConfig::problems(&self.key));
        problems
    }

    /// What whoever starts the server should know: that strangers may reach it, and call it.
    pub fn notice(&self) -> Option<String> {
        let open = [("server.listen", self.listen), ("server.admin", self.admin)];
        let reached: Vec<&str> =
            open.iter().filter(|(_, address)| !address.ip().is_loopback()).map(|(name, _)| *name).collect();
        if reached.is_empty() || !self.key.is_empty() {
            return None;
        }
        let who = if self.tls.is_mutual() && self.tls.admin { "who has a certificate" } else { "who reaches it" };
        Some(format!(
            "{} can be reached from other machines and there are no keys ([[server.key]]): everybody {who} may call it",
            reached.join(" and ")
        ))
    }

    pub(super) fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms)
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
