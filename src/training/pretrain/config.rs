//! How long and how fast pre-training learns.

use serde::{Deserialize, Serialize};

use crate::domain::Violation;
use crate::evaluation::TokenOrder;
use crate::training::precision::LadqConfig;

/// What the network learns to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The next item among all items, and paths that narrow them down: REG4Rec's.
    #[default]
    Catalogue,
    /// The next item's tokens one after another in the codebooks' order, each by a softmax over those of its codebook that may
    /// follow: TIGER's (Rajput et al. 2023).
    FixedOrder,
    /// The next item's tokens in any order, each of the codebooks that are left by its own softmax over the tokens that may
    /// follow: the paper's plain reading, the path model `codebook`. Kept for comparison.
    AnyOrder,
}

impl Objective {
    /// How tokens are written, where the network knows no items.
    pub fn token_order(self) -> Option<TokenOrder> {
        match self {
            Self::Catalogue => None,
            Self::FixedOrder => Some(TokenOrder::Fixed),
            Self::AnyOrder => Some(TokenOrder::Surest),
        }
    }
}

/// Settings of pre-training. Stored with the checkpoint: a resumed run must use the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// What is learnt.
    pub objective: Objective,
    /// Passes over the training sequences, at most.
    pub epochs: usize,
    /// Target positions of a step, about: sequences of like length are gathered until they hold as many.
    pub positions: usize,
    /// Peak learning rate of AdamW.
    pub learning_rate: f64,
    /// Share of all steps in which the rate rises to its peak.
    pub warmup: f64,
    /// Whether it then falls along a cosine to a twentieth, or stays.
    pub decays: bool,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Largest norm of one parameter's gradient.
    pub clip: f32,
    /// Share of the items that a step shows as newcomers, without their own residual and without what only a past tells.
    pub newcomers: f32,
    /// Mass that the scorer's target shares evenly with all items.
    pub label_smoothing: f32,
    /// Weight of the path loss; 0 leaves the decoder as it began.
    pub path_weight: f32,
    /// lambda_c: weight of the category loss.
    pub category_weight: f32,
    /// Tokens of a path that are read in training.
    pub path_steps: usize,
    /// Candidates that a step's softmax compares at most; more are sampled, and the sampling is corrected for.
    pub path_candidates: usize,
    /// Layer-adaptive precision.
    #[serde(default)]
    pub ladq: LadqConfig,
    /// Users that validation ranks for, at most.
    pub validation_users: usize,
    /// Epochs without a better validation NDCG@10 after which training stops.
    pub patience: usize,
    /// Everything random follows from it.
    pub seed: u64,
}

impl PretrainConfig {
    /// Every setting that cannot be.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        for (field, value) in [
            ("epochs", self.epochs),
            ("positions", self.positions),
            ("path_steps", self.path_steps),
            ("path_candidates", self.path_candidates),
            ("validation_users", self.validation_users),
            ("patience", self.patience),
        ] {
            if value == 0 {
                wrong.push(Violation::new(field, "0: expected at least 1"));
            }
        }
        if !(self.learning_rate > 0.0 && self.learning_rate < 1.0) {
            wrong.push(Violation::new("learning_rate", format!("{}: expected between 0 and 1", self.learning_rate)));
        }
        for (field, value) in [
            ("warmup", self.warmup),
            ("label_smoothing", f64::from(self.label_smoothing)),
            ("newcomers", f64::from(self.newcomers)),
        ] {
            if !(0.0..1.0).contains(&value) {
                wrong.push(Violation::new(field, format!("{value}: expected 0 to below 1")));
            }
        }
        for (field, value) in [
            ("weight_decay", self.weight_decay),
            ("clip", self.clip),
            ("path_weight", self.path_weight),
            ("category_weight", self.category_weight),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                wrong.push(Violation::new(field, format!("{value}: expected at least 0")));
            }
        }
        wrong.extend(self.ladq.validate().err().into_iter().flatten());
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// The learning rate of step `step` of `steps`.
    pub fn rate(&self, step: usize, steps: usize) -> f64 {
        let (step, steps) = (step as f64 + 1.0, steps.max(1) as f64);
        let rising = (self.warmup * steps).max(1.0);
        if step < rising {
            return self.learning_rate * step / rising;
        }
        if !self.decays {
            return self.learning_rate;
        }
        let done = ((step - rising) / (steps - rising).max(1.0)).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        self.learning_rate * (0.05 + 0.95 * cosine)
    }
}
