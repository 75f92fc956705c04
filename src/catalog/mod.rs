//! The items of one bundle: who they are, which may be answered, and which tokens lead to them.
//!
//! An [`Index`] is immutable and swapped whole with its bundle. A request's filter narrows it to [`Candidates`].
//!
//! What their owner says of items while they serve is an [`Entry`] each, durable in a [`ChangeLog`]. A [`View`] is the
//! index with what changed since over it: attributes and eligibility stand in the overlay and are folded into a new index
//! from time to time; a new item, which needs tokens and postings, makes a new index at once.

mod attributes;
mod build;
mod candidates;
mod change_log;
mod code_order;
mod column;
mod config;
mod cooccurrence;
mod crowds;
mod dictionary;
mod entry;
mod index;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod live_tests;
mod meeting;
mod next_tokens;
mod overlay;
mod postings;
mod saved;
mod sections;
#[cfg(test)]
mod tests;
mod titles;

pub use build::{IndexBuilder, Row};
pub use candidates::Candidates;
pub use change_log::{ChangeLog, ChangeLogError, read_changes};
pub use config::CatalogueConfig;
pub use cooccurrence::Cooccurrence;
pub use entry::{Entries, Entry, Word};
pub use index::{CatalogError, CatalogItem, Index, IndexBytes};
pub use next_tokens::{Among, NextTokens};
pub use overlay::{AddedItem, View};
pub use postings::{List, Numbers, Postings};
pub use saved::SavedFor;
