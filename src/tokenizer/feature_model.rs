//! What is kept of the features, so that the row of an item that comes later can be built.

use super::encoders::{BlockModel, Encoded, Encoder};
use super::{FeatureBlock, FeatureConfig, FeatureTable, ItemSource, TokenizerError};

/// The fitted modalities: encoders, means, deviations, scales.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureModel {
    pub(super) config: FeatureConfig,
    pub(super) blocks: Vec<BlockModel>,
}

impl FeatureModel {
    /// The settings it was fitted with.
    pub fn config(&self) -> &FeatureConfig {
        &self.config
    }

    /// Numbers in a row, masks included.
    pub fn width(&self) -> usize {
        self.blocks.iter().map(|block| block.width() + 1).sum()
    }

    /// The length of the embeddings that it reads; none: it reads none.
    pub fn embedding_width(&self) -> Option<usize> {
        self.blocks.iter().find_map(|block| match &block.encoder {
            Encoder::Embedding { given, .. } => Some(*given),
            _ => None,
        })
    }

    /// The rows of items that come later. They have no behaviour yet, so that block is zeros with mask 0.
    ///
    /// # Errors
    /// An embedding of another length than those fitted on or with a number that is not finite; a bad price.
    pub fn rows(&self, items: &[ItemSource]) -> Result<FeatureTable, TokenizerError> {
        let encoded = self.blocks.iter().map(|block| block.encoder.encode(items, &self.config));
        Ok(self.table(items.len(), encoded.collect::<Result<_, _>>()?))
    }

    /// Standardises each block, scales it, and puts the blocks and their masks side by side.
    pub(super) fn table(&self, items: usize, encoded: Vec<Encoded>) -> FeatureTable {
        let width = self.width();
        let mut rows = vec![0.0; items * width];
        let mut blocks = Vec::with_capacity(self.blocks.len());
        let mut start = 0;
        let masks = width - self.blocks.len();
        for (number, (model, block)) in self.blocks.iter().zip(&encoded).enumerate() {
            for (item, row) in rows.chunks_exact_mut(width).enumerate().filter(|(item, _)| block.present[*item]) {
                let columns = row[start..].iter_mut().zip(block.values.row(item));
                for ((out, value), (mean, deviation)) in columns.zip(model.mean.iter().zip(&model.deviation)) {
                    *out = (value - mean) / deviation * model.scale;
                }
                row[masks + number] = 1.0;
            }
            let present = block.present.iter().filter(|present| **present).count();
            blocks.push(FeatureBlock { modality: model.modality(), start, width: model.width(), present });
            start += model.width();
        }
        FeatureTable { width, rows, blocks, model: self.clone() }
    }
}
