//! Settings of MPQ and of its fit.

use serde::{Deserialize, Serialize};

use crate::domain::{CodeShape, Violation};
use crate::tokenizer::ranges::within;

/// How codebook entries follow the latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodebookUpdate {
    /// Moving average of the latents that chose the entry.
    #[default]
    Ema,
    /// Gradient of the codebook loss.
    Gradient,
}

/// What the orthogonality loss compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orthogonality {
    /// Mean over codebook pairs of cos^2 between an item's latents.
    #[default]
    Latents,
    /// ||V V^T - I||^2 (Frobenius), where row r of V holds expert r's parameters at unit length.
    Parameters,
}

/// Settings of MPQ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MpqConfig {
    /// M: experts, each with its codebook.
    pub codebooks: usize,
    /// D: entries of a codebook.
    pub entries: usize,
    /// Width of a latent and of a codebook entry.
    pub latent: usize,
    /// Hidden width of each expert.
    pub hidden: usize,
    /// Hidden width of the shared decoder.
    pub decoder_hidden: usize,
    /// Whether the experts are weighed by the gate softmax(W x); otherwise each weighs 1 / M.
    pub gated: bool,
    /// Weight of the commitment loss.
    pub commitment: f32,
    /// Weight of the orthogonality loss, lambda_o; at 0 it is measured and no gradient comes from it.
    pub lambda_orth: f32,
    /// What the orthogonality loss compares.
    pub orthogonality: Orthogonality,
    /// How codebook entries follow the latents.
    pub update: CodebookUpdate,
    /// What the moving average keeps at each step.
    pub ema_decay: f32,
    /// Passes over the items with quantisation.
    pub epochs: usize,
    /// Passes before them without, so that codebooks start from latents that mean something.
    pub warmup_epochs: usize,
    /// Rounds of k-means that place the entries at the start.
    pub kmeans_rounds: usize,
    /// Items a step.
    pub batch: usize,
    /// Highest learning rate; it rises over the first steps and falls along a cosine.
    pub learning_rate: f64,
    /// AdamW's weight decay.
    pub weight_decay: f32,
    /// An entry chosen by fewer items of an epoch than this share of the mean is dead and is placed anew.
    pub dead_share: f32,
    /// Most items that may share one code after assignment.
    pub max_collisions: usize,
    /// Seed of every random choice.
    pub seed: u64,
}

impl Default for MpqConfig {
    /// Chosen on Amazon Beauty (12,101 items, rows of 500 numbers): 45.3 % of the rows' variance is left, 11,122 codes
    /// are distinct before assignment, mean |cos| is .09, every entry is used. At 16 epochs, each against its neighbour:
    /// lambda_o 1 left the experts alike (|cos| .58); batch 1024 left 56.8 % where 256 left 48.8 %; learning rate 4e-3
    /// took that to 46.1 %. Wider latents rebuild better and tell items apart worse, at rate
    /// 2e-3: 48.8 % and 10,683 codes at 32, 46.1 % and 9,728 at 64, 43.4 % and 8,700 at 128. One seed.
    fn default() -> Self {
        Self {
            codebooks: 8,
            entries: 256,
            latent: 32,
            hidden: 128,
            decoder_hidden: 256,
            gated: true,
            commitment: 0.25,
            lambda_orth: 100.0,
            orthogonality: Orthogonality::Latents,
            update: CodebookUpdate::Ema,
            ema_decay: 0.98,
            epochs: 20,
            warmup_epochs: 4,
            kmeans_rounds: 10,
            batch: 256,
            learning_rate: 4e-3,
            weight_decay: 1e-4,
            dead_share: 0.05,
            max_collisions: 1,
            seed: 17,
        }
    }
}

impl MpqConfig {
    /// M and D.
    pub fn shape(&self) -> CodeShape {
        CodeShape { codebooks: self.codebooks, entries: self.entries }
    }

    /// Checks every setting and names each one that is out of range.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        within(
            &[
                ("codebooks", self.codebooks, 1, 64),
                ("entries", self.entries, 2, 65_536),
                ("latent", self.latent, 1, 4096),
                ("hidden", self.hidden, 1, 16_384),
                ("decoder_hidden", self.decoder_hidden, 1, 16_384),
                ("epochs", self.epochs, 1, 100_000),
                ("warmup_epochs", self.warmup_epochs, 0, 100_000),
                ("kmeans_rounds", self.kmeans_rounds, 0, 1000),
                ("batch", self.batch, 1, 1 << 20),
                ("max_collisions", self.max_collisions, 1, usize::MAX),
            ],
            &[
                ("commitment", f64::from(self.commitment), 0.0, 1e6),
                ("lambda_orth", f64::from(self.lambda_orth), 0.0, 1e6),
                ("ema_decay", f64::from(self.ema_decay), 0.0, 0.9999),
                ("learning_rate", self.learning_rate, 1e-9, 1.0),
                ("weight_decay", f64::from(self.weight_decay), 0.0, 1.0),
                ("dead_share", f64::from(self.dead_share), 0.0, 1.0),
            ],
        )
    }
}
