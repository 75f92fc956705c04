//! The feature row of every item: content, behaviour, category, brand and price, standardised, weighted, side by side.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::encoders::{BlockModel, Encoded, Encoder};
use super::{FeatureConfig, FeatureModel, Modality, TokenizerError};

/// What the features of one item are built from.
#[derive(Debug, Clone, Copy, Default)]
pub struct ItemSource<'a> {
    /// Its name.
    pub title: Option<&'a str>,
    /// A longer description; the title stands in where there is none.
    pub text: Option<&'a str>,
    /// Its brand.
    pub brand: Option<&'a str>,
    /// Its category path, coarse to fine; empty when unknown.
    pub categories: &'a [String],
    /// Its price: finite, not negative.
    pub price: Option<f32>,
    /// A content embedding; all given ones have the same length.
    pub embedding: Option<&'a [f32]>,
}

/// Where one modality stands in the feature row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureBlock {
    /// Which.
    pub modality: Modality,
    /// Its first column.
    pub start: usize,
    /// Its number of columns.
    pub width: usize,
    /// Items that have it.
    pub present: usize,
}

/// The feature rows of a list of items.
///
/// A row is its blocks side by side, then one mask number per block: 1 where the item has the modality, 0 where it lacks
/// it (its block is then all zeros). Over the items fitted on, every block is standardised per dimension and then scaled
/// to its weight, so that the mean variance of a column over all blocks is 1.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureTable {
    /// Numbers in a row, masks included.
    pub width: usize,
    /// `[items, width]`.
    pub rows: Vec<f32>,
    /// The modalities, in the order of their columns.
    pub blocks: Vec<FeatureBlock>,
    /// What builds the row of an item that comes later.
    pub model: FeatureModel,
}

impl FeatureTable {
    /// Number of items.
    pub fn items(&self) -> usize {
        self.rows.len() / self.width
    }

    /// The columns that only items with a past have: the behaviour block and its mask.
    pub fn columns_of_the_past(&self) -> Vec<Range<usize>> {
        let masks = self.width - self.blocks.len();
        let past = self.blocks.iter().enumerate().filter(|(_, block)| block.modality == Modality::Behaviour);
        past.flat_map(|(at, block)| [block.start..block.start + block.width, masks + at..masks + at + 1]).collect()
    }

    /// One item's row.
    pub fn row(&self, item: usize) -> &[f32] {
        &self.rows[item * self.width..(item + 1) * self.width]
    }
}

/// Builds the feature rows of `items`, and the model that builds those of later items.
///
/// `sequences` are the users' training parts alone, as item numbers (positions in `items`), oldest first: nothing but
/// what they hold enters the behaviour block, so held-out events must not be passed. A modality that no item has is left
/// out of the row.
///
/// # Errors
/// Settings out of range; an embedding of another length than the first or with a number that is not finite; a price
/// that is negative or not finite; a sequence with an item number out of range; no modality at all.
pub fn features(
    items: &[ItemSource],
    sequences: &[Vec<u32>],
    config: &FeatureConfig,
) -> Result<FeatureTable, TokenizerError> {
    config.validate().map_err(TokenizerError::Settings)?;
    check_sequences(items.len(), sequences)?;
    let mut fitted: Vec<(BlockModel, Encoded)> = Vec::new();
    for encoder in Encoder::all(items, config)? {
        if let Some(block) = encoder.fit(items, sequences, config)? {
            fitted.push(block);
        }
    }
    if fitted.is_empty() {
        return Err(TokenizerError::NoFeatures(format!(
            "none of {} items has any of the enabled modalities",
            items.len()
        )));
    }
    let (mut blocks, encoded): (Vec<BlockModel>, Vec<Encoded>) = fitted.into_iter().unzip();
    let total_width: usize = blocks.iter().map(|block| block.width()).sum();
    let total_weight: f32 = blocks.iter().map(|block| config.block(block.modality()).weight).sum();
    for block in &mut blocks {
        let share = config.block(block.modality()).weight / total_weight;
        block.scale = (share * total_width as f32 / block.width() as f32).sqrt();
    }
    let model = FeatureModel { config: config.clone(), blocks };
    Ok(model.table(items.len(), encoded))
}

fn check_sequences(items: usize, sequences: &[Vec<u32>]) -> Result<(), TokenizerError> {
    for (sequence, events) in sequences.iter().enumerate() {
        if let Some(event) = events.iter().position(|&item| item as usize >= items) {
            let reason = format!("item number {} is not below {items}", events[event]);
            return Err(TokenizerError::Sequence { sequence, event, reason });
        }
    }
    Ok(())
}
