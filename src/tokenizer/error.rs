//! Why features, fitting or a saved tokenizer were refused.

use std::path::PathBuf;

use thiserror::Error;

use crate::domain::Violation;

/// Why the tokenizer refused its input.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// Settings are out of range; every one of them is named.
    #[error("tokenizer settings: {}", .0.iter().map(|v| format!("{}: {}", v.field, v.description)).collect::<Vec<_>>().join("; "))]
    Settings(Vec<Violation>),
    /// One field of one item is unusable.
    #[error("item {item}, {field}: {reason}")]
    Item {
        /// The item's position in the list that was passed.
        item: usize,
        /// The field.
        field: &'static str,
        /// What it held and what was expected.
        reason: String,
    },
    /// One event of one training sequence is unusable.
    #[error("sequence {sequence}, event {event}: {reason}")]
    Sequence {
        /// The sequence's position in the list that was passed.
        sequence: usize,
        /// The event's position in the sequence.
        event: usize,
        /// What it held and what was expected.
        reason: String,
    },
    /// There is nothing to learn from.
    #[error("no features: {0}")]
    NoFeatures(String),
    /// The feature rows do not fit the tokenizer.
    #[error("feature rows: {0}")]
    Rows(String),
    /// Fitting went out of the range of numbers.
    #[error("the fit diverged in epoch {epoch}: loss {loss}; lower the learning rate")]
    Diverged {
        /// The epoch, from 1.
        epoch: usize,
        /// The loss found.
        loss: f32,
    },
    /// More items than the codes can tell apart.
    #[error("{items} items do not fit {capacity} places: raise codebooks, entries or max_collisions")]
    Capacity {
        /// Items to place.
        items: usize,
        /// Codes times max_collisions.
        capacity: u128,
    },
    /// A file cannot be read or written.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The bytes are not a saved tokenizer.
    #[error("saved tokenizer: {0}")]
    Format(String),
    /// One saved tensor is missing or wrong.
    #[error("saved tokenizer, tensor {name}: {reason}")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// What it held and what was expected.
        reason: String,
    },
}
