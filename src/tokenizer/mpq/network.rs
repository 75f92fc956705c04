//! MPQ's network: an expert per codebook, the gate, the shared decoder.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::{relu, softmax};
use burn::tensor::backend::Backend;

use super::config::MpqConfig;
#[cfg(feature = "train")]
use crate::tokenizer::matrix::host;
use crate::tokenizer::nearest::parameter;
use crate::tokenizer::tensors::NamedTensor;

/// Experts, gate, decoder and codebooks. M experts, D entries, L latent, H hidden, W numbers in a feature row.
#[derive(Module, Debug)]
pub(in crate::tokenizer) struct Mpq<B: Backend> {
    /// `[M, W, H]`
    pub expert_in: Param<Tensor<B, 3>>,
    /// `[M, 1, H]`
    expert_in_bias: Param<Tensor<B, 3>>,
    /// `[M, H, L]`
    pub expert_out: Param<Tensor<B, 3>>,
    /// `[M, 1, L]`
    expert_out_bias: Param<Tensor<B, 3>>,
    /// `[W, M]`; none: every expert weighs the same.
    pub gate: Option<Param<Tensor<B, 2>>>,
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

/// The names and shapes of the saved tensors, in the order of [`Mpq`]'s fields; there is a gate only where it is on.
pub(in crate::tokenizer) fn layout(config: &MpqConfig, width: usize) -> Vec<(String, Vec<usize>)> {
    let MpqConfig { codebooks: m, entries, latent, hidden, decoder_hidden, .. } = *config;
    let mut layout = vec![
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
    ];
    layout.retain(|(name, _)| config.gated || *name != "gate");
    layout.into_iter().map(|(name, shape)| (name.to_owned(), shape)).collect()
}

impl<B: Backend> Mpq<B> {
    /// From tensors in the order and shapes of [`layout`].
    pub fn from_tensors(tensors: &[NamedTensor], gated: bool, device: &B::Device) -> Self {
        let (experts, rest) = tensors.split_at(4);
        let (gate, rest) = rest.split_at(usize::from(gated));
        Self {
            expert_in: parameter(&experts[0], device),
            expert_in_bias: parameter(&experts[1], device),
            expert_out: parameter(&experts[2], device),
            expert_out_bias: parameter(&experts[3], device),
            gate: gate.first().map(|gate| parameter(gate, device)),
            decoder_in: parameter(&rest[0], device),
            decoder_in_bias: parameter(&rest[1], device),
            decoder_out: parameter(&rest[2], device),
            decoder_out_bias: parameter(&rest[3], device),
            codebooks: parameter(&rest[4], device),
        }
    }

    /// The tensors in the order and shapes of [`layout`].
    #[cfg(feature = "train")]
    pub fn to_tensors(&self, config: &MpqConfig, width: usize) -> Vec<NamedTensor> {
        let mut data = vec![
            host(self.expert_in.val()),
            host(self.expert_in_bias.val()),
            host(self.expert_out.val()),
            host(self.expert_out_bias.val()),
        ];
        data.extend(self.gate.as_ref().map(|gate| host(gate.val())));
        data.extend([
            host(self.decoder_in.val()),
            host(self.decoder_in_bias.val()),
            host(self.decoder_out.val()),
            host(self.decoder_out_bias.val()),
            host(self.codebooks.val()),
        ]);
        let named = |((name, shape), data)| NamedTensor { name, shape, data };
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

    /// x' = Dec(sum_r h_r(x) z_r), with the gate h(x) = softmax(x W), or h_r = 1 / M without a gate.
    ///
    /// # Shapes
    /// - rows: `[batch, W]`
    /// - codes: `[M, batch, L]`, the chosen entries (or latents, before there are codebooks)
    /// - output: `[batch, W]`
    pub fn reconstruct(&self, rows: Tensor<B, 2>, codes: Tensor<B, 3>) -> Tensor<B, 2> {
        let mixed = match &self.gate {
            Some(gate) => {
                let gate = softmax(rows.matmul(gate.val()), 1); // [batch, M]
                let gate = gate.transpose().unsqueeze_dim::<3>(2); // [M, batch, 1]
                (codes * gate).sum_dim(0)
            }
            None => codes.mean_dim(0),
        };
        let mixed = mixed.squeeze_dim::<2>(0); // [batch, L]
        let hidden = relu(mixed.matmul(self.decoder_in.val()) + self.decoder_in_bias.val());
        hidden.matmul(self.decoder_out.val()) + self.decoder_out_bias.val()
    }
}
