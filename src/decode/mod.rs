//! From a user's scores to items: CRSS beam search, CORP pruning, early finish, and the exact scorer.
//!
//! Pure: no tensors, no clock, no async. The network stands behind [`PathModel`].

mod scoring;

pub use scoring::{Advance, ItemQuery, PathModel, PathState, Residuals};
