//! The loop: epochs of steps, validation after each, a checkpoint, the best weights at the end.

use std::path::Path;
use std::time::Instant;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::AutodiffModule;
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, Distribution, Int, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::batches::{Batch, TrainingSet};
use super::catalogue_loss::catalogue_loss;
use super::checkpoint::{Checkpoint, CheckpointError};
use super::config::PretrainConfig;
use super::path_loss::{PathContext, PathTargets, path_loss};
use super::validation::{HeldOut, ValidationScores, validate};
use crate::catalog::Index;
use crate::domain::HistoryEntry;
use crate::model::{Network, NetworkConfig, Queries, WeightsError, encoder_batch, flat_codes, save_weights};

/// Mean losses of an epoch, in nats.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Losses {
    /// The scorer's, over the catalogue.
    pub scorer: f32,
    /// The path model's at `<BOS>`, over the catalogue.
    pub begin: f32,
    /// The path model's over the candidates of later steps.
    pub steps: f32,
    /// The category head's.
    pub category: f32,
}

/// What one epoch came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// Counted from zero.
    pub epoch: usize,
    /// Means over its steps.
    pub losses: Losses,
    /// Of the weights after it.
    pub validation: ValidationScores,
    /// Wall time of its steps.
    pub seconds: f64,
    /// Training sequences worked through in a second.
    pub sequences_per_second: f64,
}

/// What pre-training is given.
#[derive(Debug, Clone, Copy)]
pub struct Lesson<'a> {
    /// The network's sizes.
    pub network: &'a NetworkConfig,
    /// How to learn.
    pub config: &'a PretrainConfig,
    /// Items with their codes and categories.
    pub index: &'a Index,
    /// What to learn from.
    pub training: &'a TrainingSet,
    /// What to stop by.
    pub held_out: &'a [HeldOut],
    /// Where checkpoints are kept.
    pub directory: &'a Path,
    /// Names the run: a checkpoint of another run is not resumed.
    pub run: &'a serde_json::Value,
    /// Whether to go on from a checkpoint.
    pub resume: bool,
}

/// How far a run is; told after every step.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// An epoch begins, or is found done in a checkpoint.
    Epoch {
        /// Counted from zero.
        epoch: usize,
        /// Of so many.
        epochs: usize,
        /// Steps in it.
        steps: usize,
    },
    /// A step is done.
    Step {
        /// Running means of the epoch.
        losses: Losses,
        /// Sequences a second so far.
        sequences_per_second: f64,
    },
    /// An epoch is done and validated.
    Done(&'a EpochReport),
}

/// The best weights, and how they came about.
#[derive(Debug)]
pub struct Pretrained {
    /// Safetensors bytes of the epoch with the best validation NDCG@10.
    pub weights: Vec<u8>,
    /// All epochs.
    pub reports: Vec<EpochReport>,
    /// Which of them the weights are of.
    pub best_epoch: usize,
}

/// Why pre-training gave no weights.
#[derive(Debug, Error)]
pub enum PretrainError {
    /// No sequence has two events.
    #[error("no user has two training events: there is nothing to learn from")]
    NoTargets,
    /// The loss is not a number any more. The checkpoint of the epoch before is kept.
    #[error(
        "the loss became {loss} in epoch {epoch}, step {step}: expected a finite number; try a lower learning rate"
    )]
    Diverged {
        /// Counted from zero.
        epoch: usize,
        /// Counted from zero.
        step: usize,
        /// The loss.
        loss: f32,
    },
    /// The device did not give its numbers back.
    #[error("reading from the device: {0}")]
    Device(String),
    /// Checkpoints.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// Pre-trains a network (first stage of REG4Rec, section 3 of the paper; the losses are normalised over items) and returns
/// the best weights by validation.
///
/// Everything random follows from `config.seed` and the epoch, and a checkpoint is written after every epoch, so a run
/// that was killed and resumed goes through the same losses as one that was not.
pub fn pretrain<B: AutodiffBackend>(
    lesson: Lesson<'_>,
    device: &B::Device,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Pretrained, PretrainError> {
    let Lesson { config, training, .. } = lesson;
    if training.is_empty() {
        return Err(PretrainError::NoTargets);
    }
    B::seed(device, config.seed);
    let mut network = lesson.network.init::<B>(device);
    let mut optimizer = AdamWConfig::new()
        .with_weight_decay(config.weight_decay)
        .with_epsilon(1.0e-8)
        .with_grad_clipping((config.clip > 0.0).then_some(GradientClippingConfig::Norm(config.clip)))
        .init::<B, Network<B>>();
    let mut state = Checkpoint { run: lesson.run.clone(), reports: Vec::new(), best_epoch: 0 };
    let mut best = Vec::new();
    if lesson.resume
        && let Some((found, weights, path)) = Checkpoint::find(lesson.directory)?
        && found.run == state.run
    {
        (network, optimizer) = Checkpoint::load::<B, _, _>(&path, network, optimizer, device)?;
        (state, best) = (found, weights);
    }
    let flat = flat_codes(lesson.index.codes(), device);
    let steps_per_epoch = training.batches(config.positions, config.seed, 0).len();
    for epoch in state.reports.len()..config.epochs {
        if !state.reports.is_empty() && epoch > state.best_epoch + config.patience {
            break;
        }
        let batches = training.batches(config.positions, config.seed, epoch);
        progress(Progress::Epoch { epoch, epochs: config.epochs, steps: batches.len() });
        let seed = config.seed ^ (epoch as u64 + 1).wrapping_mul(0xD1B5_4A32_D192_ED03);
        B::seed(device, seed);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (started, mut sums, mut done) = (Instant::now(), Losses::default(), 0);
        for (step, batch) in batches.iter().enumerate() {
            let (losses, surrogate) = forward(&network, lesson, batch, flat.clone(), &mut random, device)?;
            let total = losses.scorer + losses.begin + losses.steps + losses.category;
            if !total.is_finite() {
                return Err(PretrainError::Diverged { epoch, step, loss: total });
            }
            let gradients = GradientsParams::from_grads(surrogate.backward(), &network);
            let rate = config.rate(epoch * steps_per_epoch + step, config.epochs * steps_per_epoch);
            network = optimizer.step(rate, network, gradients);
            sums.add(losses);
            done += batch.windows.len();
            let sequences_per_second = done as f64 / started.elapsed().as_secs_f64().max(1.0e-9);
            progress(Progress::Step { losses: sums.over(step + 1), sequences_per_second });
        }
        let seconds = started.elapsed().as_secs_f64();
        let plain = network.valid();
        let validation = validate(&plain, lesson.index.codes(), lesson.held_out, lesson.network.max_history, device)?;
        let better = state
            .reports
            .get(state.best_epoch)
            .is_none_or(|report| validation.ndcg_at_10 > report.validation.ndcg_at_10);
        if better {
            state.best_epoch = epoch;
            best = save_weights(&plain)?;
        }
        state.reports.push(EpochReport {
            epoch,
            losses: sums.over(batches.len()),
            validation,
            seconds,
            sequences_per_second: done as f64 / seconds.max(1.0e-9),
        });
        state.save::<B, _, _>(lesson.directory, &network, &optimizer, &best)?;
        progress(Progress::Done(&state.reports[epoch]));
    }
    Ok(Pretrained { weights: best, reports: state.reports, best_epoch: state.best_epoch })
}

/// One pass over one batch: the losses and what to differentiate. `flat` holds the items' flat token numbers.
fn forward<B: AutodiffBackend>(
    network: &Network<B>,
    lesson: Lesson<'_>,
    batch: &Batch,
    flat: Tensor<B, 1, Int>,
    random: &mut ChaCha8Rng,
    device: &B::Device,
) -> Result<(Losses, Tensor<B, 1>), PretrainError> {
    let (config, codes) = (lesson.config, lesson.index.codes());
    let windows: Vec<&[HistoryEntry]> = batch.windows.iter().map(|&at| lesson.training.window(at)).collect();
    let (rows, length) = (windows.len(), batch.length);
    let inputs: Vec<&[HistoryEntry]> = windows.iter().map(|window| &window[..window.len() - 1]).collect();
    let places = Places::of(&inputs, length, random);
    let targets: Vec<u32> = windows.iter().flat_map(|window| window[1..].iter().map(|event| event.item)).collect();

    let items = network.item_matrix(flat); // [items, width]
    let encoded = encoder_batch::<B>(&inputs, length, device);
    let events = items.clone().select(0, encoded.items.clone()); // [rows * length, width]
    let events = drop_residuals(events, lesson.network, device);
    let states = network.encode(&encoded, network.item_input(events)); // [rows * length, d]
    let queries = network.queries(states.clone().select(0, ints(&places.targets, device)));
    let scorer = catalogue_loss(
        queries.clone().concatenated(),
        items.clone(),
        &targets,
        config.label_smoothing,
        &places.chosen,
        true,
    );
    let mut losses = Losses { scorer: scorer.value, ..Losses::default() };
    if config.path_weight == 0.0 {
        return Ok((losses, scorer.surrogate));
    }

    let probabilities = read(scorer.probabilities)?;
    let chosen_items = places.chosen.iter().map(|&row| targets[row]).collect();
    let paths = PathTargets::choose(
        lesson.index,
        chosen_items,
        &probabilities,
        config.path_steps,
        config.path_candidates,
        random,
    );
    let chosen = ints(&places.chosen, device);
    let queries =
        Queries { tokens: queries.tokens.select(0, chosen.clone()), residual: queries.residual.select(0, chosen) };
    let mut context = PathContext {
        queries,
        history: Vec::new(),
        hidden: places.hidden(rows, length, device),
        items,
        tokens: network.tokens(),
        moves_scorer: config.path_moves_scorer,
    };
    let mut states = states;
    if !config.path_moves_scorer {
        states = states.detach();
        context.queries =
            Queries { tokens: context.queries.tokens.detach(), residual: context.queries.residual.detach() };
        context.items = context.items.detach();
        context.tokens = context.tokens.detach();
    }
    context.history = network.history_memory(states, rows);
    let path = path_loss(network, context, &paths, codes, config.path_weight, config.category_weight);
    losses.begin = path.begin;
    losses.steps = path.steps;
    losses.category = path.category;
    Ok((losses, scorer.surrogate + path.surrogate))
}

/// The numbers of a tensor, row after row.
pub(super) fn read<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<f32>, PretrainError> {
    let data = tensor.into_data().convert::<f32>();
    data.into_vec::<f32>().map_err(|error| PretrainError::Device(format!("{error:?}")))
}

/// Where the real positions of a padded batch are.
struct Places {
    /// Row of each target's encoder state in `[rows * length]`.
    targets: Vec<usize>,
    /// For each sequence, the target, by its place in `targets`, whose path is learnt in this step.
    chosen: Vec<usize>,
    /// The chosen target's position in its sequence.
    positions: Vec<usize>,
}

impl Places {
    fn of(inputs: &[&[HistoryEntry]], length: usize, random: &mut ChaCha8Rng) -> Self {
        let (mut targets, mut chosen, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for (row, input) in inputs.iter().enumerate() {
            let position = random.random_range(0..input.len());
            chosen.push(targets.len() + position);
            positions.push(position);
            targets.extend((0..input.len()).map(|column| row * length + column));
        }
        Self { targets, chosen, positions }
    }

    /// `[rows, 1, 1, length]`: true on what comes after the chosen position.
    fn hidden<B: Backend>(&self, rows: usize, length: usize, device: &B::Device) -> Tensor<B, 4, Bool> {
        let hidden: Vec<bool> =
            self.positions.iter().flat_map(|&position| (0..length).map(move |column| column > position)).collect();
        Tensor::from_data(TensorData::new(hidden, [rows, 1, 1, length]), device)
    }
}

/// Zeroes whole residuals of input rows, so that codes learn to carry an item alone.
fn drop_residuals<B: AutodiffBackend>(
    events: Tensor<B, 2>,
    config: &NetworkConfig,
    device: &B::Device,
) -> Tensor<B, 2> {
    if config.residual_dropout == 0.0 || config.residual_width == 0 {
        return events;
    }
    let [rows, width] = events.dims();
    let split = width - config.residual_width;
    let kept = Tensor::<B, 2>::random([rows, 1], Distribution::Bernoulli(1.0 - config.residual_dropout), device);
    let tokens = events.clone().slice([0..rows, 0..split]);
    Tensor::cat(vec![tokens, events.slice([0..rows, split..width]) * kept], 1)
}

fn ints<B: Backend>(values: &[usize], device: &B::Device) -> Tensor<B, 1, Int> {
    let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}

impl Losses {
    fn add(&mut self, other: Losses) {
        self.scorer += other.scorer;
        self.begin += other.begin;
        self.steps += other.steps;
        self.category += other.category;
    }

    fn over(self, steps: usize) -> Losses {
        let share = 1.0 / steps.max(1) as f32;
        Losses {
            scorer: self.scorer * share,
            begin: self.begin * share,
            steps: self.steps * share,
            category: self.category * share,
        }
    }
}
