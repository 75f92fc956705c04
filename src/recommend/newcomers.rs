//! What a bundle makes of items that it has not learnt; whoever loads bundles fulfils it.

use std::fmt::Debug;

use crate::domain::{DescribedItem, ItemNumber};

/// Where an item that is not learnt belongs.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Its tokens, one entry a codebook, from its features by the bundle's own tokenizer.
    pub code: Vec<u16>,
    /// The learnt items likest to it, with shares that sum to one; none where there is nothing to be like.
    pub like: Vec<(ItemNumber, f32)>,
    /// Its class of the category head.
    pub category: u32,
}

/// Finds places for items by the features that a bundle's tokenizer reads.
pub trait Newcomers: Debug + Send + Sync {
    /// What is wrong with an item's embedding for this bundle, if anything: what was found and what was expected.
    fn fault(&self, item: &DescribedItem) -> Option<String>;

    /// The places of some items, in their order. An embedding that has a fault is not read.
    ///
    /// # Errors
    /// Why their features cannot be computed.
    fn place(&self, items: &[&DescribedItem]) -> Result<Vec<Place>, String>;
}
