//! MPQ's network: an expert per codebook, the gate, the shared decoder.

use burn::module::{Module, Param};
use burn::tensor::activation::{relu, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rand_chacha::ChaCha8Rng;

use super::MpqConfig;
use super::matrix::{gaussian, host};
use super::tensors::NamedTensor;

/// Experts, gate, decoder and codebooks. M experts, D entries, L latent, H hidden, W numbers in a feature row.
#[derive(Module, Debug)]
pub(super) struct Mpq<B: Backend> {
    /// `[M, W, H]`
    expert_in: Param<Tensor<B, 3>>,
    /// `[M, 1, H]`
    expert_in_bias: Param<Tensor<B, 3>>,
    /// `[M, H, L]`
    expert_out: Param<Tensor<B, 3>>,
    /// `[M, 1, L]`
    expert_out_bias: Param<Tensor<B, 3>>,
    /// `[W, M]`
    gate: Param<Tensor<B, 2>>,
    /// `[L, decoder hidden]`
    decoder_in: Param<Tensor<B, 2>>,
    /// `[1, decoder hidden]`
    decoder_in_bias: Param<Tensor<B, 2>>,
    /// `[decoder hidden, W]`
    decoder_out: Param<Tensor<B, 2>>,
    /// `[1, W]`
    decoder_out_bias: Param<Tensor<B, 2>>,
    /// `[M, D, L]`
    pub codebooks: Param<Tensor<B, 3>>,
}

/// The names and shapes of the saved tensors, in the order of [`Mpq`]'s fields.
pub(super) fn layout(config: &MpqConfig, width: usize) -> Vec<(&'static str, Vec<usize>)> {
    let MpqConfig { codebooks: m, entries, latent, hidden, decoder_hidden, .. } = *config;
    vec![
        ("expert_in", vec![m, width, hidden]),
        ("expert_in_bias", vec![m, 1, hidden]),
        ("expert_out", vec![m, hidden, latent]),
        ("expert_out_bias", vec![m, 1, latent]),
        ("gate", vec![width, m]),
        ("decoder_in", vec![latent, decoder_hidden]),
        ("decoder_in_bias", vec![1, decoder_hidden]),
        ("decoder_out", vec![decoder_hidden, width]),
        ("decoder_out_bias", vec![1, width]),
        ("codebooks", vec![m, entries, latent]),
    ]
}

/// Random weights by He's rule; biases and gate start at zero, so that every expert weighs the same.
#[cfg_attr(not(feature = "train"), allow(dead_code))]
pub(super) fn initial(config: &MpqConfig, width: usize, random: &mut ChaCha8Rng) -> Vec<NamedTensor> {
    layout(config, width)
        .into_iter()
        .map(|(name, shape)| {
            let count = shape.iter().product();
            let inputs = shape[shape.len() - 2] as f32;
            let spread = match name {
                "expert_in" | "decoder_in" => (2.0 / inputs).sqrt(),
                "expert_out" | "decoder_out" => (1.0 / inputs).sqrt(),
                _ => 0.0,
            };
            let data = if spread > 0.0 {
                gaussian(count, random).into_iter().map(|value| value * spread).collect()
            } else {
                vec![0.0; count]
            };
            NamedTensor { name: name.to_owned(), shape, data }
        })
        .collect()
}

impl<B: Backend> Mpq<B> {
    /// From tensors in the order and shapes of [`layout`].
    pub fn from_tensors(tensors: &[NamedTensor], device: &B::Device) -> Self {
        Self {
            expert_in: parameter(&tensors[0], device),
            expert_in_bias: parameter(&tensors[1], device),
            expert_out: parameter(&tensors[2], device),
            expert_out_bias: parameter(&tensors[3], device),
            gate: parameter(&tensors[4], device),
            decoder_in: parameter(&tensors[5], device),
            decoder_in_bias: parameter(&tensors[6], device),
            decoder_out: parameter(&tensors[7], device),
            decoder_out_bias: parameter(&tensors[8], device),
            codebooks: parameter(&tensors[9], device),
        }
    }

    /// The tensors in the order and shapes of [`layout`].
    #[cfg_attr(not(feature = "train"), allow(dead_code))]
    pub fn to_tensors(&self, config: &MpqConfig, width: usize) -> Vec<NamedTensor> {
        let data = [
            host(self.expert_in.val()),
            host(self.expert_in_bias.val()),
            host(self.expert_out.val()),
            host(self.expert_out_bias.val()),
            host(self.gate.val()),
            host(self.decoder_in.val()),
            host(self.decoder_in_bias.val()),
            host(self.decoder_out.val()),
            host(self.decoder_out_bias.val()),
            host(self.codebooks.val()),
        ];
        let named = |((name, shape), data): ((&str, Vec<usize>), _)| NamedTensor { name: name.to_owned(), shape, data };
        layout(config, width).into_iter().zip(data).map(named).collect()
    }

    /// e_r = E_r(x) for every expert.
    ///
    /// # Shapes
    /// - rows: `[batch, W]`
    /// - output: `[M, batch, L]`
    pub fn latents(&self, rows: Tensor<B, 2>) -> Tensor<B, 3> {
        let hidden = rows.unsqueeze::<3>().matmul(self.expert_in.val()) + self.expert_in_bias.val(); // [M, batch, H]
        relu(hidden).matmul(self.expert_out.val()) + self.expert_out_bias.val() // [M, batch, L]
    }

    /// x' = Dec(sum_r h_r(x) z_r), with the gate h(x) = softmax(x W).
    ///
    /// # Shapes
    /// - rows: `[batch, W]`
    /// - codes: `[M, batch, L]`, the chosen entries (or latents, before there are codebooks)
    /// - output: `[batch, W]`
    pub fn reconstruct(&self, rows: Tensor<B, 2>, codes: Tensor<B, 3>) -> Tensor<B, 2> {
        let gate = softmax(rows.matmul(self.gate.val()), 1); // [batch, M]
        let gate = gate.transpose().unsqueeze_dim::<3>(2); // [M, batch, 1]
        let mixed = (codes * gate).sum_dim(0).squeeze_dim::<2>(0); // [batch, L]
        let hidden = relu(mixed.matmul(self.decoder_in.val()) + self.decoder_in_bias.val());
        hidden.matmul(self.decoder_out.val()) + self.decoder_out_bias.val()
    }

    /// Mean over r < s of cos^2(e_r, e_s), averaged over the batch; 0 for one codebook.
    ///
    /// # Shapes
    /// - latents: `[M, batch, L]`
    /// - output: `[1]`
    pub fn latent_overlap(latents: Tensor<B, 3>) -> Tensor<B, 1> {
        let [codebooks, batch, _] = latents.dims();
        let length = latents.clone().powi_scalar(2).sum_dim(2).add_scalar(1e-12).sqrt(); // [M, batch, 1]
        let unit = (latents / length).swap_dims(0, 1); // [batch, M, L]
        let cosines = unit.clone().matmul(unit.swap_dims(1, 2)); // [batch, M, M]
        // The sum of all squares counts each pair twice and each of the M ones on the diagonal once.
        let pairs = (codebooks * codebooks.saturating_sub(1)).max(1) as f32;
        cosines.powi_scalar(2).sum().div_scalar(batch as f32).sub_scalar(codebooks as f32).div_scalar(pairs)
    }

    /// ||V V^T - I||^2 with expert r's first-layer weights, at unit length, as row r of V: `[1]`.
    #[cfg_attr(not(feature = "train"), allow(dead_code))]
    pub fn parameter_overlap(&self) -> Tensor<B, 1> {
        let [codebooks, width, hidden] = self.expert_in.dims();
        let flat = self.expert_in.val().reshape([codebooks, width * hidden]);
        let unit = flat.clone() / flat.powi_scalar(2).sum_dim(1).add_scalar(1e-12).sqrt();
        let identity = Tensor::<B, 2>::eye(codebooks, &unit.device());
        (unit.clone().matmul(unit.transpose()) - identity).powi_scalar(2).sum()
    }
}

/// argmin_j ||e_r - z_{r,j}||^2: `[M, batch]` entries in one list, ties to the first.
///
/// # Shapes
/// - latents: `[M, batch, L]`
/// - codebooks: `[M, D, L]`
pub(super) fn nearest<B: Backend>(latents: Tensor<B, 3>, codebooks: Tensor<B, 3>) -> Vec<u16> {
    let chosen = half_distances(latents, codebooks).argmin(2); // [M, batch, 1]
    chosen.into_data().iter::<i64>().map(|entry| entry as u16).collect()
}

/// (||e - z||^2 - ||e||^2) / 2, which ranks entries as the distance does: `[M, batch, D]`.
pub(super) fn half_distances<B: Backend>(latents: Tensor<B, 3>, codebooks: Tensor<B, 3>) -> Tensor<B, 3> {
    let [count, entries, _] = codebooks.dims();
    let lengths = codebooks.clone().powi_scalar(2).sum_dim(2).mul_scalar(0.5).reshape([count, 1, entries]);
    lengths - latents.matmul(codebooks.swap_dims(1, 2))
}

/// The chosen entries' vectors on the host: `[M, batch, L]`.
pub(super) fn chosen_entries(codebooks: &[f32], shape: [usize; 3], codes: &[u16]) -> Vec<f32> {
    let [count, entries, latent] = shape;
    let batch = codes.len() / count;
    let mut out = Vec::with_capacity(codes.len() * latent);
    for (at, &entry) in codes.iter().enumerate() {
        let start = ((at / batch) * entries + usize::from(entry)) * latent;
        out.extend_from_slice(&codebooks[start..start + latent]);
    }
    out
}

fn parameter<B: Backend, const D: usize>(tensor: &NamedTensor, device: &B::Device) -> Param<Tensor<B, D>> {
    Param::from_data(TensorData::new(tensor.data.clone(), tensor.shape.clone()), device)
}

#[cfg(all(test, feature = "train"))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use burn::backend::{Autodiff, Flex};
    use rand::SeedableRng;

    use super::*;

    type Trained = Autodiff<Flex>;

    fn network(config: &MpqConfig, width: usize) -> Mpq<Trained> {
        let mut random = ChaCha8Rng::seed_from_u64(4);
        Mpq::from_tensors(&initial(config, width, &mut random), &Default::default())
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
        for (name, weights) in [("gate", &network.gate), ("decoder_in", &network.decoder_in)] {
            let gradient = host(weights.grad(&gradients).expect(name));
            assert!(gradient.iter().any(|&value| value.abs() > 1e-6), "{name}");
        }
    }

    #[test]
    fn latent_overlap_is_the_mean_squared_cosine_of_pairs() {
        let (codebooks, items, latent) = (3, 4, 5);
        let data = gaussian(codebooks * items * latent, &mut ChaCha8Rng::seed_from_u64(6));
        let tensor = Tensor::from_data(TensorData::new(data.clone(), [codebooks, items, latent]), &Default::default());
        let found = host(Mpq::<Flex>::latent_overlap(tensor))[0];
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
