//! The items of one bundle: who they are, which may be answered, and which tokens lead to them.
//!
//! An [`Index`] is immutable and swapped whole with its bundle. A request's filter narrows it to [`Candidates`].

mod attributes;
mod candidates;
mod index;
mod postings;
#[cfg(test)]
mod tests;

pub use candidates::Candidates;
pub use index::{CatalogError, CatalogItem, Index};
pub use postings::{Cooccurrence, Postings};
