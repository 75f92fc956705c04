//! The fit of MPQ: L = ||x - x'||^2 + sum_r (||sg(e_r) - z_r||^2 + 0.25 ||e_r - sg(z_r)||^2) + lambda_o L_orth.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Int, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::config::{CodebookUpdate, MpqConfig, Orthogonality};
use super::network::Mpq;
use super::objective::{initial, latent_overlap, parameter_overlap};
use crate::tokenizer::codebook_learning::{CodebookLearning, CodebookSettings};
use crate::tokenizer::learning::{Forward, Learner, Schedule, learn, replaced};
use crate::tokenizer::matrix::host;
use crate::tokenizer::nearest::{chosen_entries, nearest};
use crate::tokenizer::tensors::NamedTensor;
use crate::tokenizer::{FeatureTable, FitProgress, TokenizerError};

/// The fitted network's tensors, in the order of its layout.
pub(in crate::tokenizer) fn fit<B: AutodiffBackend>(
    features: &FeatureTable,
    config: &MpqConfig,
    device: &B::Device,
    progress: &mut dyn FnMut(&FitProgress),
) -> Result<Vec<NamedTensor>, TokenizerError> {
    let mut random = ChaCha8Rng::seed_from_u64(config.seed);
    let tensors = initial(config, features.width, &mut random);
    let network = Mpq::<B>::from_tensors(&tensors, config.gated, device);
    let schedule = Schedule {
        warmup_epochs: config.warmup_epochs,
        epochs: config.epochs,
        batch: config.batch,
        learning_rate: config.learning_rate,
        weight_decay: config.weight_decay,
    };
    let learner = MpqLearner::<B> { config, device };
    let network = learn(&learner, network, features, &schedule, &mut random, device, progress)?;
    Ok(network.to_tensors(config, features.width))
}

struct MpqLearner<'a, B: AutodiffBackend> {
    config: &'a MpqConfig,
    device: &'a B::Device,
}

impl<B: AutodiffBackend> Learner<B> for MpqLearner<'_, B> {
    type Network = Mpq<B>;

    fn forward(&self, network: &Mpq<B>, rows: Tensor<B, 2>, codebooks: Option<&CodebookLearning>) -> Forward<B> {
        let config = self.config;
        let [items, width] = rows.dims();
        let shape = [config.codebooks, items, config.latent];
        let latents = network.latents(rows.clone()); // [M, batch, L]
        let overlap = match config.orthogonality {
            Orthogonality::Latents => latent_overlap(latents.clone()),
            Orthogonality::Parameters => parameter_overlap(network),
        };
        let per_item = |tensor: Tensor<B, 3>| tensor.powi_scalar(2).sum().div_scalar(items as f32);
        let mut quantisation = Tensor::zeros([1], self.device);
        let mut passed = latents.clone();
        let mut kept = (Vec::new(), Vec::new());
        let mut loss = if config.lambda_orth > 0.0 {
            overlap.clone().mul_scalar(config.lambda_orth)
        } else {
            Tensor::zeros([1], self.device)
        };
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
        let reconstruction = (rows - rebuilt).powi_scalar(2).sum().div_scalar(items as f32);
        let parts =
            vec![reconstruction.clone().inner().div_scalar(width as f32), quantisation.inner(), overlap.inner()];
        Forward { loss: loss + reconstruction, parts: Tensor::cat(parts, 0), latents: kept.0, codes: kept.1 }
    }

    fn place(&self, network: &Mpq<B>, rows: Tensor<B::InnerBackend, 2>, random: &mut ChaCha8Rng) -> CodebookLearning {
        let config = self.config;
        let settings = CodebookSettings {
            shape: [config.codebooks, config.entries, config.latent],
            kmeans_rounds: config.kmeans_rounds,
            decay: config.ema_decay,
            dead_share: config.dead_share,
            batch: config.batch,
        };
        let latents = host(network.valid().latents(rows));
        CodebookLearning::place::<B::InnerBackend>(&settings, &latents, random, self.device)
    }

    fn with_codebooks(&self, mut network: Mpq<B>, codebooks: &CodebookLearning) -> Mpq<B> {
        let by_gradient = self.config.update == CodebookUpdate::Gradient;
        network.codebooks = replaced(&network.codebooks, &codebooks.entries, by_gradient, self.device);
        network
    }

    fn entries(&self, network: &Mpq<B>) -> Option<Vec<f32>> {
        (self.config.update == CodebookUpdate::Gradient).then(|| host(network.codebooks.val()))
    }
}

impl<B: AutodiffBackend> MpqLearner<'_, B> {
    /// The chosen entries with their gradients: `[M, batch, L]`.
    fn select_entries(&self, network: &Mpq<B>, codes: &[u16], shape: [usize; 3]) -> Tensor<B, 3> {
        let [codebooks, entries, latent] = network.codebooks.dims();
        let place = |(at, &entry): (usize, &u16)| ((at / shape[1]) * entries + usize::from(entry)) as i32;
        let places: Vec<i32> = codes.iter().enumerate().map(place).collect();
        let places = Tensor::<B, 1, Int>::from_data(TensorData::new(places, [codes.len()]), self.device);
        network.codebooks.val().reshape([codebooks * entries, latent]).select(0, places).reshape(shape)
    }
}
