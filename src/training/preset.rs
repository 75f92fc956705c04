//! Named settings of a whole fit, scaled to the catalogue by its size alone.

use anyhow::Context;
use clap::ValueEnum;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::newcomers::Launch;
use super::posttrain::PostTrainConfig;
use super::precision::LadqConfig;
use super::pretrain::{Objective, PretrainConfig};
use crate::domain::CodeShape;
use crate::model::NetworkConfig;
use crate::tokenizer::{FeatureConfig, MpqConfig, Quantiser};

/// How much effort a fit takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Minutes on two cores: twelve passes at most.
    #[default]
    Quick,
    /// Ten minutes on two cores for 130,000 training events: twenty passes, more dropout.
    Standard,
    /// Wider and deeper, for patience: settings that have not been run to their end yet.
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
    /// How items start that nobody has taken yet.
    pub launch: Launch,
    /// How paths are rewarded afterwards; none leaves them as pre-training made them.
    pub post_train: Option<PostTrainConfig>,
}

impl Preset {
    /// The settings for a catalogue of `items` items in `categories` classes, learnt from `targets` events.
    pub fn config(self, items: usize, categories: usize, targets: usize, seed: u64) -> FitConfig {
        // About 30 items a token: fewer and tokens say nothing of each other, more and a path needs more steps.
        let entries = (items / 32).next_power_of_two().clamp(16, 256);
        // A small data set takes smaller steps, and more of them: what is learnt goes by the number of steps.
        let positions = (targets / 170).clamp(128, 1024);
        let codes = CodeShape { codebooks: 8, entries };
        let sizes = match self {
            Preset::Quick => Sizes { width: 128, layers: 2, epochs: 12, patience: 3, dropout: 0.4 },
            Preset::Standard => Sizes { width: 128, layers: 2, epochs: 20, patience: 6, dropout: 0.5 },
            Preset::Large => Sizes { width: 256, layers: 4, epochs: 80, patience: 10, dropout: 0.5 },
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
            reads_codes: true,
            own_residuals: true,
            // Features speak through the tokens alone: a map of them beside tokens and residuals is learnt by heart sooner
            // than it helps. More than 0 gives them one; it is set to the rows' width once they are made.
            feature_width: 0,
            width: sizes.width,
            heads: 2,
            head_width: None,
            encoder_layers: sizes.layers,
            decoder_layers: 1,
            feed_forward: sizes.width,
            max_history: 50,
            dropout: sizes.dropout,
        };
        let pretrain = PretrainConfig {
            objective: Objective::Catalogue,
            epochs: sizes.epochs,
            positions,
            learning_rate: 2.0e-3,
            warmup: 0.01,
            decays: true,
            weight_decay: 0.0,
            clip: 1.0,
            newcomers: 0.1,
            label_smoothing: 0.0,
            path_weight: 1.0,
            category_weight: 0.2,
            path_steps: 2,
            path_candidates: 96,
            ladq: LadqConfig::default(),
            validation_users: 5_000,
            patience: sizes.patience,
            seed,
        };
        FitConfig { features, tokenizer, network, pretrain, launch: Launch::default(), post_train: None }
    }
}

impl FitConfig {
    /// The settings with each `path=value` of `changes` in its place: a path of field names with dots between, and a JSON
    /// value (a word without quotes is taken as text).
    ///
    /// # Errors
    /// A change without `=`, a path to no setting, a value that the setting cannot have.
    pub fn with(self, changes: &[String]) -> anyhow::Result<Self> {
        let config: Self = changed(&self, changes)?;
        let after = config.post_train.as_ref().map_or(Ok(()), PostTrainConfig::validate);
        let wrong: Vec<String> =
            [config.pretrain.validate(), config.network.validate(), config.launch.validate(), after]
                .into_iter()
                .filter_map(Result::err)
                .flatten()
                .map(|wrong| format!("{}: {}", wrong.field, wrong.description))
                .collect();
        anyhow::ensure!(wrong.is_empty(), "settings: {}", wrong.join("; "));
        Ok(config)
    }
}

/// `settings` with each `path=value` of `changes` in its place.
///
/// # Errors
/// A change without `=`, a path to no setting, a value that the setting cannot have.
pub(super) fn changed<S: Serialize + DeserializeOwned>(settings: &S, changes: &[String]) -> anyhow::Result<S> {
    let mut all = serde_json::to_value(settings)?;
    for change in changes {
        let (path, value) = change.split_once('=').with_context(|| format!("--set {change}: expected PATH=VALUE"))?;
        let pointer = format!("/{}", path.replace('.', "/"));
        let place = all.pointer_mut(&pointer).with_context(|| format!("--set {change}: no setting {path}"))?;
        *place = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    }
    serde_json::from_value(all).with_context(|| format!("--set {}", changes.join(" ")))
}

struct Sizes {
    width: usize,
    layers: usize,
    epochs: usize,
    patience: usize,
    dropout: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(changes: &[&str]) -> anyhow::Result<FitConfig> {
        let changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
        Preset::Quick.config(1_000, 9, 20_000, 1).with(&changes)
    }

    #[test]
    fn a_setting_is_changed_by_its_path_and_all_others_stay() {
        let plain = with(&[]).unwrap();
        let changed = with(&["pretrain.newcomers=0.25", "network.width=64", "pretrain.objective=fixed_order"]).unwrap();
        assert_eq!((changed.pretrain.newcomers, changed.network.width), (0.25, 64));
        assert_eq!(changed.pretrain.objective, Objective::FixedOrder);
        let back = FitConfig { network: plain.network.clone(), pretrain: plain.pretrain.clone(), ..changed };
        assert_eq!(back, plain);
    }

    #[test]
    fn a_change_that_cannot_be_is_refused_by_name() {
        for (change, told) in [
            ("network.wdth=3", "no setting network.wdth"),
            ("network.width", "expected PATH=VALUE"),
            ("network.heads=3", "heads: 3: expected a divisor of width 128"),
            ("pretrain.newcomers=2", "newcomers: 2: expected 0 to below 1"),
            ("pretrain.seed=x", "pretrain.seed=x"),
        ] {
            let error = format!("{:#}", with(&[change]).unwrap_err());
            assert!(error.contains(told), "{change}: {error}");
        }
    }
}
