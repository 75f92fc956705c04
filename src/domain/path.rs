//! The tokens a search chose for an item, in the order it chose them, and what it believed on the way.

use super::Token;

/// How sure the model was of one category.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Belief {
    /// The category, by its number in the bundle.
    pub category: u32,
    /// Probability in `[0, 1]`.
    pub probability: f32,
}

/// How much the decoder looked at one event of the history.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attended {
    /// The event's place in the history that was decoded, oldest first.
    pub event: usize,
    /// In `[0, 1]`: its share of the decoder's cross-attention, averaged over blocks, heads and the positions of the path.
    pub weight: f32,
}

/// One decoding step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The chosen token.
    pub token: Token,
    /// p(token | history, path so far), in `(0, 1]`.
    pub probability: f32,
    /// The likeliest categories after this token, best first.
    pub beliefs: Vec<Belief>,
    /// Jensen-Shannon divergence, in nats, of the category belief to the step before; none at the first step.
    pub divergence: Option<f32>,
    /// Siblings that CORP pruned when this step was chosen.
    pub pruned_siblings: u32,
    /// True when CORP would have pruned this step but nothing better was left.
    pub inconsistent: bool,
}

/// The steps of one answer. It is complete when it has one step for every codebook; a search that finishes early
/// stops sooner, once few items are left.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Path {
    /// In the order chosen.
    pub steps: Vec<Step>,
    /// p(item | history, steps): what the item itself took of the path's probability, 1 when it was the only one left.
    pub finish: f32,
    /// The events that the decoder looked at most while it wrote the path, most first. None where the network does not tell.
    pub attended: Vec<Attended>,
}
