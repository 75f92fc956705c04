//! The fit of the RQ-VAE: L = ||x - x'||^2 + 0.25 sum_l ||r_l - sg(e_{l,c_l})||^2; codebooks by moving average.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::config::RqConfig;
use super::network::{RqVae, layout};
use super::residual::{Residuals, subtract};
use crate::tokenizer::codebook_learning::{CodebookLearning, CodebookSettings};
use crate::tokenizer::learning::{Forward, Learner, Schedule, learn, replaced};
use crate::tokenizer::matrix::{gaussian, host};
use crate::tokenizer::nearest::chosen_entries;
use crate::tokenizer::tensors::NamedTensor;
use crate::tokenizer::{FeatureTable, FitProgress, TokenizerError};

/// The fitted network's tensors, in the order of its layout.
pub(in crate::tokenizer) fn fit<B: AutodiffBackend>(
    features: &FeatureTable,
    config: &RqConfig,
    device: &B::Device,
    progress: &mut dyn FnMut(&FitProgress),
) -> Result<Vec<NamedTensor>, TokenizerError> {
    let mut random = ChaCha8Rng::seed_from_u64(config.seed);
    let network = RqVae::<B>::from_tensors(&initial(config, features.width, &mut random), device);
    let schedule = Schedule {
        warmup_epochs: config.warmup_epochs,
        epochs: config.epochs,
        batch: config.batch,
        learning_rate: config.learning_rate,
        weight_decay: config.weight_decay,
    };
    let learner = RqLearner::<B> { config, device };
    let network = learn(&learner, network, features, &schedule, &mut random, device, progress)?;
    Ok(network.to_tensors(config, features.width))
}

/// Random weights by He's rule, halved in variance where no ReLU follows; biases and codebooks at zero.
fn initial(config: &RqConfig, width: usize, random: &mut ChaCha8Rng) -> Vec<NamedTensor> {
    let last = format!(".{}.weight", config.hidden.len());
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let count = shape.iter().product();
        let data = if name.ends_with(".weight") {
            let gain: f32 = if name.ends_with(&last) { 1.0 } else { 2.0 };
            let spread = (gain / shape[0] as f32).sqrt();
            gaussian(count, random).into_iter().map(|value| value * spread).collect()
        } else {
            vec![0.0; count]
        };
        NamedTensor { name, shape, data }
    };
    layout(config, width).into_iter().map(tensor).collect()
}

struct RqLearner<'a, B: AutodiffBackend> {
    config: &'a RqConfig,
    device: &'a B::Device,
}

impl<B: AutodiffBackend> RqLearner<'_, B> {
    fn shape(&self) -> [usize; 3] {
        [self.config.levels, self.config.entries, self.config.latent]
    }
}

impl<B: AutodiffBackend> Learner<B> for RqLearner<'_, B> {
    type Network = RqVae<B>;

    fn forward(&self, network: &RqVae<B>, rows: Tensor<B, 2>, codebooks: Option<&CodebookLearning>) -> Forward<B> {
        let [items, width] = rows.dims();
        let [levels, _, latent] = self.shape();
        let latents = network.encode(rows.clone()); // [batch, latent]
        let mut passed = latents.clone();
        let mut loss = Tensor::zeros([1], self.device);
        let mut quantisation = Tensor::zeros([1], self.device);
        let mut kept = (Vec::new(), Vec::new());
        if let Some(codebooks) = codebooks {
            let encoded = host(latents.clone().inner());
            let found = Residuals::of::<B::InnerBackend>(&encoded, &codebooks.entries, self.shape(), self.device);
            // Entries added up over the levels, [L, batch, latent]: the last sum is the quantised latent.
            let mut sums = chosen_entries(&codebooks.entries, self.shape(), &found.codes);
            (items * latent..sums.len()).for_each(|at| sums[at] += sums[at - items * latent]);
            let quantised = sums[(levels - 1) * items * latent..].to_vec();
            let quantised = Tensor::<B, 2>::from_data(TensorData::new(quantised, [items, latent]), self.device);
            let sums = Tensor::<B, 3>::from_data(TensorData::new(sums, [levels, items, latent]), self.device);
            // r_l - e_{l,c_l} is the latent less the entries up to level l.
            let left = latents.clone().unsqueeze::<3>() - sums; // [L, batch, latent]
            let commitment = left.powi_scalar(2).sum().div_scalar(items as f32);
            quantisation = commitment.clone().detach();
            loss = commitment.mul_scalar(self.config.commitment);
            // Straight through: forward the entries, backward as if they were the latent.
            passed = latents.clone() + (quantised - latents).detach();
            kept = (found.residuals, found.codes);
        }
        let reconstruction = (rows - network.decode(passed)).powi_scalar(2).sum().div_scalar(items as f32);
        let parts = vec![
            reconstruction.clone().inner().div_scalar(width as f32),
            quantisation.inner(),
            Tensor::zeros([1], self.device),
        ];
        Forward { loss: loss + reconstruction, parts: Tensor::cat(parts, 0), latents: kept.0, codes: kept.1 }
    }

    /// Level after level: each is placed among what the levels before left over.
    fn place(&self, network: &RqVae<B>, rows: Tensor<B::InnerBackend, 2>, random: &mut ChaCha8Rng) -> CodebookLearning {
        let config = self.config;
        let settings = CodebookSettings {
            shape: [1, config.entries, config.latent],
            kmeans_rounds: config.kmeans_rounds,
            decay: config.ema_decay,
            dead_share: config.dead_share,
            batch: config.batch,
        };
        let mut residual = host(network.valid().encode(rows));
        CodebookLearning::joined(config.levels, || {
            let level = CodebookLearning::place::<B::InnerBackend>(&settings, &residual, random, self.device);
            let chosen = Residuals::of::<B::InnerBackend>(&residual, &level.entries, settings.shape, self.device);
            subtract(&mut residual, &level.entries, &chosen.codes, config.latent);
            level
        })
    }

    fn with_codebooks(&self, mut network: RqVae<B>, codebooks: &CodebookLearning) -> RqVae<B> {
        network.codebooks = replaced(&network.codebooks, &codebooks.entries, false, self.device);
        network
    }

    fn entries(&self, _network: &RqVae<B>) -> Option<Vec<f32>> {
        None
    }
}
