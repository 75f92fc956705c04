//! A fitted RQ-VAE at work.

use burn::backend::Flex;

#[cfg(feature = "train")]
use super::choices::ResidualChoices;
use super::config::RqConfig;
use super::network::RqVae;
use super::residual::Residuals;
#[cfg(feature = "train")]
use crate::tokenizer::assign::Choices;
use crate::tokenizer::matrix::host;
use crate::tokenizer::nearest::{by_item, row_tensor};
use crate::tokenizer::quantiser::Codec;
use crate::tokenizer::tensors::NamedTensor;

/// The network on the CPU, and its codebooks on the host: `[L, D, latent]`.
pub(in crate::tokenizer) struct RqCodec<'a> {
    network: RqVae<Flex>,
    shape: [usize; 3],
    codebooks: &'a [f32],
    width: usize,
}

impl<'a> RqCodec<'a> {
    /// From the saved tensors, for rows of `width` numbers.
    pub fn new(config: &RqConfig, tensors: &'a [NamedTensor], width: usize) -> Self {
        let codebooks = tensors.last().map(|tensor| tensor.data.as_slice()).unwrap_or_default();
        let network = RqVae::from_tensors(tensors, &Default::default());
        Self { network, shape: [config.levels, config.entries, config.latent], codebooks, width }
    }

    /// `[items, latent]`
    fn encoded(&self, rows: &[f32]) -> Vec<f32> {
        host(self.network.encode(row_tensor(rows, self.width, &Default::default())))
    }

    fn residuals(&self, rows: &[f32]) -> Residuals {
        Residuals::of::<Flex>(&self.encoded(rows), self.codebooks, self.shape, &Default::default())
    }
}

impl Codec for RqCodec<'_> {
    fn encode(&self, rows: &[f32]) -> Vec<u16> {
        by_item(&self.residuals(rows).codes, self.shape[0])
    }

    fn latents(&self, rows: &[f32]) -> Vec<f32> {
        let [levels, _, latent] = self.shape;
        let residuals = self.residuals(rows).residuals; // [L, items, latent]
        let items = rows.len() / self.width;
        let at = |item: usize, level: usize| (level * items + item) * latent;
        let places = (0..items).flat_map(|item| (0..levels).map(move |level| at(item, level)));
        places.flat_map(|place| residuals[place..place + latent].iter().copied()).collect()
    }

    fn decode(&self, _rows: &[f32], codes: &[u16]) -> Vec<f32> {
        let [levels, entries, latent] = self.shape;
        let mut sums = vec![0.0; codes.len() / levels * latent];
        for (sum, code) in sums.chunks_exact_mut(latent).zip(codes.chunks_exact(levels)) {
            for (level, &entry) in code.iter().enumerate() {
                let entry = &self.codebooks[(level * entries + usize::from(entry)) * latent..][..latent];
                sum.iter_mut().zip(entry).for_each(|(sum, value)| *sum += value);
            }
        }
        host(self.network.decode(row_tensor(&sums, latent, &Default::default())))
    }

    #[cfg(feature = "train")]
    fn choices(&self, rows: &[f32], codes: &[u16]) -> Vec<Box<dyn Choices + '_>> {
        let [levels, entries, latent] = self.shape;
        let encoded = self.encoded(rows);
        let items = encoded.chunks_exact(latent).zip(codes.chunks_exact(levels));
        items
            .map(|(encoded, code)| {
                Box::new(ResidualChoices::new(self.codebooks, entries, encoded, code)) as Box<dyn Choices>
            })
            .collect()
    }
}
