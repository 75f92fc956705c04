//! The gradient descent that MPQ and the RQ-VAE share: passes without quantisation, codebooks placed among the latents,
//! passes with it, dead entries placed anew.

use burn::module::{AutodiffModule, Param};
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::codebook_learning::CodebookLearning;
use super::fit::{FitProgress, LossParts};
use super::matrix::host;
use super::nearest::row_tensor;
use super::{FeatureTable, TokenizerError};

/// Items whose latents place the entries at the start.
const PLACING_SAMPLE: usize = 16_384;
/// Share of the steps over which the learning rate rises.
const RISE: f64 = 0.05;
/// Share of the highest learning rate that it falls to.
const LOWEST_RATE: f64 = 0.02;
/// Dead entries are placed anew in this share of the epochs; after that, everything settles.
const PLACING_SHARE: f64 = 0.8;

/// How long and how fast to learn.
pub(super) struct Schedule {
    /// Passes without quantisation.
    pub warmup_epochs: usize,
    /// Passes with it, at least 1.
    pub epochs: usize,
    /// Items a step.
    pub batch: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// AdamW's weight decay.
    pub weight_decay: f32,
}

/// One batch's loss and what the codebooks learn from it.
pub(super) struct Forward<B: AutodiffBackend> {
    /// What is differentiated: `[1]`.
    pub loss: Tensor<B, 1>,
    /// Reconstruction, quantisation, orthogonality: `[3]`.
    pub parts: Tensor<B::InnerBackend, 1>,
    /// The vectors that the codebooks quantise, `[M, batch, L]`; empty without quantisation.
    pub latents: Vec<f32>,
    /// `[M, batch]`; empty without quantisation.
    pub codes: Vec<u16>,
}

/// A network that learns to quantise.
pub(super) trait Learner<B: AutodiffBackend> {
    /// Encoder, decoder and codebooks.
    type Network: AutodiffModule<B>;

    /// The loss of these rows (`[batch, W]`); no codebooks, no quantisation.
    fn forward(&self, network: &Self::Network, rows: Tensor<B, 2>, codebooks: Option<&CodebookLearning>) -> Forward<B>;

    /// Entries among the latents of these rows (`[sample, W]`).
    fn place(
        &self,
        network: &Self::Network,
        rows: Tensor<B::InnerBackend, 2>,
        random: &mut ChaCha8Rng,
    ) -> CodebookLearning;

    /// The network with these entries.
    fn with_codebooks(&self, network: Self::Network, codebooks: &CodebookLearning) -> Self::Network;

    /// The network's entries, `[M, D, L]`, where gradients move them; none where a moving average does.
    fn entries(&self, network: &Self::Network) -> Option<Vec<f32>>;
}

/// Learns from the rows, and tells `progress` of every epoch.
///
/// # Errors
/// A loss that is not finite.
pub(super) fn learn<B: AutodiffBackend, L: Learner<B>>(
    learner: &L,
    mut network: L::Network,
    features: &FeatureTable,
    schedule: &Schedule,
    random: &mut ChaCha8Rng,
    device: &B::Device,
    progress: &mut dyn FnMut(&FitProgress),
) -> Result<L::Network, TokenizerError> {
    let mut optimizer = AdamWConfig::new().with_weight_decay(schedule.weight_decay).with_epsilon(1e-8).init();
    let mut codebooks: Option<CodebookLearning> = None;
    let mut order: Vec<usize> = (0..features.items()).collect();
    let (batch, epochs) = (schedule.batch.min(order.len()), schedule.warmup_epochs + schedule.epochs);
    let steps = order.len().div_ceil(batch) * epochs;
    let mut step = 0;
    for epoch in 0..epochs {
        if epoch == schedule.warmup_epochs {
            let sample = rows::<B::InnerBackend>(features, &even_sample(features.items()), device);
            let placed = learner.place(&network, sample, random);
            network = learner.with_codebooks(network, &placed);
            codebooks = Some(placed);
        }
        order.shuffle(random);
        let mut sums = Tensor::<B::InnerBackend, 1>::zeros([3], device);
        let mut last_latents = Vec::new();
        let mut last_items = 0;
        for items in order.chunks(batch) {
            let forward = learner.forward(&network, rows(features, items, device), codebooks.as_ref());
            sums = sums + forward.parts.mul_scalar(items.len() as f32);
            let gradients = GradientsParams::from_grads(forward.loss.backward(), &network);
            network = optimizer.step(learning_rate(schedule.learning_rate, step, steps), network, gradients);
            step += 1;
            if let Some(codebooks) = &mut codebooks {
                match learner.entries(&network) {
                    None => {
                        codebooks.absorb(&forward.latents, &forward.codes);
                        network = learner.with_codebooks(network, codebooks);
                    }
                    Some(entries) => {
                        codebooks.count(&forward.codes);
                        codebooks.entries = entries;
                    }
                }
                (last_latents, last_items) = (forward.latents, items.len());
            }
        }
        let sums = host(sums);
        let mean = |part: usize| sums[part] / order.len() as f32;
        let loss = LossParts { reconstruction: mean(0), quantisation: mean(1), orthogonality: mean(2) };
        let total = loss.reconstruction + loss.quantisation + loss.orthogonality;
        if !total.is_finite() {
            return Err(TokenizerError::Diverged { epoch: epoch + 1, loss: total });
        }
        let mut report = FitProgress {
            epoch: epoch + 1,
            epochs,
            quantised: codebooks.is_some(),
            loss,
            perplexity: 0.0,
            placed_anew: 0,
        };
        if let Some(codebooks) = &mut codebooks {
            report.perplexity = codebooks.perplexity();
            if ((epoch + 1) as f64) < epochs as f64 * PLACING_SHARE {
                report.placed_anew = codebooks.place_dead_anew(&last_latents, last_items, random);
                network = learner.with_codebooks(network, codebooks);
            }
        }
        progress(&report);
    }
    Ok(network)
}

/// At most [`PLACING_SAMPLE`] of `items` item numbers, evenly spread.
pub(super) fn even_sample(items: usize) -> Vec<usize> {
    let sample = PLACING_SAMPLE.min(items);
    (0..sample).map(|at| at * items / sample).collect()
}

/// A codebook parameter, `[M, D, L]`, with other entries; it takes gradients only where gradients move them.
pub(super) fn replaced<B: AutodiffBackend>(
    codebooks: &Param<Tensor<B, 3>>,
    entries: &[f32],
    by_gradient: bool,
    device: &B::Device,
) -> Param<Tensor<B, 3>> {
    let entries = Tensor::from_data(TensorData::new(entries.to_vec(), codebooks.dims()), device);
    Param::initialized(codebooks.id, entries).set_require_grad(by_gradient)
}

/// The rows of some items: `[items.len(), W]`.
fn rows<B: burn::tensor::backend::Backend>(
    features: &FeatureTable,
    items: &[usize],
    device: &B::Device,
) -> Tensor<B, 2> {
    let rows: Vec<f32> = items.iter().flat_map(|&item| features.row(item).iter().copied()).collect();
    row_tensor(&rows, features.width, device)
}

/// Rises linearly, then falls along a cosine.
fn learning_rate(highest: f64, step: usize, steps: usize) -> f64 {
    let done = (step as f64 + 1.0) / steps as f64;
    if done < RISE {
        return highest * done / RISE;
    }
    let fall = (1.0 + (std::f64::consts::PI * (done - RISE) / (1.0 - RISE)).cos()) / 2.0;
    highest * (LOWEST_RATE + (1.0 - LOWEST_RATE) * fall)
}
