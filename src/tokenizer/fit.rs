//! The fit of MPQ: L = ||x - x'||^2 + sum_r (||sg(e_r) - z_r||^2 + 0.25 ||e_r - sg(z_r)||^2) + lambda_o L_orth.

use burn::module::{AutodiffModule, Param};
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Int, Tensor, TensorData};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::assign::assign;
use super::codebook_learning::CodebookLearning;
use super::matrix::host;
use super::network::{Mpq, chosen_entries, nearest};
use super::objective::{initial, latent_overlap, parameter_overlap};
use super::{CodebookUpdate, Diagnostics, FeatureTable, MpqConfig, Orthogonality, Tokenizer, TokenizerError};
use crate::domain::CodeTable;

/// Items whose latents place the entries at the start.
const PLACING_SAMPLE: usize = 16_384;
/// Share of the steps over which the learning rate rises.
const RISE: f64 = 0.05;
/// Share of the highest learning rate that it falls to.
const LOWEST_RATE: f64 = 0.02;
/// Dead entries are placed anew in this share of the epochs; after that, everything settles.
const PLACING_SHARE: f64 = 0.8;

/// The parts of the loss, averaged over an epoch; squared lengths are per item.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LossParts {
    /// ||x - x'||^2, divided by the row's width.
    pub reconstruction: f32,
    /// sum_r ||e_r - z_r||^2, the codebook loss and the commitment loss alike.
    pub quantisation: f32,
    /// The orthogonality loss, before its weight.
    pub orthogonality: f32,
}

/// Where a fit stands after an epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FitProgress {
    /// From 1; the passes without quantisation come first.
    pub epoch: usize,
    /// In all.
    pub epochs: usize,
    /// Whether this pass quantised.
    pub quantised: bool,
    /// The loss.
    pub loss: LossParts,
    /// Mean perplexity of the codebooks; 0 before there are any.
    pub perplexity: f32,
    /// Entries that were dead and placed anew.
    pub placed_anew: usize,
}

/// What a fit gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// Tokenises later items.
    pub tokenizer: Tokenizer,
    /// The items' codes after collision-aware assignment.
    pub codes: CodeTable,
    /// How good they are.
    pub diagnostics: Diagnostics,
}

/// Fits MPQ to the rows and gives every item its code. `progress` is told of every epoch.
///
/// The outcome depends on the rows, the settings and the backend, not on the number of threads.
///
/// # Errors
/// Settings out of range, no items, a loss that is not finite, or more items than codes.
pub fn fit<B: AutodiffBackend>(
    features: &FeatureTable,
    config: &MpqConfig,
    device: &B::Device,
    progress: &mut dyn FnMut(&FitProgress),
) -> Result<Fitted, TokenizerError> {
    config.validate().map_err(TokenizerError::Settings)?;
    if features.rows.is_empty() {
        return Err(TokenizerError::NoFeatures("there are no items".to_owned()));
    }
    let network = Trainer::<B>::new(features, config, device).run(progress)?;
    let tensors = network.to_tensors(config, features.width);
    let tokenizer = Tokenizer { config: config.clone(), features: features.model.clone(), tensors };
    let nearest = tokenizer.tokenize(features)?;
    let assignment = assign(&tokenizer, features, &nearest, config.max_collisions)?;
    let diagnostics = Diagnostics::measure(&tokenizer, features, &nearest, &assignment)?;
    Ok(Fitted { tokenizer, codes: assignment.codes, diagnostics })
}

struct Trainer<'a, B: AutodiffBackend> {
    features: &'a FeatureTable,
    config: &'a MpqConfig,
    device: &'a B::Device,
    random: ChaCha8Rng,
}

/// One batch's loss and what the codebooks learn from it.
struct Forward<B: AutodiffBackend> {
    loss: Tensor<B, 1>,
    /// Reconstruction, quantisation, orthogonality: `[3]`.
    parts: Tensor<B::InnerBackend, 1>,
    /// `[M, batch, L]`; empty without quantisation.
    latents: Vec<f32>,
    /// `[M, batch]`; empty without quantisation.
    codes: Vec<u16>,
}

impl<'a, B: AutodiffBackend> Trainer<'a, B> {
    fn new(features: &'a FeatureTable, config: &'a MpqConfig, device: &'a B::Device) -> Self {
        Self { features, config, device, random: ChaCha8Rng::seed_from_u64(config.seed) }
    }

    fn run(mut self, progress: &mut dyn FnMut(&FitProgress)) -> Result<Mpq<B>, TokenizerError> {
        let config = self.config;
        let tensors = initial(config, self.features.width, &mut self.random);
        let mut network = Mpq::<B>::from_tensors(&tensors, self.device);
        let mut optimizer = AdamWConfig::new().with_weight_decay(config.weight_decay).with_epsilon(1e-8).init();
        let mut codebooks: Option<CodebookLearning> = None;
        let mut order: Vec<usize> = (0..self.features.items()).collect();
        let (batch, epochs) = (config.batch.min(order.len()), config.warmup_epochs + config.epochs);
        let steps = order.len().div_ceil(batch) * epochs;
        let mut step = 0;
        for epoch in 0..epochs {
            if epoch == config.warmup_epochs {
                let placed = self.place_codebooks(&network);
                network = with_codebooks(network, &placed, config, self.device);
                codebooks = Some(placed);
            }
            order.shuffle(&mut self.random);
            let mut sums = Tensor::<B::InnerBackend, 1>::zeros([3], self.device);
            let mut last_latents = Vec::new();
            for items in order.chunks(batch) {
                let forward = self.forward(&network, items, codebooks.as_ref());
                sums = sums + forward.parts.mul_scalar(items.len() as f32);
                let gradients = GradientsParams::from_grads(forward.loss.backward(), &network);
                network = optimizer.step(learning_rate(config.learning_rate, step, steps), network, gradients);
                step += 1;
                if let Some(codebooks) = &mut codebooks {
                    match config.update {
                        CodebookUpdate::Ema => {
                            codebooks.absorb(&forward.latents, &forward.codes);
                            network = with_codebooks(network, codebooks, config, self.device);
                        }
                        CodebookUpdate::Gradient => {
                            codebooks.count(&forward.codes);
                            codebooks.entries = host(network.codebooks.val());
                        }
                    }
                    last_latents = forward.latents;
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
                    let rows = last_latents.len() / config.codebooks / config.latent;
                    report.placed_anew = codebooks.place_dead_anew(&last_latents, rows, &mut self.random);
                    network = with_codebooks(network, codebooks, config, self.device);
                }
            }
            progress(&report);
        }
        Ok(network)
    }

    /// Entries among the latents of an even sample of the items.
    fn place_codebooks(&mut self, network: &Mpq<B>) -> CodebookLearning {
        let items = self.features.items();
        let sample = PLACING_SAMPLE.min(items);
        let rows: Vec<usize> = (0..sample).map(|at| at * items / sample).collect();
        let latents = network.valid().latents(self.rows(&rows).inner());
        CodebookLearning::place::<B::InnerBackend>(self.config, &host(latents), &mut self.random, self.device)
    }

    fn forward(&self, network: &Mpq<B>, items: &[usize], codebooks: Option<&CodebookLearning>) -> Forward<B> {
        let config = self.config;
        let shape = [config.codebooks, items.len(), config.latent];
        let rows = self.rows(items);
        let latents = network.latents(rows.clone()); // [M, batch, L]
        let overlap = match config.orthogonality {
            Orthogonality::Latents => latent_overlap(latents.clone()),
            Orthogonality::Parameters => parameter_overlap(network),
        };
        let per_item = |tensor: Tensor<B, 3>| tensor.powi_scalar(2).sum().div_scalar(items.len() as f32);
        let mut quantisation = Tensor::zeros([1], self.device);
        let mut passed = latents.clone();
        let mut kept = (Vec::new(), Vec::new());
        let mut loss = overlap.clone().mul_scalar(config.lambda_orth);
        if let Some(codebooks) = codebooks {
            let codes = nearest(latents.clone().inner(), network.codebooks.val().inner()); // [M, batch]
            let entries = match config.update {
                CodebookUpdate::Ema => {
                    let shape_of_codebooks = [config.codebooks, config.entries, config.latent];
                    let chosen = chosen_entries(&codebooks.entries, shape_of_codebooks, &codes);
                    Tensor::<B, 3>::from_data(TensorData::new(chosen, shape), self.device)
                }
                CodebookUpdate::Gradient => self.select_entries(network, &codes, shape),
            };
            let fixed = entries.clone().detach();
            // Straight through: forward the entries, backward as if they were the latents.
            passed = latents.clone() + (fixed.clone() - latents.clone()).detach();
            let commitment = per_item(latents.clone() - fixed);
            quantisation = commitment.clone().detach();
            loss = loss + commitment.mul_scalar(config.commitment);
            if config.update == CodebookUpdate::Gradient {
                loss = loss + per_item(latents.clone().detach() - entries);
            }
            kept = (host(latents.inner()), codes);
        }
        let rebuilt = network.reconstruct(rows.clone(), passed);
        let reconstruction = (rows - rebuilt).powi_scalar(2).sum().div_scalar(items.len() as f32);
        let parts = vec![
            reconstruction.clone().inner().div_scalar(self.features.width as f32),
            quantisation.inner(),
            overlap.inner(),
        ];
        Forward { loss: loss + reconstruction, parts: Tensor::cat(parts, 0), latents: kept.0, codes: kept.1 }
    }

    /// The chosen entries with their gradients: `[M, batch, L]`.
    fn select_entries(&self, network: &Mpq<B>, codes: &[u16], shape: [usize; 3]) -> Tensor<B, 3> {
        let [codebooks, entries, latent] = network.codebooks.dims();
        let place = |(at, &entry): (usize, &u16)| ((at / shape[1]) * entries + usize::from(entry)) as i32;
        let places: Vec<i32> = codes.iter().enumerate().map(place).collect();
        let places = Tensor::<B, 1, Int>::from_data(TensorData::new(places, [codes.len()]), self.device);
        network.codebooks.val().reshape([codebooks * entries, latent]).select(0, places).reshape(shape)
    }

    fn rows(&self, items: &[usize]) -> Tensor<B, 2> {
        let mut rows = Vec::with_capacity(items.len() * self.features.width);
        items.iter().for_each(|&item| rows.extend_from_slice(self.features.row(item)));
        Tensor::from_data(TensorData::new(rows, [items.len(), self.features.width]), self.device)
    }
}

/// The network with the learned entries; they take gradients only where gradients move them.
fn with_codebooks<B: AutodiffBackend>(
    mut network: Mpq<B>,
    codebooks: &CodebookLearning,
    config: &MpqConfig,
    device: &B::Device,
) -> Mpq<B> {
    let shape = [config.codebooks, config.entries, config.latent];
    let entries = Tensor::from_data(TensorData::new(codebooks.entries.clone(), shape), device);
    network.codebooks =
        Param::initialized(network.codebooks.id, entries).set_require_grad(config.update == CodebookUpdate::Gradient);
    network
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
