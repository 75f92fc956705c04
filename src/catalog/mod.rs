//! The items of one bundle: who they are, which may be answered, and which tokens lead to them.
//!
//! An [`Index`] is immutable and swapped whole with its bundle. A request's filter narrows it to [`Candidates`].

mod attributes;
mod build;
mod candidates;
mod code_columns;
mod column;
mod cooccurrence;
mod dictionary;
mod index;
mod next_tokens;
mod postings;
mod saved;
mod sections;
#[cfg(test)]
mod tests;
mod titles;

pub use build::{IndexBuilder, Row};
pub use candidates::Candidates;
pub use code_columns::CodeColumns;
pub use cooccurrence::Cooccurrence;
pub use index::{CatalogError, CatalogItem, Index, IndexBytes};
pub use next_tokens::NextTokens;
pub use postings::{List, Numbers, Postings};
pub use saved::SavedFor;
