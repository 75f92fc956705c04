//! The items of one bundle: who they are, which may be answered, and which tokens lead to them.
//!
//! An [`Index`] is immutable and swapped whole with its bundle. A request's filter narrows it to [`Candidates`].
//!
//! What their owner says of items while they serve is an [`Entry`] each, durable in a [`ChangeLog`]. A [`View`] is the
//! index with what changed since over it: attributes and eligibility stand in the overlay and are folded into a new index
//! from time to time; a new item, which needs tokens and postings, makes a new index at once.

mod attributes;
mod candidates;
mod change_log;
mod config;
mod entry;
mod index;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod live_tests;
mod overlay;
mod postings;
#[cfg(test)]
mod tests;

pub use candidates::Candidates;
pub use change_log::{ChangeLog, ChangeLogError};
pub use config::CatalogueConfig;
pub use entry::{Entries, Entry, Word};
pub use index::{CatalogError, CatalogItem, Index};
pub use overlay::{AddedItem, View};
pub use postings::{Cooccurrence, Postings};
