//! Settings of OPQ and of its fit.

use serde::{Deserialize, Serialize};

use crate::domain::{CodeShape, Violation};
use crate::tokenizer::ranges::within;

/// Settings of OPQ (Ge, He, Ke, Sun 2013, "Optimized Product Quantization", the non-parametric solution started from the
/// parametric one).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpqConfig {
    /// M: sub-spaces, each with its codebook.
    pub codebooks: usize,
    /// D: entries of a codebook.
    pub entries: usize,
    /// Principal components that are kept, rounded up to a multiple of M.
    pub width: usize,
    /// Whether every component is scaled to variance 1. Otherwise components keep theirs, and the rotation loses least of
    /// the rows as they are.
    pub whiten: bool,
    /// Rounds of a k-means step in every sub-space and a rotation to its outcome.
    pub rounds: usize,
    /// Rounds of k-means that place the entries at the start.
    pub kmeans_rounds: usize,
    /// Most items that may share one code after assignment.
    pub max_collisions: usize,
    /// Seed of every random choice.
    pub seed: u64,
}

impl Default for OpqConfig {
    /// MPQ's M and D, eight numbers a sub-space; not tuned.
    fn default() -> Self {
        Self {
            codebooks: 8,
            entries: 256,
            width: 64,
            whiten: false,
            rounds: 20,
            kmeans_rounds: 10,
            max_collisions: 1,
            seed: 17,
        }
    }
}

impl OpqConfig {
    /// M and D.
    pub fn shape(&self) -> CodeShape {
        CodeShape { codebooks: self.codebooks, entries: self.entries }
    }

    /// Numbers of a sub-space: `width` / M, rounded up.
    pub fn sub_width(&self) -> usize {
        self.width.div_ceil(self.codebooks)
    }

    /// Numbers of all sub-spaces: `width`, rounded up to a multiple of M.
    pub fn reduced_width(&self) -> usize {
        self.sub_width() * self.codebooks
    }

    /// Checks every setting and names each one that is out of range.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        within(
            &[
                ("codebooks", self.codebooks, 1, 64),
                ("entries", self.entries, 2, 65_536),
                ("width", self.width, 1, 1024),
                ("rounds", self.rounds, 1, 100_000),
                ("kmeans_rounds", self.kmeans_rounds, 0, 1000),
                ("max_collisions", self.max_collisions, 1, usize::MAX),
            ],
            &[],
        )
    }
}
