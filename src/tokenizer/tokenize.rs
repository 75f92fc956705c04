//! A fitted tokenizer: feature rows in, codes out. Needs no automatic differentiation.

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};

use super::matrix::host;
#[cfg(feature = "train")]
use super::network::half_distances;
use super::network::{Mpq, chosen_entries, nearest};
use super::tensors::NamedTensor;
use super::{FeatureModel, FeatureTable, ItemSource, MpqConfig, TokenizerError};
use crate::domain::{CodeShape, CodeTable};

/// Items that pass through the network at once.
const CHUNK: usize = 2048;

/// Experts, gate, decoder and codebooks, and the feature model whose rows they read.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokenizer {
    pub(super) config: MpqConfig,
    pub(super) features: FeatureModel,
    /// In the order of the network's layout.
    pub(super) tensors: Vec<NamedTensor>,
}

impl Tokenizer {
    /// The settings it was fitted with.
    pub fn config(&self) -> &MpqConfig {
        &self.config
    }

    /// What builds the rows it reads.
    pub fn features(&self) -> &FeatureModel {
        &self.features
    }

    /// M and D.
    pub fn shape(&self) -> CodeShape {
        self.config.shape()
    }

    /// Every codebook entry: `[M, D, latent]`.
    pub fn codebooks(&self) -> &[f32] {
        self.tensors.last().map(|tensor| tensor.data.as_slice()).unwrap_or_default()
    }

    /// Each row's nearest entry in every codebook. Items may collide: nothing is moved here.
    ///
    /// # Errors
    /// Rows of another layout than the tokenizer was fitted on.
    pub fn tokenize(&self, features: &FeatureTable) -> Result<CodeTable, TokenizerError> {
        self.check(features)?;
        let network = self.network();
        let mut entries = Vec::with_capacity(features.items() * self.config.codebooks);
        for chunk in features.rows.chunks(CHUNK * features.width) {
            let latents = network.latents(self.rows(chunk));
            let codes = nearest(latents, network.codebooks.val()); // [M, chunk]
            let items = chunk.len() / features.width;
            entries.extend((0..items).flat_map(|item| codes.iter().skip(item).step_by(items).copied()));
        }
        CodeTable::new(self.shape(), entries).map_err(TokenizerError::Rows)
    }

    /// The codes of items that come later, from what is known of them.
    ///
    /// # Errors
    /// As [`FeatureModel::rows`].
    pub fn tokenize_items(&self, items: &[ItemSource]) -> Result<CodeTable, TokenizerError> {
        self.tokenize(&self.features.rows(items)?)
    }

    /// The latents of every row: `[items, M, latent]`.
    ///
    /// # Errors
    /// Rows of another layout than the tokenizer was fitted on.
    pub fn latents(&self, features: &FeatureTable) -> Result<Vec<f32>, TokenizerError> {
        self.check(features)?;
        let network = self.network();
        let chunks = features.rows.chunks(CHUNK * features.width);
        Ok(chunks.flat_map(|chunk| host(network.latents(self.rows(chunk)).swap_dims(0, 1))).collect())
    }

    /// x' of every row under these codes: `[items, width]`.
    ///
    /// # Errors
    /// Rows of another layout than the tokenizer was fitted on, or codes of another shape or number.
    pub fn reconstruct(&self, features: &FeatureTable, codes: &CodeTable) -> Result<Vec<f32>, TokenizerError> {
        self.check(features)?;
        if codes.shape() != self.shape() || codes.items() != features.items() {
            let (found, items) = (codes.shape(), codes.items());
            return Err(TokenizerError::Rows(format!(
                "{items} codes of {found:?}: expected {} of {:?}",
                features.items(),
                self.shape()
            )));
        }
        let network = self.network();
        let MpqConfig { codebooks, entries, latent, .. } = self.config;
        let mut out = Vec::with_capacity(features.rows.len());
        let chunks = features.rows.chunks(CHUNK * features.width);
        for (chunk, codes) in chunks.zip(codes.entries().chunks(CHUNK * codebooks)) {
            let items = codes.len() / codebooks;
            let by_codebook: Vec<u16> =
                (0..codebooks).flat_map(|r| codes.iter().skip(r).step_by(codebooks).copied()).collect();
            let chosen = chosen_entries(self.codebooks(), [codebooks, entries, latent], &by_codebook);
            let chosen = Tensor::from_data(TensorData::new(chosen, [codebooks, items, latent]), &Default::default());
            out.extend(host(network.reconstruct(self.rows(chunk), chosen)));
        }
        Ok(out)
    }

    /// Squared distances of some rows' latents to every entry, less what is common to a row and codebook:
    /// `[rows.len(), M, D]`.
    #[cfg(feature = "train")]
    pub(super) fn distances(&self, features: &FeatureTable, items: &[usize]) -> Vec<f32> {
        let network = self.network();
        let mut out = Vec::with_capacity(items.len() * self.shape().tokens());
        for chunk in items.chunks(CHUNK) {
            let rows: Vec<f32> = chunk.iter().flat_map(|&item| features.row(item).iter().copied()).collect();
            let half = half_distances(network.latents(self.rows(&rows)), network.codebooks.val()); // [M, chunk, D]
            out.extend(host(half.swap_dims(0, 1)).into_iter().map(|value| 2.0 * value));
        }
        out
    }

    fn network(&self) -> Mpq<Flex> {
        Mpq::from_tensors(&self.tensors, &Default::default())
    }

    fn rows(&self, rows: &[f32]) -> Tensor<Flex, 2> {
        let width = self.features.width();
        Tensor::from_data(TensorData::new(rows.to_vec(), [rows.len() / width, width]), &Default::default())
    }

    fn check(&self, features: &FeatureTable) -> Result<(), TokenizerError> {
        let layout = |model: &FeatureModel| -> Vec<_> {
            model.blocks.iter().map(|block| (block.modality().name(), block.width())).collect()
        };
        let (found, expected) = (layout(&features.model), layout(&self.features));
        if found != expected {
            return Err(TokenizerError::Rows(format!("blocks {found:?}: the tokenizer was fitted on {expected:?}")));
        }
        Ok(())
    }
}
