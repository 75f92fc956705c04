//! What the owner of the items has said beside what bundles say, item by item.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::{CatalogChange, DescribedItem, Item};

/// What was said of one item, all taken together.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When it was last changed, in Unix milliseconds.
    pub changed_ms: i64,
    /// When what its tokens are made of, text or embedding, last changed; none: that was never told.
    pub described_ms: Option<i64>,
    /// What holds.
    pub word: Word,
}

/// What holds of an item, whatever a bundle says.
#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    /// It is so.
    Item(Box<DescribedItem>),
    /// It is as the bundle has it, but may, or may not, be recommended.
    Eligible(bool),
    /// It is no more.
    Removed,
}

/// What was said of every item, by id.
pub type Entries = BTreeMap<String, Arc<Entry>>;

impl Entry {
    /// What holds after a change at `now_ms`, where `before` held.
    pub fn after(before: Option<&Entry>, change: CatalogChange, now_ms: i64) -> Self {
        let told = before.and_then(|entry| entry.described_ms);
        let same = |described_ms, word| Self { changed_ms: now_ms, described_ms, word };
        match change {
            CatalogChange::Upsert(described) => {
                let other = match before.map(|entry| &entry.word) {
                    Some(Word::Item(item)) => item.text != described.text || item.embedding != described.embedding,
                    // What the bundle was made of is not known: what is said is news, silence is none.
                    _ => described.text.is_some() || described.embedding.is_some(),
                };
                same(if other { Some(now_ms) } else { told }, Word::Item(described))
            }
            CatalogChange::Remove(_) => same(told, Word::Removed),
            CatalogChange::SetEligibility(_, eligible) => match before.map(|entry| &entry.word) {
                Some(Word::Item(item)) => {
                    let mut described = item.clone();
                    described.item.eligible = eligible;
                    same(told, Word::Item(described))
                }
                Some(Word::Removed) => same(told, Word::Removed),
                _ => same(told, Word::Eligible(eligible)),
            },
        }
    }

    /// The item to serve, where a bundle has it as `bundle`; none where there is nothing to serve.
    pub fn item(&self, bundle: Option<&Item>) -> Option<Item> {
        match &self.word {
            Word::Item(described) => Some(described.item.clone()),
            Word::Eligible(eligible) => bundle.map(|item| Item { eligible: *eligible, ..item.clone() }),
            Word::Removed => bundle.map(|item| Item { eligible: false, ..item.clone() }),
        }
    }

    /// Whether it says that the item is no more.
    pub fn is_removed(&self) -> bool {
        self.word == Word::Removed
    }
}
