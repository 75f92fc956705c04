//! The fine-tune: pre-training that starts from the weights of the present bundle, at a smaller rate and for few epochs.

use std::path::Path;

use burn::backend::{Autodiff, Flex};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::increment::Increment;
use crate::artifact::Manifest;
use crate::catalog::Index;
use crate::domain::Violation;
use crate::model::NetworkConfig;
use crate::training::posttrain::{KindWeights, PostTrainConfig, PostTraining, RoundReport, post_train, without_corp};
use crate::training::preset::Preset;
use crate::training::pretrain::{
    ItemFeatures, Kernels, Lesson, PretrainConfig, Pretrained, Progress, TrainingSet, pretrain,
};

/// How the increment is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneConfig {
    /// Passes over the increment; 1 to 1,000.
    pub epochs: usize,
    /// Peak learning rate; above 0, below 1.
    pub learning_rate: f64,
    /// Rounds of post-training after it; 0 leaves it out, at most 1,000.
    pub post_train_rounds: usize,
    /// What a path to an item earns that is hidden or rated low next, where one to an item that is viewed earns 1; -10 to 10.
    pub hide_weight: f32,
    /// What one to an item earns that gets another rating; -10 to 10.
    pub rating_weight: f32,
    /// Everything random follows from it.
    pub seed: u64,
}

/// What a fine-tune goes on from.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// Of the bundle whose weights these are: how its network learnt.
    pub manifest: &'a Manifest,
    /// The network's sizes; it reads no features.
    pub network: &'a NetworkConfig,
    /// Its weights.
    pub weights: &'a [u8],
    /// Items with their codes.
    pub index: &'a Index,
}

impl TuneConfig {
    /// Every setting that cannot be.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        if !(1..=1000).contains(&self.epochs) {
            wrong.push(Violation::new("epochs", format!("{}: expected 1 to 1000", self.epochs)));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate < 1.0) {
            let expected = format!("{}: expected above 0, below 1", self.learning_rate);
            wrong.push(Violation::new("learning_rate", expected));
        }
        if self.post_train_rounds > 1000 {
            wrong.push(Violation::new("post_train_rounds", format!("{}: expected 0 to 1000", self.post_train_rounds)));
        }
        for (field, value) in [("hide_weight", self.hide_weight), ("rating_weight", self.rating_weight)] {
            if !(-10.0..=10.0).contains(&value) {
                wrong.push(Violation::new(field, format!("{value}: expected -10 to 10")));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// How the bundle learnt, where its manifest says so, with what a fine-tune does otherwise.
    pub fn lessons(&self, manifest: &Manifest, targets: usize) -> PretrainConfig {
        let sizes = &manifest.network;
        let own = PretrainConfig::deserialize(&manifest.training["pretrain"]);
        let own =
            own.unwrap_or_else(|_| Preset::Quick.config(sizes.items, sizes.categories, targets, self.seed).pretrain);
        PretrainConfig {
            epochs: self.epochs,
            patience: self.epochs,
            // An increment is small: steps of fewer targets, so that there are some.
            positions: (targets / 50).clamp(64, 1024),
            learning_rate: self.learning_rate,
            warmup: 0.1,
            // A folded residual holds the item's features too: hiding it would show an item that nothing is known of.
            newcomers: 0.0,
            seed: self.seed,
            ..own
        }
    }

    /// Learns the increment. A checkpoint is kept in `directory` after every epoch; one of the same `run` is gone on from.
    ///
    /// # Errors
    /// As [`pretrain`].
    pub fn tune(
        &self,
        start: Start<'_>,
        increment: &Increment,
        directory: &Path,
        run: &Value,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> anyhow::Result<(PretrainConfig, Pretrained)> {
        let training = TrainingSet::new(increment.sequences.iter().map(Vec::as_slice), start.network.max_history);
        let targets = increment.sequences.iter().map(|sequence| sequence.len() - 1).sum();
        let config = self.lessons(start.manifest, targets);
        let lesson = Lesson {
            network: start.network,
            start: Some(start.weights),
            config: &config,
            index: start.index,
            training: &training,
            held_out: &increment.choosers,
            features: ItemFeatures { rows: &[], width: 0, of_the_past: &[] },
            kernels: Kernels::Host,
            directory,
            run,
            resume: true,
        };
        let tuned = pretrain::<Autodiff<Flex>>(lesson, &Default::default(), progress)?;
        Ok((config, tuned))
    }

    /// How post-training rewards the increment.
    fn rewards(&self, increment: &Increment) -> PostTrainConfig {
        PostTrainConfig {
            rounds: self.post_train_rounds,
            steps: (increment.rewarded.len() / 64).clamp(5, 250),
            kinds: KindWeights { hide: self.hide_weight, rating: self.rating_weight, ..KindWeights::default() },
            seed: self.seed,
            ..PostTrainConfig::default()
        }
    }

    /// Rewards paths for what users of the increment took, hid and rated next (PARS); the weights as they are when no rounds
    /// are asked for or none is better.
    ///
    /// # Errors
    /// As [`post_train`](crate::training::posttrain::post_train).
    pub fn reward(
        &self,
        weights: Vec<u8>,
        start: Start<'_>,
        increment: &Increment,
        directory: &Path,
        run: &Value,
        progress: &mut dyn FnMut(&RoundReport),
    ) -> anyhow::Result<Vec<u8>> {
        if self.post_train_rounds == 0 {
            return Ok(weights);
        }
        let config = self.rewards(increment);
        let task = PostTraining {
            network: start.network,
            weights: &weights,
            config: &config,
            index: start.index,
            training: &TrainingSet::new(increment.rewarded.iter().map(Vec::as_slice), start.network.max_history),
            held_out: &increment.choosers,
            settings: &without_corp(),
            directory,
            run,
            resume: true,
        };
        Ok(post_train::<Autodiff<Flex>>(task, &Default::default(), &mut |report, _| progress(report))?.weights)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use serde_json::json;

    use super::super::fixtures::{event, index, log};
    use super::super::increment::{Bounds, Counts, IncrementConfig};
    use super::super::replay::Replay;
    use super::*;
    use crate::artifact::tensors;
    use crate::domain::{CodeShape, EventKind, HistoryEntry};
    use crate::evaluation::Trial;
    use crate::model::save_weights;
    use crate::training::posttrain::{Judge, Sampled};

    const CONFIG: TuneConfig = TuneConfig {
        epochs: 1,
        learning_rate: 1.0e-3,
        post_train_rounds: 0,
        hide_weight: -1.0,
        rating_weight: 2.0,
        seed: 3,
    };

    fn sizes() -> NetworkConfig {
        NetworkConfig {
            items: 12,
            categories: 1,
            codes: CodeShape { codebooks: 2, entries: 12 },
            ..NetworkConfig::tiny()
        }
    }

    /// Everybody takes the next item after each.
    fn increment() -> Increment {
        let entry = |item: u32| HistoryEntry { item: item % 12, kind: EventKind::Click, time: i64::from(item) };
        let trial = |from: u32| {
            let history: Vec<HistoryEntry> = (from..from + 3).map(entry).collect();
            let mut seen: Vec<u32> = history.iter().map(|entry| entry.item).collect();
            seen.sort_unstable();
            Trial { user: from, history, seen, target: (from + 3) % 12 }
        };
        Increment {
            sequences: (0..40).map(|from| (from..from + 6).map(entry).collect()).collect(),
            rewarded: (0..40).map(|from| (from..from + 6).map(entry).collect()).collect(),
            choosers: (0..12).map(trial).collect(),
            judges: Vec::new(),
            taken: vec![0; 12],
            counts: Counts::default(),
        }
    }

    #[test]
    fn a_fine_tune_starts_from_the_weights_it_is_given_and_moves_them_by_its_rate() {
        let (network, index, increment) = (sizes(), index(12), increment());
        let manifest = Manifest::new("shop", "1", network.clone(), vec!["shop".into()]);
        let weights = save_weights(&network.init::<Flex>(&Default::default())).unwrap();
        let start = Start { manifest: &manifest, network: &network, weights: &weights, index: &index };
        let tune = |learning_rate: f64, epochs: usize| {
            let home = tempfile::tempdir().unwrap();
            let config = TuneConfig { epochs, learning_rate, ..CONFIG };
            config.tune(start, &increment, home.path(), &json!({}), &mut |_| ()).unwrap().1
        };
        let moved = |after: &[u8]| {
            let (before, after) = (tensors("w", &weights).unwrap(), tensors("w", after).unwrap());
            let pairs = before.values().zip(after.values()).flat_map(|(a, b)| a.values.iter().zip(&b.values));
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max)
        };
        let still = tune(1.0e-9, 1);
        assert!(moved(&still.weights) < 1.0e-5, "{}", moved(&still.weights));
        let tuned = tune(2.0e-2, 8);
        assert!(moved(&tuned.weights) > 1.0e-2);
        let scores = |found: &Pretrained| found.reports[found.best_epoch].validation.ndcg_at_10;
        assert!(scores(&tuned) > scores(&still) + 0.1, "{} after {}", scores(&tuned), scores(&still));
        let (first, last) = (&tuned.reports[0], &tuned.reports[tuned.reports.len() - 1]);
        assert!(last.losses.scorer < first.losses.scorer - 0.5, "{first:?} {last:?}");
    }

    #[test]
    fn paths_are_rewarded_for_as_many_rounds_as_are_asked_for() {
        let (network, index, increment) = (sizes(), index(12), increment());
        let manifest = Manifest::new("shop", "1", network.clone(), vec!["shop".into()]);
        let weights = save_weights(&network.init::<Flex>(&Default::default())).unwrap();
        let start = Start { manifest: &manifest, network: &network, weights: &weights, index: &index };
        let reward = |post_train_rounds: usize| {
            let home = tempfile::tempdir().unwrap();
            let config = TuneConfig { post_train_rounds, ..CONFIG };
            let mut rounds = Vec::new();
            let mut told = |report: &RoundReport| rounds.push(report.round);
            let after = config.reward(weights.clone(), start, &increment, home.path(), &json!({}), &mut told).unwrap();
            (rounds, after)
        };
        assert_eq!(reward(0), (Vec::new(), weights.clone()));
        let (rounds, after) = reward(2);
        assert_eq!(rounds, [0, 1, 2]);
        assert_eq!(tensors("w", &after).unwrap().len(), tensors("w", &weights).unwrap().len());
    }

    #[test]
    fn a_path_to_a_hidden_or_low_rated_item_earns_its_weight_and_one_to_a_liked_item_more_than_to_a_viewed_one() {
        let home = tempfile::tempdir().unwrap();
        let rated = |item: usize, value: f32| {
            let mut rated = event("a", item, item as i64, EventKind::Rating);
            rated.event.value = Some(value);
            rated
        };
        let viewed = |item: usize| event("a", item, item as i64, EventKind::View);
        let hidden = event("a", 2, 2, EventKind::Hide);
        log(home.path(), vec![vec![viewed(0), viewed(1), hidden, rated(3, 1.0), rated(4, 5.0)]]);
        let index = index(12);
        let replay = Replay::read(home.path(), u64::MAX, None, &index, 3.0).unwrap();
        let parts =
            IncrementConfig { held_out_share: 0.25, held_out_users: 9, context: 2, rehearsal: 0.0, low_rating: 3.0 };
        let increment = parts.part(&replay, Bounds { learnt_through: 0, cut: u64::MAX }, 12, 12);
        let config = CONFIG.rewards(&increment);
        let judge = Judge { window: 1, decay: config.decay, theta: config.theta, kinds: &config.kinds };
        let earned: Vec<f32> = (1..5)
            .map(|item: u32| {
                let path = Sampled { retrieved: vec![item], ..Sampled::default() };
                path.future_rewards(&increment.rewarded[0][item as usize..], &index, &judge).path
            })
            .collect();
        assert_eq!(earned, [1.0, -1.0, -1.0, 2.0]);
        assert_eq!(increment.sequences[0].iter().map(|entry| entry.item).collect::<Vec<_>>(), [0, 1, 4]);
    }

    #[test]
    fn a_fine_tune_learns_as_its_bundle_did_but_slower_and_without_newcomers() {
        let own = Preset::Standard.config(12, 1, 100_000, 7).pretrain;
        let mut manifest = Manifest::new("shop", "1", sizes(), vec!["shop".into()]);
        let config = TuneConfig { epochs: 2, learning_rate: 1.0e-4, seed: 9, ..CONFIG };
        let none = config.lessons(&manifest, 5_000);
        manifest.training = json!({ "pretrain": { "path_weight": 0.0 } });
        assert_eq!(config.lessons(&manifest, 5_000), none, "half a section is none");
        manifest.training = json!({ "pretrain": PretrainConfig { path_weight: 0.25, ..own } });
        let lessons = config.lessons(&manifest, 5_000);
        assert_eq!((lessons.path_weight, lessons.newcomers, lessons.learning_rate), (0.25, 0.0, 1.0e-4));
        assert_eq!((lessons.epochs, lessons.positions, lessons.seed), (2, 100, 9));
    }
}
