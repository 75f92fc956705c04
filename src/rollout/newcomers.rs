//! Places for items that a bundle has not learnt, by its own tokenizer and by the likest of the items that it has.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use crate::catalog::{Candidates, Index};
use crate::domain::{DescribedItem, Item, ItemNumber};
use crate::recommend::{Newcomers, Place};
use crate::tokenizer::{ItemSource, Likeness, Tokenizer, TokenizerError};

/// Learnt items whose vectors a newcomer's is the mean of.
const NEIGHBOURS: usize = 32;
/// Most learnt items that are looked at for likeness, the most popular ones: their features stay in memory.
const KNOWN: usize = 1 << 16;
/// The class of items that have no other, as a fit names it.
const UNCATEGORISED: &str = "uncategorised";

/// A bundle's tokenizer and what the bundle has learnt.
pub(super) struct BundleNewcomers {
    tokenizer: Tokenizer,
    learnt: Arc<Index>,
    /// Classes of the category head by name.
    classes: HashMap<String, u32>,
    /// Made when the first item comes: it reads the features of all learnt items once.
    known: OnceLock<Known>,
}

struct Known {
    numbers: Vec<ItemNumber>,
    likeness: Likeness,
}

impl BundleNewcomers {
    /// # Errors
    /// When the bundle's tokenizer cannot be read, or is of other codes than the index.
    pub(super) fn new(codebooks: &[u8], learnt: Arc<Index>) -> Result<Self, String> {
        let tokenizer = Tokenizer::from_bytes(codebooks).map_err(|error| error.to_string())?;
        let (found, expected) = (tokenizer.shape(), learnt.codes().shape());
        if found != expected {
            return Err(format!("its tokenizer's codes are {found:?}, expected {expected:?}"));
        }
        let classes = learnt.category_names().iter().cloned().zip(0u32..).collect();
        Ok(Self { tokenizer, learnt, classes, known: OnceLock::new() })
    }

    /// The learnt items by what the bundle keeps of them.
    fn known(&self) -> Result<&Known, TokenizerError> {
        if let Some(known) = self.known.get() {
            return Ok(known);
        }
        let index = &self.learnt;
        let all = Candidates::of(index.len(), 0..index.len() as ItemNumber);
        let mut numbers = index.popular(&all, KNOWN);
        numbers.sort_unstable();
        let items: Vec<_> = numbers.iter().map(|&number| index.item(number)).collect();
        let sources: Vec<ItemSource<'_>> = items.iter().map(|row| kept(&row.item)).collect();
        let rows = self.tokenizer.features().rows(&sources)?;
        let likeness = Likeness::of(&rows, 0..numbers.len());
        Ok(self.known.get_or_init(|| Known { numbers, likeness }))
    }

    /// The finest class that the item's categories lead to.
    fn class(&self, item: &Item) -> Option<u32> {
        let paths = (1..=item.categories.len()).rev().map(|level| item.categories[..level].join(" > "));
        let found = paths.into_iter().find_map(|path| self.classes.get(&path).copied());
        found.or_else(|| self.classes.get(UNCATEGORISED).copied())
    }
}

impl Newcomers for BundleNewcomers {
    fn fault(&self, item: &DescribedItem) -> Option<String> {
        let (found, expected) = (item.embedding.as_ref()?.len(), self.tokenizer.features().embedding_width()?);
        (found != expected).then(|| format!("{found} numbers, expected {expected} as in the bundle's data"))
    }

    fn place(&self, items: &[&DescribedItem]) -> Result<Vec<Place>, String> {
        let told = |error: TokenizerError| error.to_string();
        let features = self.tokenizer.features();
        let whole: Vec<ItemSource<'_>> = items.iter().map(|item| self.source(item)).collect();
        let codes = self.tokenizer.tokenize(&features.rows(&whole).map_err(told)?).map_err(told)?;
        let known = self.known().map_err(told)?;
        // Likeness is judged by what the bundle keeps of items: it has no descriptions of those that it knows.
        let sources: Vec<ItemSource<'_>> = items
            .iter()
            .zip(&whole)
            .map(|(item, whole)| ItemSource {
                text: whole.text.filter(|_| item.item.title.is_none()),
                ..kept(&item.item)
            })
            .collect();
        let likeness = Likeness::of(&features.rows(&sources).map_err(told)?, 0..items.len());
        let like: Vec<Vec<(ItemNumber, f32)>> = likeness
            .rows()
            .map(|row| {
                let nearest = known.likeness.nearest(row, NEIGHBOURS);
                nearest.into_iter().map(|(at, share)| (known.numbers[at], share)).collect()
            })
            .collect();
        let place = |((number, item), like): ((ItemNumber, &&DescribedItem), Vec<(ItemNumber, f32)>)| {
            let likest = like.first().map(|&(number, _)| self.learnt.item(number).category);
            let category = self.class(&item.item).or(likest).unwrap_or(0);
            Place { code: codes.code(number).to_vec(), like, category }
        };
        Ok((0..).zip(items).zip(like).map(place).collect())
    }
}

impl BundleNewcomers {
    /// All that is known of an item; an embedding of another length is none.
    fn source<'a>(&self, item: &'a DescribedItem) -> ItemSource<'a> {
        let embedding = item.embedding.as_deref().filter(|_| self.fault(item).is_none());
        ItemSource { text: item.text.as_deref(), embedding, ..kept(&item.item) }
    }
}

/// What a bundle keeps of an item.
fn kept(item: &Item) -> ItemSource<'_> {
    ItemSource {
        title: item.title.as_deref(),
        text: None,
        brand: item.brand.as_deref(),
        categories: &item.categories,
        price: item.price,
        embedding: None,
    }
}

impl fmt::Debug for BundleNewcomers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BundleNewcomers").field("learnt", &self.learnt.len()).finish_non_exhaustive()
    }
}
