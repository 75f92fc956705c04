//! A fitted tokenizer: feature rows in, codes out. Needs no automatic differentiation.

#[cfg(feature = "train")]
use super::assign::Choices;
use super::mpq::codec::MpqCodec;
use super::opq::codec::OpqCodec;
use super::quantiser::Codec;
use super::random::RandomCodec;
use super::rq::codec::RqCodec;
use super::tensors::NamedTensor;
use super::{FeatureModel, FeatureTable, ItemSource, Quantiser, TokenizerError, mpq, opq, random, rq};
use crate::domain::{CodeShape, CodeTable};

/// Items that pass through the quantiser at once.
const CHUNK: usize = 2048;

/// A fitted quantiser, and the feature model whose rows it reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokenizer {
    pub(super) quantiser: Quantiser,
    pub(super) features: FeatureModel,
    /// In the order of [`Tokenizer::layout`].
    pub(super) tensors: Vec<NamedTensor>,
}

impl Tokenizer {
    /// Which quantiser, and the settings it was fitted with.
    pub fn quantiser(&self) -> &Quantiser {
        &self.quantiser
    }

    /// What builds the rows it reads.
    pub fn features(&self) -> &FeatureModel {
        &self.features
    }

    /// M and D.
    pub fn shape(&self) -> CodeShape {
        self.quantiser.shape()
    }

    /// Every codebook entry: `[M, D, latent]`; empty for random codes.
    pub fn codebooks(&self) -> &[f32] {
        match (&self.quantiser, self.tensors.last()) {
            (Quantiser::Random { .. }, _) | (_, None) => &[],
            (_, Some(codebooks)) => &codebooks.data,
        }
    }

    /// Each row's nearest entry in every codebook; the RQ-VAE's levels choose one after the other. Items may collide:
    /// nothing is moved here.
    ///
    /// # Errors
    /// Rows of another layout than the tokenizer was fitted on.
    pub fn tokenize(&self, features: &FeatureTable) -> Result<CodeTable, TokenizerError> {
        self.check(features)?;
        let codec = self.codec();
        let chunks = features.rows.chunks(CHUNK * features.width);
        let entries = chunks.flat_map(|rows| codec.encode(rows)).collect();
        CodeTable::new(self.shape(), entries).map_err(TokenizerError::Rows)
    }

    /// The codes of items that come later, from what is known of them.
    ///
    /// # Errors
    /// As [`FeatureModel::rows`].
    pub fn tokenize_items(&self, items: &[ItemSource]) -> Result<CodeTable, TokenizerError> {
        self.tokenize(&self.features.rows(items)?)
    }

    /// The vectors that the codebooks quantise: `[items, M, latent]`. MPQ's latents, what the RQ-VAE's levels before left
    /// over, OPQ's rotated sub-vectors; empty for random codes.
    ///
    /// # Errors
    /// Rows of another layout than the tokenizer was fitted on.
    pub fn latents(&self, features: &FeatureTable) -> Result<Vec<f32>, TokenizerError> {
        self.check(features)?;
        let codec = self.codec();
        Ok(features.rows.chunks(CHUNK * features.width).flat_map(|rows| codec.latents(rows)).collect())
    }

    /// x' of every row under these codes: `[items, width]`. Under random codes every x' is the mean row.
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
        let codec = self.codec();
        let rows = features.rows.chunks(CHUNK * features.width);
        let entries = codes.entries();
        let codes = entries.chunks(CHUNK * self.shape().codebooks);
        Ok(rows.zip(codes).flat_map(|(rows, codes)| codec.decode(rows, codes)).collect())
    }

    /// Passes where each of some items may move to `with`, whose codes before any move are in `nearest`.
    #[cfg(feature = "train")]
    pub(super) fn with_choices<T>(
        &self,
        features: &FeatureTable,
        nearest: &CodeTable,
        items: &[usize],
        with: impl FnOnce(Vec<Box<dyn Choices + '_>>) -> T,
    ) -> T {
        let codec = self.codec();
        let mut choices = Vec::with_capacity(items.len());
        for chunk in items.chunks(CHUNK) {
            let rows: Vec<f32> = chunk.iter().flat_map(|&item| features.row(item).iter().copied()).collect();
            let codes: Vec<u16> = chunk.iter().flat_map(|&item| nearest.code(item as u32).iter().copied()).collect();
            choices.extend(codec.choices(&rows, &codes));
        }
        with(choices)
    }

    /// Names and shapes of the quantiser's tensors, for rows of `width` numbers; the codebooks come last.
    pub(super) fn layout(quantiser: &Quantiser, width: usize) -> Vec<(String, Vec<usize>)> {
        match quantiser {
            Quantiser::Mpq(config) => mpq::network::layout(config, width),
            Quantiser::Rq(config) => rq::network::layout(config, width),
            Quantiser::Opq(config) => opq::codec::layout(config, width),
            Quantiser::Random { .. } => random::layout(width),
        }
    }

    fn codec(&self) -> Box<dyn Codec + '_> {
        let (tensors, width) = (&self.tensors, self.features.width());
        match &self.quantiser {
            Quantiser::Mpq(config) => Box::new(MpqCodec::new(config, tensors, width)),
            Quantiser::Rq(config) => Box::new(RqCodec::new(config, tensors, width)),
            Quantiser::Opq(config) => Box::new(OpqCodec::new(config, tensors, width)),
            Quantiser::Random { seed, .. } => Box::new(RandomCodec::new(self.shape(), *seed, tensors, width)),
        }
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
