//! The quantisers behind one face: their settings, and what each does once fitted.

use serde::{Deserialize, Serialize};

#[cfg(feature = "train")]
use super::assign::Choices;
use super::ranges::within;
use super::{MpqConfig, OpqConfig, RqConfig};
use crate::domain::{CodeShape, Violation};

/// Which quantiser turns feature rows into codes, and its settings. In JSON or TOML the quantiser's name is the key of
/// its settings: `{"mpq": {..}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Quantiser {
    /// Mixture-of-experts parallel quantisation: REG4Rec's.
    Mpq(MpqConfig),
    /// Residual-quantised variational autoencoder: TIGER's.
    Rq(RqConfig),
    /// Optimised product quantisation.
    Opq(OpqConfig),
    /// Codes that say nothing of the item: the control of an experiment with codes, not for serving.
    ///
    /// The fit gives every item its own code, uniform over all codes. A later item's code is drawn from a hash of its
    /// feature row, so equal rows get equal codes, unequal ones unrelated codes, and two items may collide.
    Random {
        /// M.
        codebooks: usize,
        /// D.
        entries: usize,
        /// Another seed gives every item another code.
        seed: u64,
    },
}

impl Default for Quantiser {
    fn default() -> Self {
        Quantiser::Mpq(MpqConfig::default())
    }
}

impl Quantiser {
    /// The name that people know it by.
    pub fn name(&self) -> &'static str {
        match self {
            Quantiser::Mpq(_) => "MPQ",
            Quantiser::Rq(_) => "RQ-VAE",
            Quantiser::Opq(_) => "OPQ",
            Quantiser::Random { .. } => "random codes",
        }
    }

    /// M and D. A level of the RQ-VAE counts as a codebook.
    pub fn shape(&self) -> CodeShape {
        match self {
            Quantiser::Mpq(config) => config.shape(),
            Quantiser::Rq(config) => config.shape(),
            Quantiser::Opq(config) => config.shape(),
            Quantiser::Random { codebooks, entries, .. } => CodeShape { codebooks: *codebooks, entries: *entries },
        }
    }

    /// Most items that may share one code after assignment.
    pub fn max_collisions(&self) -> usize {
        match self {
            Quantiser::Mpq(config) => config.max_collisions,
            Quantiser::Rq(config) => config.max_collisions,
            Quantiser::Opq(config) => config.max_collisions,
            Quantiser::Random { .. } => 1,
        }
    }

    /// Checks every setting and names each one that is out of range.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        match self {
            Quantiser::Mpq(config) => config.validate(),
            Quantiser::Rq(config) => config.validate(),
            Quantiser::Opq(config) => config.validate(),
            Quantiser::Random { codebooks, entries, .. } => {
                within(&[("codebooks", *codebooks, 1, 64), ("entries", *entries, 2, 65_536)], &[])
            }
        }
    }
}

/// A fitted quantiser at work on feature rows. W: numbers of a row.
pub(super) trait Codec {
    /// Rows `[items, W]` to codes `[items, M]`. Items may collide: nothing is moved here.
    fn encode(&self, rows: &[f32]) -> Vec<u16>;

    /// The vectors that the codebooks quantise, `[items, M, latent]`; empty where there are none.
    fn latents(&self, rows: &[f32]) -> Vec<f32>;

    /// Rows rebuilt from codes `[items, M]`: `[items, W]`. What a decoder beside the code reads comes from `rows`.
    fn decode(&self, rows: &[f32], codes: &[u16]) -> Vec<f32>;

    /// Where the items of these rows may move, one per row; `codes` are theirs before any move.
    #[cfg(feature = "train")]
    fn choices(&self, rows: &[f32], codes: &[u16]) -> Vec<Box<dyn Choices + '_>>;
}
