//! The loop: epochs of steps, validation after each, a checkpoint, the best weights at the end.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::{AutodiffModule, ParamId};
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, IndexingUpdateOp, Int, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::batches::{Batch, TrainingSet};
use super::catalogue_loss::{ScalarF32, catalogue_loss};
use super::checkpoint::{Checkpoint, CheckpointError};
use super::config::PretrainConfig;
use super::item_tower::{ItemFeatures, ItemTower};
use super::kernels::Kernels;
use super::path_loss::{PathContext, PathTargets, path_loss};
use super::token_loss::token_loss;
use super::validation::{HeldOut, ValidationScores, validate, validate_tokens};
use crate::catalog::Index;
use crate::domain::HistoryEntry;
use crate::evaluation::{EvaluationError, Holders, TokenOrder};
use crate::model::{Listener, Network, NetworkConfig, WeightsError, encoder_batch, load_weights, save_weights};
use crate::training::precision::{Ladq, LadqState, Traces, finite, traces};

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
    /// What layer-adaptive precision knows after it; none when it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ladq: Option<LadqState>,
}

/// What pre-training is given.
#[derive(Debug, Clone, Copy)]
pub struct Lesson<'a> {
    /// The network's sizes.
    pub network: &'a NetworkConfig,
    /// Weights to go on from; none: fresh ones. What a bundle holds is folded, so that it goes with a `feature_width` of 0.
    pub start: Option<&'a [u8]>,
    /// How to learn.
    pub config: &'a PretrainConfig,
    /// Items with their codes and categories.
    pub index: &'a Index,
    /// What to learn from.
    pub training: &'a TrainingSet,
    /// What to stop by.
    pub held_out: &'a [HeldOut],
    /// What is known of the items beside their codes.
    pub features: ItemFeatures<'a>,
    /// Who sums over the catalogue.
    pub kernels: Kernels,
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
    /// Ranking for validation.
    #[error("validation: {0}")]
    Validation(#[from] EvaluationError),
    /// The device did not give its numbers back.
    #[error("reading from the device: {0}")]
    Device(String),
    /// Checkpoints.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The log of steps.
    #[error("writing the log of steps: {0}")]
    Log(std::io::Error),
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
    let mut network = match lesson.start {
        Some(weights) => load_weights::<B>(lesson.network, weights.to_vec(), device)?,
        None => lesson.network.init::<B>(device),
    };
    let mut optimizer = AdamWConfig::new()
        .with_weight_decay(config.weight_decay)
        .with_epsilon(1.0e-8)
        .with_grad_clipping((config.clip > 0.0).then_some(GradientClippingConfig::Norm(config.clip)))
        .init::<B, Network<B>>();
    let mut state = Checkpoint { run: lesson.run.to_string(), reports: Vec::new(), best_epoch: 0 };
    let mut best = Vec::new();
    if lesson.resume
        && let Some((found, weights, path)) = Checkpoint::<EpochReport>::find(lesson.directory)?
        && found.run == state.run
    {
        (network, optimizer) = Checkpoint::<EpochReport>::load::<B, _, _>(&path, network, optimizer, device)?;
        (state, best) = (found, weights);
    }
    let ladq = state.reports.last().and_then(|report| report.ladq.clone());
    let mut ladq = Ladq::new(config.ladq, ladq, &network);
    let tower = ItemTower::<B>::new(lesson.network, lesson.index.codes(), lesson.features, lesson.kernels, device);
    let order = config.objective.token_order();
    let of_tokens = order.map(|order| (order, Holders::of(lesson.index.codes())));
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
            let at = epoch * steps_per_epoch + step;
            let reduced = ladq.applied(&network);
            let listener = ladq.samples(at).then(Listener::<B>::start);
            let learnt = learn(&reduced, &tower, of_tokens.as_ref(), lesson, batch, listener, &mut random, device)?;
            let Learnt { losses, gradients, traces } = learnt;
            let total = losses.scorer + losses.begin + losses.steps + losses.category;
            if !total.is_finite() {
                return Err(PretrainError::Diverged { epoch, step, loss: total });
            }
            if let Some(traces) = traces {
                ladq.sample(&network, &traces, at);
            }
            ladq.watch(total);
            let rate = config.rate(at, config.epochs * steps_per_epoch);
            network = optimizer.step(rate, network, gradients);
            sums.add(losses);
            done += batch.windows.len();
            let sequences_per_second = done as f64 / started.elapsed().as_secs_f64().max(1.0e-9);
            progress(Progress::Step { losses: sums.over(step + 1), sequences_per_second });
        }
        let seconds = started.elapsed().as_secs_f64();
        let plain = network.valid();
        // The last step's loss was of the weights before it.
        if !finite(&plain) {
            return Err(PretrainError::Diverged { epoch, step: batches.len(), loss: f32::NAN });
        }
        let plain = match tower.features() {
            Some(features) => plain.folded(features),
            None => plain,
        };
        let codes = lesson.index.codes();
        let validation = match order {
            None => validate(&plain, codes, lesson.held_out, lesson.network.max_history, device)?,
            Some(order) => validate_tokens(&plain, codes, lesson.held_out, lesson.network, order, device)?,
        };
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
            ladq: ladq.state(),
        });
        state.save::<B, _, _>(lesson.directory, &network, &optimizer, &best)?;
        progress(Progress::Done(&state.reports[epoch]));
    }
    Ok(Pretrained { weights: best, reports: state.reports, best_epoch: state.best_epoch })
}

/// What one pass and back came to.
struct Learnt {
    losses: Losses,
    /// Of all parameters.
    gradients: GradientsParams,
    /// K-FAC traces of the linear layers, where they were listened to.
    traces: Option<HashMap<ParamId, Traces>>,
}

/// One pass over one batch and back. With `of_tokens`, only tokens are learnt.
#[allow(clippy::too_many_arguments)]
fn learn<B: AutodiffBackend>(
    network: &Network<B>,
    tower: &ItemTower<'_, B>,
    of_tokens: Option<&(TokenOrder, Holders<'_>)>,
    lesson: Lesson<'_>,
    batch: &Batch,
    listener: Option<Listener<B>>,
    random: &mut ChaCha8Rng,
    device: &B::Device,
) -> Result<Learnt, PretrainError> {
    let config = lesson.config;
    let windows: Vec<&[HistoryEntry]> = batch.windows.iter().map(|&at| lesson.training.window(at)).collect();
    let (rows, length) = (windows.len(), batch.length);
    let inputs: Vec<&[HistoryEntry]> = windows.iter().map(|window| &window[..window.len() - 1]).collect();
    let places = Places::of(&inputs, length, random);
    let targets: Vec<u32> = windows.iter().flat_map(|window| window[1..].iter().map(|event| event.item)).collect();

    let newcomers = newcomers(lesson.index.len(), config.newcomers, random);
    let items = tower.vectors(network, &newcomers)?;
    let encoded = encoder_batch::<B>(&inputs, length, lesson.network.max_history, device);
    // Only the events' rows enter the graph: what comes back at them is a batch, not a catalogue.
    let events = items.vectors.clone().select(0, encoded.items.clone().inner()); // [rows * length, d]
    let events = Tensor::<B, 2>::from_inner(events).require_grad();
    let states = network.encode(&encoded, events.clone()); // [rows * length, d]
    if let Some((order, holders)) = of_tokens {
        let loss = token_loss(network, states, rows, (&places.targets, &targets), holders, *order, random);
        let losses = Losses { scorer: loss.clone().inner().into_scalar_f32(), ..Losses::default() };
        let mut found = loss.backward();
        let traces = listener.map(|listener| traces(&listener.stop(), &found));
        let by_events = events.grad_remove(&mut found);
        let mut gradients = GradientsParams::from_grads(found, network);
        if let Some(by_events) = by_events {
            let by_vectors = items.vectors.zeros_like();
            let by_vectors = by_vectors.select_assign(0, encoded.items.inner(), by_events, IndexingUpdateOp::Add);
            tower.hand_on(network, &items, by_vectors, &mut gradients)?;
        }
        return Ok(Learnt { losses, gradients, traces });
    }
    let queries = states.clone().select(0, ints(&places.targets, device)); // [targets, d]
    // With path loss off, no row's probabilities are wanted.
    let keep: &[usize] = if config.path_weight > 0.0 { &places.chosen } else { &[] };
    let scorer = catalogue_loss(
        queries.clone().inner(),
        items.vectors.clone(),
        &targets,
        config.label_smoothing,
        keep,
        true,
        lesson.kernels,
    )?;
    let mut losses = Losses { scorer: scorer.value, ..Losses::default() };
    // Its gradient by the queries is the loss's; its value is of no meaning.
    let mut surrogate = (queries.clone() * Tensor::from_inner(scorer.by_queries)).sum();

    if config.path_weight > 0.0 {
        let targets = places.chosen.iter().map(|&row| targets[row]).collect();
        let (steps, candidates) = (config.path_steps, config.path_candidates);
        let paths = PathTargets::choose(lesson.index, targets, &scorer.probabilities, steps, candidates, random);
        // Constants: a path loss that moves the encoder takes from the scorer more than it gives.
        let context = PathContext {
            queries: queries.inner().select(0, ints(&places.chosen, device)),
            history: network.history_memory(states.detach(), rows),
            hidden: places.hidden(rows, length, device),
            items: items.vectors.clone(),
            token_sums: items.token_sums.clone(),
            tokens: network.tokens().inner(),
            kernels: lesson.kernels,
        };
        let path =
            path_loss(network, context, &paths, lesson.index.codes(), config.path_weight, config.category_weight)?;
        losses = Losses { begin: path.begin, steps: path.steps, category: path.category, ..losses };
        surrogate = surrogate + path.surrogate;
    }

    let mut found = surrogate.backward();
    let traces = listener.map(|listener| traces(&listener.stop(), &found));
    let by_events = events.grad_remove(&mut found);
    let mut gradients = GradientsParams::from_grads(found, network);
    if let (Some(by_items), Some(by_events)) = (scorer.by_items, by_events) {
        let by_vectors = by_items.select_assign(0, encoded.items.inner(), by_events, IndexingUpdateOp::Add);
        tower.hand_on(network, &items, by_vectors, &mut gradients)?;
    }
    Ok(Learnt { losses, gradients, traces })
}

/// The items that a step shows as newcomers.
fn newcomers(items: usize, share: f32, random: &mut ChaCha8Rng) -> Vec<u32> {
    if share == 0.0 {
        return Vec::new();
    }
    (0..items as u32).filter(|_| random.random::<f32>() < share).collect()
}

/// The numbers of a tensor, row after row.
pub(in crate::training) fn read<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<f32>, PretrainError> {
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
