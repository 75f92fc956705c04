//! The recent events of each user, bounded in events per user: in memory, in a file, or in Redis, behind one trait.
//!
//! The event log says what happened; a [`HistoryStore`] is what was made of it. A store that outlives the process remembers
//! how far it has followed each log ([`HistoryStore::place`]), and takes no event in twice ([`Mark`]), so that after any
//! failure the log can be read again from there. [`Histories`] is what requests ask: it waits no longer than it may, and
//! says when it went without an answer.

mod bounds;
mod config;
mod embedded;
mod encoding;
mod histories;
mod memory;
mod metrics;
mod redis;
mod rules;
mod store;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod store_tests;
mod table;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;

pub use config::{HistoryConfig, RedisConfig, StoreKind};
pub use embedded::EmbeddedStore;
pub use histories::{Histories, HistoriesError, Lookup};
pub use memory::MemoryStore;
pub use redis::RedisStore;
pub use rules::KindWeights;
pub use store::{HistoryStore, Mark, Noted, Place, StoreError};
pub use table::{TableError, load_table};
