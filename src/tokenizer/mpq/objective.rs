//! Where MPQ's fit starts from, and how it keeps the experts apart.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rand_chacha::ChaCha8Rng;

use super::config::MpqConfig;
use super::network::{Mpq, layout};
use crate::tokenizer::matrix::gaussian;
use crate::tokenizer::tensors::NamedTensor;

/// Random weights by He's rule; biases and gate start at zero, so that every expert weighs the same.
pub(super) fn initial(config: &MpqConfig, width: usize, random: &mut ChaCha8Rng) -> Vec<NamedTensor> {
    layout(config, width)
        .into_iter()
        .map(|(name, shape)| {
            let count = shape.iter().product();
            let inputs = shape[shape.len() - 2] as f32;
            let spread = match name.as_str() {
                "expert_in" | "decoder_in" => (2.0 / inputs).sqrt(),
                "expert_out" | "decoder_out" => (1.0 / inputs).sqrt(),
                _ => 0.0,
            };
            let data = if spread > 0.0 {
                gaussian(count, random).into_iter().map(|value| value * spread).collect()
            } else {
                vec![0.0; count]
            };
            NamedTensor { name, shape, data }
        })
        .collect()
}

/// Mean over r < s of cos^2(e_r, e_s), averaged over the batch; 0 for one codebook.
///
/// # Shapes
/// - latents: `[M, batch, L]`
/// - output: `[1]`
pub(super) fn latent_overlap<B: Backend>(latents: Tensor<B, 3>) -> Tensor<B, 1> {
    let [codebooks, batch, _] = latents.dims();
    let length = latents.clone().powi_scalar(2).sum_dim(2).add_scalar(1e-12).sqrt(); // [M, batch, 1]
    let unit = (latents / length).swap_dims(0, 1); // [batch, M, L]
    let cosines = unit.clone().matmul(unit.swap_dims(1, 2)); // [batch, M, M]
    // The sum of all squares counts each pair twice and each of the M ones on the diagonal once.
    let pairs = (codebooks * codebooks.saturating_sub(1)).max(1) as f32;
    cosines.powi_scalar(2).sum().div_scalar(batch as f32).sub_scalar(codebooks as f32).div_scalar(pairs)
}

/// ||V V^T - I||^2 with expert r's first-layer weights, at unit length, as row r of V: `[1]`.
pub(super) fn parameter_overlap<B: Backend>(network: &Mpq<B>) -> Tensor<B, 1> {
    let [codebooks, width, hidden] = network.expert_in.dims();
    let flat = network.expert_in.val().reshape([codebooks, width * hidden]);
    let unit = flat.clone() / flat.powi_scalar(2).sum_dim(1).add_scalar(1e-12).sqrt();
    let identity = Tensor::<B, 2>::eye(codebooks, &unit.device());
    (unit.clone().matmul(unit.transpose()) - identity).powi_scalar(2).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use burn::backend::{Autodiff, Flex};
    use burn::tensor::TensorData;
    use rand::SeedableRng;

    use super::*;
    use crate::tokenizer::matrix::host;
    use crate::tokenizer::nearest::nearest;

    type Trained = Autodiff<Flex>;

    fn network(config: &MpqConfig, width: usize) -> Mpq<Trained> {
        let mut random = ChaCha8Rng::seed_from_u64(4);
        Mpq::from_tensors(&initial(config, width, &mut random), config.gated, &Default::default())
    }

    fn rows(items: usize, width: usize) -> Tensor<Trained, 2> {
        let data = gaussian(items * width, &mut ChaCha8Rng::seed_from_u64(5));
        Tensor::from_data(TensorData::new(data, [items, width]), &Default::default())
    }

    #[test]
    fn gradients_reach_every_expert_the_gate_and_the_decoder() {
        let config = MpqConfig { codebooks: 5, entries: 8, latent: 4, hidden: 6, ..MpqConfig::default() };
        let network = network(&config, 7);
        let rows = rows(32, 7);
        let latents = network.latents(rows.clone());
        let codes = (latents.clone().detach() * 0.9 - latents.clone()).detach() + latents;
        let loss = (network.reconstruct(rows.clone(), codes) - rows).powi_scalar(2).sum();
        let gradients = loss.backward();
        for (name, weights) in [("expert_in", &network.expert_in), ("expert_out", &network.expert_out)] {
            let gradient = host(weights.grad(&gradients).expect(name));
            for (expert, gradient) in gradient.chunks(gradient.len() / 5).enumerate() {
                assert!(gradient.iter().any(|&value| value.abs() > 1e-6), "{name}, expert {expert}");
            }
        }
        let gate = network.gate.as_ref().expect("it is gated");
        for (name, weights) in [("gate", gate), ("decoder_in", &network.decoder_in)] {
            let gradient = host(weights.grad(&gradients).expect(name));
            assert!(gradient.iter().any(|&value| value.abs() > 1e-6), "{name}");
        }
    }

    #[test]
    fn latent_overlap_is_the_mean_squared_cosine_of_pairs() {
        let (codebooks, items, latent) = (3, 4, 5);
        let data = gaussian(codebooks * items * latent, &mut ChaCha8Rng::seed_from_u64(6));
        let tensor = Tensor::from_data(TensorData::new(data.clone(), [codebooks, items, latent]), &Default::default());
        let found = host(latent_overlap::<Flex>(tensor))[0];
        let at = |r: usize, item: usize| &data[(r * items + item) * latent..(r * items + item + 1) * latent];
        let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        let mut expected = 0.0;
        for item in 0..items {
            for (r, s) in [(0, 1), (0, 2), (1, 2)] {
                let (a, b) = (at(r, item), at(s, item));
                expected += product(a, b).powi(2) / (product(a, a) * product(b, b)) / (3 * items) as f32;
            }
        }
        assert!((found - expected).abs() < 1e-5, "{found} against {expected}");
    }

    #[test]
    fn the_nearest_entry_has_the_least_distance() {
        let (codebooks, items, entries, latent) = (2, 9, 6, 3);
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let points = gaussian(codebooks * items * latent, &mut random);
        let centres = gaussian(codebooks * entries * latent, &mut random);
        let tensor = |data: &[f32], rows| {
            Tensor::<Flex, 3>::from_data(TensorData::new(data.to_vec(), [codebooks, rows, latent]), &Default::default())
        };
        let found = nearest(tensor(&points, items), tensor(&centres, entries));
        for (at, &entry) in found.iter().enumerate() {
            let codebook = at / items;
            let distance = |entry: usize| -> f32 {
                let centre = &centres[(codebook * entries + entry) * latent..][..latent];
                points[at * latent..][..latent].iter().zip(centre).map(|(a, b)| (a - b).powi(2)).sum()
            };
            let least = (0..entries).map(distance).fold(f32::INFINITY, f32::min);
            assert!((distance(usize::from(entry)) - least).abs() < 1e-5);
        }
    }
}
