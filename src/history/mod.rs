//! The recent events of each user, bounded in users and in events per user.

mod config;
mod memory;
mod metrics;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;

pub use config::HistoryConfig;
pub use memory::HistoryStore;
