//! TLS on both ports: the identity that is shown to callers, the certificates that are asked of them, and both anew when
//! their files change.

mod accept;
mod beginning;
mod config;
mod connection;
mod identity;
mod metrics;

pub use config::TlsConfig;
pub use identity::TlsError;

pub(super) use accept::accept;
pub(super) use identity::Identity;
pub(super) use metrics::TlsMetrics;
