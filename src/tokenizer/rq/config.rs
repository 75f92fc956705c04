//! Settings of the RQ-VAE and of its fit.

use serde::{Deserialize, Serialize};

use crate::domain::{CodeShape, Violation};
use crate::tokenizer::ranges::within;

/// Settings of the RQ-VAE (Rajput et al. 2023, "Recommender Systems with Generative Retrieval", section 3.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RqConfig {
    /// Levels, each with its codebook: the code has as many tokens, and level r is codebook r.
    pub levels: usize,
    /// D: entries of a level's codebook.
    pub entries: usize,
    /// Width of the latent and of a codebook entry.
    pub latent: usize,
    /// Hidden widths of the encoder, rows first; the decoder's are the same, backwards.
    pub hidden: Vec<usize>,
    /// Weight of the commitment loss.
    pub commitment: f32,
    /// What the moving average keeps at each step.
    pub ema_decay: f32,
    /// Passes over the items with quantisation.
    pub epochs: usize,
    /// Passes before them without, so that codebooks start from latents that mean something.
    pub warmup_epochs: usize,
    /// Rounds of k-means that place each level's entries at the start.
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

impl Default for RqConfig {
    /// The paper's widths (512, 256, 128, latent 32), four levels of 256. The schedule is MPQ's with smaller steps, for
    /// the deeper network; it is not tuned.
    fn default() -> Self {
        Self {
            levels: 4,
            entries: 256,
            latent: 32,
            hidden: vec![512, 256, 128],
            commitment: 0.25,
            ema_decay: 0.98,
            epochs: 20,
            warmup_epochs: 4,
            kmeans_rounds: 10,
            batch: 256,
            learning_rate: 1e-3,
            weight_decay: 1e-4,
            dead_share: 0.05,
            max_collisions: 1,
            seed: 17,
        }
    }
}

impl RqConfig {
    /// The number of levels as M, and D.
    pub fn shape(&self) -> CodeShape {
        CodeShape { codebooks: self.levels, entries: self.entries }
    }

    /// Checks every setting and names each one that is out of range.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut whole = vec![
            ("levels", self.levels, 1, 64),
            ("entries", self.entries, 2, 65_536),
            ("latent", self.latent, 1, 4096),
            ("number of hidden widths", self.hidden.len(), 0, 16),
            ("epochs", self.epochs, 1, 100_000),
            ("warmup_epochs", self.warmup_epochs, 0, 100_000),
            ("kmeans_rounds", self.kmeans_rounds, 0, 1000),
            ("batch", self.batch, 1, 1 << 20),
            ("max_collisions", self.max_collisions, 1, usize::MAX),
        ];
        whole.extend(self.hidden.iter().map(|&width| ("hidden", width, 1, 16_384)));
        within(
            &whole,
            &[
                ("commitment", f64::from(self.commitment), 0.0, 1e6),
                ("ema_decay", f64::from(self.ema_decay), 0.0, 0.9999),
                ("learning_rate", self.learning_rate, 1e-9, 1.0),
                ("weight_decay", f64::from(self.weight_decay), 0.0, 1.0),
                ("dead_share", f64::from(self.dead_share), 0.0, 1.0),
            ],
        )
    }
}
