//! The loop: contexts, roll-outs, rewards, updates; a validation and a checkpoint after every round.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::AutodiffModule;
use burn::optim::AdamWConfig;
use burn::tensor::backend::{AutodiffBackend, Backend};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::PostTrainError;
use super::adaptive::RewardModel;
use super::catalogue::Catalogue;
use super::config::PostTrainConfig;
use super::reward::{RewardWeights, Rewards};
use super::step::Step;
use crate::catalog::Index;
use crate::decode::DecodeSettings;
use crate::evaluation::{EvaluationError, Search};
use crate::model::{CpuScorer, Network, NetworkConfig, load_weights, save_weights};
use crate::training::fit::filtered;
use crate::training::precision::{Ladq, LadqState, finite};
use crate::training::pretrain::{Checkpoint, HeldOut, TrainingSet, ValidationScores};

/// Every step as a line of JSON: means of its round so far.
const LOG: &str = "steps.jsonl";

/// What post-training is given.
#[derive(Debug, Clone, Copy)]
pub struct PostTraining<'a> {
    /// The network's sizes.
    pub network: &'a NetworkConfig,
    /// The weights to begin from; frozen, they are the reference.
    pub weights: &'a [u8],
    /// How to learn.
    pub config: &'a PostTrainConfig,
    /// Items with their codes and categories.
    pub index: &'a Index,
    /// What to learn from.
    pub training: &'a TrainingSet,
    /// What to stop by.
    pub held_out: &'a [HeldOut],
    /// How validation searches.
    pub settings: &'a DecodeSettings,
    /// Where checkpoints are kept.
    pub directory: &'a Path,
    /// Names the run: a checkpoint of another run is not resumed.
    pub run: &'a serde_json::Value,
    /// Whether to go on from a checkpoint.
    pub resume: bool,
}

/// What one round came to: means over its steps.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RoundReport {
    /// 0 is the network before the first step.
    pub round: usize,
    /// Each reward of the paths sampled, over the events that follow.
    pub rewards: Rewards,
    /// Their weights at the end of the round.
    pub weights: RewardWeights,
    /// The weighted reward.
    pub reward: f32,
    /// KL to the network it began from, nats.
    pub kl: f32,
    /// Share of tokens whose gradient the clip cut.
    pub clipped: f32,
    /// Entropy of the distributions that tokens were drawn from, nats.
    pub entropy: f32,
    /// Distinct paths among those of one context.
    pub paths: f32,
    /// Distinct likeliest categories at their ends.
    pub categories: f32,
    /// Distinct first codebooks among the contexts of a step.
    pub first_codebooks: f32,
    /// Tokens of a path.
    pub tokens: f32,
    /// The path loss and the category loss beside it, nats; zero where they have no weight.
    pub supervised: Supervised,
    /// Of the weights after it, by the search.
    pub validation: ValidationScores,
    /// Wall time of its sampling.
    pub rollout_seconds: f64,
    /// Wall time of its updates.
    pub update_seconds: f64,
    /// What the adaptive weights know.
    pub model: RewardModel,
    /// What layer-adaptive precision knows after it; none when it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ladq: Option<LadqState>,
}

/// Mean losses of what is kept of pre-training, nats.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Supervised {
    /// At `<BOS>`, over the catalogue.
    pub begin: f32,
    /// Over the candidates of later steps.
    pub steps: f32,
    /// Of the category head.
    pub category: f32,
}

/// The best weights, and how they came about.
#[derive(Debug)]
pub struct PostTrained {
    /// Safetensors bytes of the round with the best validation NDCG@10; what it began from when no round was better.
    pub weights: Vec<u8>,
    /// All rounds, the first of them the beginning.
    pub reports: Vec<RoundReport>,
    /// Which of them the weights are of.
    pub best_round: usize,
}

/// Post-trains a network (second stage of REG4Rec: PARS by GRPO, rewards over future items by MSRA).
///
/// Everything random follows from `config.seed` and the round, and a checkpoint is written after every round, so a run
/// that was killed and resumed goes through the same rewards as one that was not. Every step is a line of
/// `steps.jsonl` beside the checkpoint.
///
/// # Errors
/// [`PostTrainError::NoTargets`], [`PostTrainError::Diverged`] with the last whole checkpoint kept, and what device and disk say.
pub fn post_train<B: AutodiffBackend>(
    task: PostTraining<'_>,
    device: &B::Device,
    progress: &mut dyn FnMut(&RoundReport, usize),
) -> Result<PostTrained, PostTrainError> {
    let PostTraining { config, training, .. } = task;
    if training.is_empty() {
        return Err(PostTrainError::NoTargets);
    }
    // No dropout: what samples a path and what learns from it must be the same network.
    let sizes = NetworkConfig { dropout: 0.0, ..task.network.clone() };
    let frozen = load_weights::<B::InnerBackend>(&sizes, task.weights.to_vec(), device)?;
    let catalogue = Catalogue::new(task.index, &frozen, device)?;
    let mut network = load_weights::<B>(&sizes, task.weights.to_vec(), device)?;
    // Dropout is on wherever a gradient could be asked for.
    let reader =
        (config.noise && !config.encoder).then(|| load_weights::<B>(task.network, task.weights.to_vec(), device));
    let reader = reader.transpose()?;
    let mut optimizer = AdamWConfig::new()
        .with_weight_decay(0.0)
        .with_epsilon(1.0e-8)
        .with_grad_clipping((config.clip_norm > 0.0).then_some(GradientClippingConfig::Norm(config.clip_norm)))
        .init::<B, Network<B>>();
    let mut state = Checkpoint { run: task.run.to_string(), reports: Vec::<RoundReport>::new(), best_epoch: 0 };
    let mut best = task.weights.to_vec();
    if task.resume
        && let Some((found, weights, path)) = Checkpoint::<RoundReport>::find(task.directory)?
        && found.run == state.run
    {
        (network, optimizer) = Checkpoint::<RoundReport>::load::<B, _, _>(&path, network, optimizer, device)?;
        (state, best) = (found, weights);
    }
    // Steps after the last whole round are gone through again.
    keep_lines(&task.directory.join(LOG), state.reports.len().saturating_sub(1) * config.steps)
        .map_err(PostTrainError::Log)?;
    if state.reports.is_empty() {
        let weights = config.rewards;
        let validation = validate(frozen.clone(), task)?;
        state.reports.push(RoundReport { weights, validation, rewards: Rewards::ZERO, ..RoundReport::default() });
        progress(&state.reports[0], config.rounds);
    }
    let ladq = state.reports.last().and_then(|report| report.ladq.clone());
    let mut ladq = Ladq::new(config.ladq, ladq, &network);
    for round in state.reports.len()..=config.rounds {
        if round > state.best_epoch + config.patience {
            break;
        }
        let seed = config.seed ^ (round as u64).wrapping_mul(0xA076_1D64_78BD_642F);
        B::seed(device, seed);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut report = RoundReport {
            round,
            model: state.reports[round - 1].model.clone(),
            weights: state.reports[round - 1].weights,
            rewards: Rewards::ZERO,
            ..RoundReport::default()
        };
        for step in 0..config.steps {
            let at = (round - 1) * config.steps + step;
            let (report, ladq) = (&mut report, &mut ladq);
            let mut step = Step { task, catalogue: &catalogue, frozen: &frozen, report, ladq, at, device };
            network = step.learn::<B>(network, reader.as_ref(), &mut optimizer, config.rate(at), &mut random)?;
            log(task.directory, step.report, at, config).map_err(PostTrainError::Log)?;
        }
        report.scale(1.0 / config.steps as f32);
        report.ladq = ladq.state();
        if !finite(&network.valid()) {
            return Err(PostTrainError::Diverged { epoch: round - 1, step: config.steps, loss: f32::NAN });
        }
        report.validation = validate(network.valid(), task)?;
        if report.validation.ndcg_at_10 > state.reports[state.best_epoch].validation.ndcg_at_10 {
            state.best_epoch = round;
            best = save_weights(&network.valid())?;
        }
        state.reports.push(report);
        state.save::<B, _, _>(task.directory, &network, &optimizer, &best)?;
        progress(&state.reports[round], config.rounds);
    }
    Ok(PostTrained { weights: best, best_round: state.best_epoch, reports: state.reports })
}

/// Cuts the file after so many lines, where it has more.
fn keep_lines(path: &Path, lines: usize) -> std::io::Result<()> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let kept: String = text.split_inclusive('\n').take(lines).collect();
            std::fs::write(path, kept)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Adds the means of the round so far as a line.
fn log(directory: &Path, report: &RoundReport, at: usize, config: &PostTrainConfig) -> std::io::Result<()> {
    let mut means = report.clone();
    means.scale(1.0 / (at % config.steps + 1) as f32);
    let line = serde_json::json!({
        "step": at, "round": means.round, "reward": means.reward, "rewards": means.rewards, "weights": means.weights,
        "kl": means.kl, "clipped": means.clipped, "entropy": means.entropy, "paths": means.paths,
        "categories": means.categories, "first_codebooks": means.first_codebooks, "tokens": means.tokens,
        "supervised": means.supervised,
        "rollout_seconds": means.rollout_seconds, "update_seconds": means.update_seconds,
    });
    std::fs::create_dir_all(directory)?;
    let file = OpenOptions::new().create(true).append(true).open(directory.join(LOG));
    writeln!(file?, "{line}")
}

fn validate<B: Backend>(network: Network<B>, task: PostTraining<'_>) -> Result<ValidationScores, PostTrainError> {
    let mut scorer = CpuScorer::new(&network, task.network.clone(), task.index.codes())
        .map_err(|error| PostTrainError::Device(error.to_string()))?;
    let mut search = Search::new(&mut scorer, task.index, task.settings.clone());
    let scores = filtered(&mut search, task.held_out, task.index.len())
        .map_err(|source| EvaluationError::Ranker { ranker: "reg4rec".to_owned(), source })?;
    Ok(ValidationScores { recall_at_10: scores.recall_at_10, ndcg_at_10: scores.ndcg_at_10 })
}

impl RoundReport {
    /// Sums over steps to means. Times are sums, and stay so.
    fn scale(&mut self, by: f32) {
        self.rewards = Rewards::of(self.rewards.values().map(|value| value * by));
        for sum in [
            &mut self.reward,
            &mut self.kl,
            &mut self.clipped,
            &mut self.entropy,
            &mut self.paths,
            &mut self.categories,
            &mut self.first_codebooks,
            &mut self.tokens,
            &mut self.supervised.begin,
            &mut self.supervised.steps,
            &mut self.supervised.category,
        ] {
            *sum *= by;
        }
    }
}
