//! What the owner of the items says while they serve, and what is told of them.

use super::Item;

/// An item with what only its features are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribedItem {
    /// What its owner says of it.
    pub item: Item,
    /// A longer description.
    pub text: Option<String>,
    /// A content embedding; finite numbers.
    pub embedding: Option<Vec<f32>>,
}

/// One change of the catalogue.
#[derive(Debug, Clone, PartialEq)]
pub enum CatalogChange {
    /// The item is new, or is now as it says here, all of it.
    Upsert(Box<DescribedItem>),
    /// The item of this id is no more.
    Remove(String),
    /// Whether the item of this id may be recommended; all else of it stays.
    SetEligibility(String, bool),
}

impl CatalogChange {
    /// The id of the item that it changes.
    pub fn item_id(&self) -> &str {
        match self {
            Self::Upsert(described) => &described.item.id,
            Self::Remove(id) | Self::SetEligibility(id, _) => id,
        }
    }
}

/// What became of some changes: they are durable, and every request that comes now sees them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CatalogChanged {
    /// Items that were not known before.
    pub added: usize,
    /// Items that were known and are changed.
    pub changed: usize,
    /// Ids that no item has, in the order asked: nothing was changed for them.
    pub unknown: Vec<String>,
    /// The index version of the default variant with these changes in it.
    pub index_version: String,
}

/// One item as it stands now.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredItem {
    /// As its owner described it. Of an item that only the bundle describes, neither text nor embedding is known.
    pub described: DescribedItem,
    /// Its code in the default variant's bundle, one entry a codebook; empty where that variant has no tokens for it.
    pub code: Vec<u16>,
    /// When its owner last changed it, in Unix milliseconds; none: it is as the bundle has it.
    pub changed_ms: Option<i64>,
    /// Whether the default variant's network has learnt it.
    pub learnt: bool,
}

/// Some items, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ItemPage {
    /// The items.
    pub items: Vec<StoredItem>,
    /// The id after which the next page begins; none on the last.
    pub next: Option<String>,
}
