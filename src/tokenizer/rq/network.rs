//! The RQ-VAE's network: an encoder and a decoder of fully connected layers, and a codebook a level.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;

use super::config::RqConfig;
#[cfg(feature = "train")]
use crate::tokenizer::matrix::host;
use crate::tokenizer::nearest::parameter;
use crate::tokenizer::tensors::NamedTensor;

/// x W + b.
#[derive(Module, Debug)]
pub(in crate::tokenizer) struct Layer<B: Backend> {
    /// `[in, out]`
    weight: Param<Tensor<B, 2>>,
    /// `[1, out]`
    bias: Param<Tensor<B, 2>>,
}

/// Encoder, decoder and codebooks. L levels, D entries, W numbers in a feature row.
#[derive(Module, Debug)]
pub(in crate::tokenizer) struct RqVae<B: Backend> {
    /// W to latent.
    encoder: Vec<Layer<B>>,
    /// Latent to W.
    decoder: Vec<Layer<B>>,
    /// `[L, D, latent]`
    pub codebooks: Param<Tensor<B, 3>>,
}

/// The names and shapes of the saved tensors: weight and bias of every layer of the encoder, then of the decoder, then
/// the codebooks.
pub(in crate::tokenizer) fn layout(config: &RqConfig, width: usize) -> Vec<(String, Vec<usize>)> {
    let mut widths = vec![width];
    widths.extend(&config.hidden);
    widths.push(config.latent);
    let encoder: Vec<(usize, usize)> = widths.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let decoder: Vec<(usize, usize)> = encoder.iter().rev().map(|&(inputs, outputs)| (outputs, inputs)).collect();
    let mut layout = Vec::new();
    for (part, layers) in [("encoder", encoder), ("decoder", decoder)] {
        for (at, (inputs, outputs)) in layers.into_iter().enumerate() {
            layout.push((format!("{part}.{at}.weight"), vec![inputs, outputs]));
            layout.push((format!("{part}.{at}.bias"), vec![1, outputs]));
        }
    }
    layout.push(("codebooks".to_owned(), vec![config.levels, config.entries, config.latent]));
    layout
}

impl<B: Backend> RqVae<B> {
    /// From tensors in the order and shapes of [`layout`].
    pub fn from_tensors(tensors: &[NamedTensor], device: &B::Device) -> Self {
        let (codebooks, layers) = (&tensors[tensors.len() - 1], &tensors[..tensors.len() - 1]);
        let layer =
            |pair: &[NamedTensor]| Layer { weight: parameter(&pair[0], device), bias: parameter(&pair[1], device) };
        let mut encoder: Vec<Layer<B>> = layers.chunks_exact(2).map(layer).collect();
        let decoder = encoder.split_off(encoder.len() / 2);
        Self { encoder, decoder, codebooks: parameter(codebooks, device) }
    }

    /// The tensors in the order and shapes of [`layout`].
    #[cfg(feature = "train")]
    pub fn to_tensors(&self, config: &RqConfig, width: usize) -> Vec<NamedTensor> {
        let layers = self.encoder.iter().chain(&self.decoder);
        let mut data: Vec<Vec<f32>> =
            layers.flat_map(|layer| [host(layer.weight.val()), host(layer.bias.val())]).collect();
        data.push(host(self.codebooks.val()));
        let named = |((name, shape), data)| NamedTensor { name, shape, data };
        layout(config, width).into_iter().zip(data).map(named).collect()
    }

    /// The latent that the levels quantise: `[batch, W]` to `[batch, latent]`.
    pub fn encode(&self, rows: Tensor<B, 2>) -> Tensor<B, 2> {
        through(&self.encoder, rows)
    }

    /// The row of a latent or of a sum of entries: `[batch, latent]` to `[batch, W]`.
    pub fn decode(&self, latents: Tensor<B, 2>) -> Tensor<B, 2> {
        through(&self.decoder, latents)
    }
}

/// Layers one after the other, ReLU between them.
fn through<B: Backend>(layers: &[Layer<B>], mut values: Tensor<B, 2>) -> Tensor<B, 2> {
    for (at, layer) in layers.iter().enumerate() {
        if at > 0 {
            values = relu(values);
        }
        values = values.matmul(layer.weight.val()) + layer.bias.val();
    }
    values
}
