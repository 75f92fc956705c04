//! MPQ's network: an expert per codebook, the gate, the shared decoder.

use burn::module::{Module, Param};
use burn::tensor::activation::{relu, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::MpqConfig;
#[cfg(feature = "train")]
use super::matrix::host;
use super::tensors::NamedTensor;

/// Experts, gate, decoder and codebooks. M experts, D entries, L latent, H hidden, W numbers in a feature row.
#[derive(Module, Debug)]
pub(super) struct Mpq<B: Backend> {
    /// `[M, W, H]`
    pub expert_in: Param<Tensor<B, 3>>,
    /// `[M, 1, H]`
    expert_in_bias: Param<Tensor<B, 3>>,
    /// `[M, H, L]`
    pub expert_out: Param<Tensor<B, 3>>,
    /// `[M, 1, L]`
    expert_out_bias: Param<Tensor<B, 3>>,
    /// `[W, M]`
    pub gate: Param<Tensor<B, 2>>,
    /// `[L, decoder hidden]`
    pub decoder_in: Param<Tensor<B, 2>>,
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
    #[cfg(feature = "train")]
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
