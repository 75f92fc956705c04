//! Named settings of a whole fit, scaled to the catalogue by its size alone.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::pretrain::PretrainConfig;
use crate::domain::CodeShape;
use crate::model::NetworkConfig;
use crate::tokenizer::{FeatureConfig, MpqConfig, Quantiser};

/// How much effort a fit takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Minutes on two cores.
    #[default]
    Quick,
    /// Up to an hour on two cores.
    Standard,
    /// For a GPU, or for patience.
    Large,
}

/// Every setting of a fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitConfig {
    /// What item features are built from.
    pub features: FeatureConfig,
    /// How codes are learnt; the presets take MPQ.
    pub tokenizer: Quantiser,
    /// The network's sizes.
    pub network: NetworkConfig,
    /// How the network learns.
    pub pretrain: PretrainConfig,
}

impl Preset {
    /// The settings for a catalogue of `items` items in `categories` classes, learnt from `targets` events.
    pub fn config(self, items: usize, categories: usize, targets: usize, seed: u64) -> FitConfig {
        // About 30 items a token: fewer and tokens say nothing of each other, more and a path needs more steps.
        let entries = (items / 32).next_power_of_two().clamp(16, 256);
        // A small data set takes smaller steps, and more of them: what is learnt goes by the number of steps.
        let positions = (targets / 100).next_power_of_two().clamp(128, 1024);
        let codes = CodeShape { codebooks: 8, entries };
        let sizes = match self {
            Preset::Quick => Sizes { code: 32, residual: 64, width: 128, layers: 2, epochs: 8, patience: 3 },
            Preset::Standard => Sizes { code: 32, residual: 64, width: 128, layers: 2, epochs: 40, patience: 6 },
            Preset::Large => Sizes { code: 64, residual: 64, width: 256, layers: 4, epochs: 60, patience: 8 },
        };
        let features = FeatureConfig {
            seed,
            // A small shop has fewer words, paths and brands to tell apart, and its bundle need not carry more.
            text_buckets: (4 * items).next_power_of_two().min(8192),
            category_buckets: items.next_power_of_two().clamp(64, 2048),
            brand_buckets: items.next_power_of_two().clamp(64, 8192),
            ..FeatureConfig::default()
        };
        let mpq = MpqConfig { codebooks: codes.codebooks, entries, seed, ..MpqConfig::default() };
        let tokenizer = Quantiser::Mpq(mpq);
        let network = NetworkConfig {
            items,
            categories,
            codes,
            code_width: sizes.code,
            residual_width: sizes.residual,
            width: sizes.width,
            heads: 4,
            encoder_layers: sizes.layers,
            decoder_layers: 1,
            feed_forward: 2 * sizes.width,
            max_history: 50,
            dropout: 0.3,
            residual_dropout: 0.1,
            temperature: 0.2,
        };
        let pretrain = PretrainConfig {
            epochs: sizes.epochs,
            positions,
            learning_rate: 2.0e-3,
            warmup: 0.05,
            weight_decay: 0.01,
            clip: 1.0,
            label_smoothing: 0.0,
            path_weight: 1.0,
            category_weight: 0.2,
            path_steps: 2,
            path_candidates: 96,
            path_moves_scorer: false,
            validation_users: 5_000,
            patience: sizes.patience,
            seed,
        };
        FitConfig { features, tokenizer, network, pretrain }
    }
}

struct Sizes {
    code: usize,
    residual: usize,
    width: usize,
    layers: usize,
    epochs: usize,
    patience: usize,
}
