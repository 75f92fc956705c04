//! The network on a device that holds the catalogue, too: codes, the holders of every token, and what each request may be
//! answered stay there, and a step brings back no more than the best children of its paths, in one read.
//!
//! [`DeviceScorer`] lays a step out and reads what comes back; [`Kernels`] does the work between. On GPUs that is kernels of
//! our own beside burn's (`kernels`, `launch.rs`), in tests plain loops (`plain.rs`).

#[cfg(feature = "gpu")]
mod kernels;
#[cfg(feature = "gpu")]
mod launch;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod plain;
mod scorer;
mod tables;
mod told;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

pub use scorer::DeviceScorer;
pub use tables::Tables;

/// The score of an item that is no candidate: below every score.
const OUT: f32 = -1e30;
/// What is above it is a score.
const LEAST: f32 = -5e29;
/// No score is further from zero; what is, or is no number, counts as the worst.
const LIMIT: f32 = 1e9;
/// No weight is less, however far its item is behind the best.
const LIGHTEST: f32 = 1e-38;
/// In the place of a token or a number: there is none.
const NONE: u32 = u32::MAX;
/// Numbers of a path before its tokens.
const ABOUT: usize = 4;
/// Numbers of a told path before its children, and of each child.
const HEAD: usize = 4;
const CHILD: usize = 4;

/// `<BOS>` of every request.
#[derive(Debug)]
pub struct Roots<'a, B: Backend> {
    /// The catalogue.
    pub tables: &'a Tables<B>,
    /// s(i), `[requests, items]`.
    pub scores: Tensor<B, 2>,
    /// <g(d_0), Z_r,j>, `[requests, M * D]`.
    pub table: Tensor<B, 2>,
    /// A bit an item, 32 to a word, `[requests * words]`.
    pub eligible: Tensor<B, 1, Int>,
    /// What is added to s(i), `[biased requests * items]`; one number where none is.
    pub bias: Tensor<B, 1>,
    /// The row of the bias of each request, or [`u32::MAX`], `[requests]`.
    pub rows_of_bias: Tensor<B, 1, Int>,
    /// Of each request a zero, and how many of the greatest scores are looked at, all included that are level with the last of
    /// them: `[requests * 2]`. None where no request has more.
    pub shortlists: Option<Tensor<B, 1, Int>>,
    /// Children told of each.
    pub most: usize,
}

/// What `<BOS>` comes to.
#[derive(Debug)]
pub struct Opened<B: Backend> {
    /// s(i) with bias, and a score below all others where an item may not be answered, `[requests, items]`.
    pub scores: Tensor<B, 2>,
    /// What is told of each request, `[requests * numbers]`, each a number of 32 bits.
    pub told: Tensor<B, 1, Int>,
}

/// Paths of some tokens.
#[derive(Debug)]
pub struct Paths<'a, B: Backend> {
    /// The catalogue.
    pub tables: &'a Tables<B>,
    /// As [`Opened::scores`].
    pub scores: Tensor<B, 2>,
    /// <g(d_t), Z_r,j>, `[rows, M * D]`.
    pub table: Tensor<B, 2>,
    /// Of each path its request, its row of the table, the flat number of the token whose holders are gone through, where its
    /// candidates are told or [`u32::MAX`], and the entry that it has of each codebook or [`u32::MAX`]: `[paths * (4 + M)]`.
    pub paths: Tensor<B, 1, Int>,
    /// How many they are.
    pub count: usize,
    /// Numbers that are told in all: of each path, then the candidates, two numbers each.
    pub told: usize,
    /// Children told of each.
    pub most: usize,
}

/// A backend that goes through candidates. Scores that are no finite numbers count as the worst, and are counted.
///
/// Of a path it tells the greatest score of its candidates, the sum of their weights, the unused codebook that is surest, and
/// how many scores were no numbers; then of the heaviest tokens of that codebook entry, weight, holders and the lowest of
/// them, heaviest first. Numbers with a fraction are told by their bits.
pub trait Kernels: Backend {
    /// Reads `<BOS>` of every request.
    fn open(roots: Roots<'_, Self>) -> Opened<Self>;

    /// Reads paths of some tokens; each candidate that is told has its number and its score.
    fn read(paths: Paths<'_, Self>) -> Tensor<Self, 1, Int>;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
