//! A fitted MPQ at work.

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};

use super::config::MpqConfig;
use super::network::Mpq;
#[cfg(feature = "train")]
use crate::tokenizer::assign::{Choices, independent};
use crate::tokenizer::matrix::host;
#[cfg(feature = "train")]
use crate::tokenizer::nearest::half_distances;
use crate::tokenizer::nearest::{by_codebook, by_item, chosen_entries, nearest, row_tensor};
use crate::tokenizer::quantiser::Codec;
use crate::tokenizer::tensors::NamedTensor;

/// The network on the CPU, and its codebooks on the host: `[M, D, L]`.
pub(in crate::tokenizer) struct MpqCodec<'a> {
    network: Mpq<Flex>,
    shape: [usize; 3],
    codebooks: &'a [f32],
    width: usize,
}

impl<'a> MpqCodec<'a> {
    /// From the saved tensors, for rows of `width` numbers.
    pub fn new(config: &MpqConfig, tensors: &'a [NamedTensor], width: usize) -> Self {
        let codebooks = tensors.last().map(|tensor| tensor.data.as_slice()).unwrap_or_default();
        let network = Mpq::from_tensors(tensors, config.gated, &Default::default());
        Self { network, shape: [config.codebooks, config.entries, config.latent], codebooks, width }
    }

    fn rows(&self, rows: &[f32]) -> Tensor<Flex, 2> {
        row_tensor(rows, self.width, &Default::default())
    }
}

impl Codec for MpqCodec<'_> {
    fn encode(&self, rows: &[f32]) -> Vec<u16> {
        by_item(&nearest(self.network.latents(self.rows(rows)), self.network.codebooks.val()), self.shape[0])
    }

    fn latents(&self, rows: &[f32]) -> Vec<f32> {
        host(self.network.latents(self.rows(rows)).swap_dims(0, 1)) // [items, M, L]
    }

    fn decode(&self, rows: &[f32], codes: &[u16]) -> Vec<f32> {
        let [codebooks, _, latent] = self.shape;
        let chosen = chosen_entries(self.codebooks, self.shape, &by_codebook(codes, codebooks));
        let chosen = TensorData::new(chosen, [codebooks, codes.len() / codebooks, latent]);
        host(self.network.reconstruct(self.rows(rows), Tensor::from_data(chosen, &Default::default())))
    }

    #[cfg(feature = "train")]
    fn choices(&self, rows: &[f32], _codes: &[u16]) -> Vec<Box<dyn Choices + '_>> {
        let half = half_distances(self.network.latents(self.rows(rows)), self.network.codebooks.val());
        let distances: Vec<f32> = host(half.swap_dims(0, 1)).into_iter().map(|value| 2.0 * value).collect();
        independent(&distances, self.shape[0], self.shape[1]) // [items, M, D]
    }
}
