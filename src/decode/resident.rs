//! What a search asks of a network that holds the catalogue beside its weights and goes through candidates itself, as one on
//! a GPU does: then a step brings back the best children of each path, and neither scores nor candidates.

use std::ops::Range;

use crate::domain::ItemNumber;

use super::scoring::Advance;

/// What a request of the last `encode` may be answered.
#[derive(Debug, Clone)]
pub struct Opening<'a> {
    /// Its candidates: one bit an item, 64 to a word, lowest number first. Items past the last word are none.
    pub eligible: &'a [u64],
    /// What is added to s(i), `[items]`; none: nothing.
    pub bias: Option<Vec<f32>>,
    /// The candidates are those alone whose s(i) is among the greatest so many, all that are level with the last included;
    /// none: all are.
    pub shortlist: Option<usize>,
}

/// A path to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// What it extends, and by which token.
    pub path: Advance,
    /// How many candidates it has, where they are to be told.
    pub listed: Option<usize>,
}

/// How much a step wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Children of each path, the heaviest; no more than a codebook has entries are told.
    pub children: usize,
    /// Whether the path's category belief is compared with that of the path before.
    pub divergences: bool,
}

/// A token that some of a path's candidates hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heavy {
    /// Its entry in the codebook that is expanded.
    pub entry: u16,
    /// The weights of its items, summed: above zero.
    pub weight: f32,
    /// How many they are.
    pub held: usize,
    /// The lowest of their numbers.
    pub first: ItemNumber,
}

/// What is told of a path. An item weighs exp(s_t(i) - best).
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The greatest s_t of its candidates.
    pub best: f32,
    /// The sum of all their weights.
    pub sum: f32,
    /// The unused codebook whose heaviest token is heaviest; ties: the lowest. Where all are used, the first.
    pub codebook: u8,
    /// Its tokens, within [`Step::children`]: heaviest first, those that weigh alike by number. None where all are used.
    pub children: Range<usize>,
    /// Its candidates, within [`Step::listed`]: lowest number first. Empty unless asked for.
    pub listed: Range<usize>,
    /// JS to the belief of the path before, in nats, 0 to ln 2; zero unless asked for, and for `<BOS>`.
    pub divergence: f32,
    /// Scores that were not finite numbers, and were read as the worst.
    pub non_finite: u32,
}

/// What is told of all paths of a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// Path by path, as they were asked.
    pub paths: Vec<Told>,
    /// The tokens of all paths.
    pub children: Vec<Heavy>,
    /// The candidates of all paths, and their s_t.
    pub listed: Vec<(ItemNumber, f32)>,
}

/// A network that goes through the candidates of its paths itself. State lives between calls as in
/// [`PathModel`](super::PathModel): `encode`, then `open`, then a `read` of the `<BOS>` rows, then one of each step.
pub trait ResidentModel {
    /// What can go wrong inside.
    type Error;

    /// Notes for every request of the last `encode` what it may be answered.
    fn open(&mut self, requests: &[Opening<'_>]) -> Result<(), Self::Error>;

    /// Reads one token more of each path (each has a candidate), and what it says of the path's candidates. Paths come in the
    /// order of their requests. The first call reads `<BOS>` for every request, none of whose candidates are listed.
    fn read(&mut self, asks: &[Ask], depth: Depth) -> Result<Step, Self::Error>;
}
