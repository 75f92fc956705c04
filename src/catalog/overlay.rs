//! What changed of the items since their index was built, over the index: every look-up consults both.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::{CodeTable, Filter, Item, ItemNumber};

use super::candidates::Candidates;
use super::index::{CatalogError, CatalogItem, Index};

/// The items at one moment: an index, and over it the attributes of items that changed since. Immutable: a change makes
/// another view, and whoever has one keeps what it says.
///
/// A number means the same item in every later view of the same bundle: new items get numbers past all others, and none is
/// ever taken back.
#[derive(Debug, Clone)]
pub struct View {
    index: Arc<Index>,
    changed: BTreeMap<ItemNumber, Arc<Item>>,
    version: String,
}

/// An item that an index is to have beside those that it has.
#[derive(Debug, Clone, PartialEq)]
pub struct AddedItem {
    /// The item.
    pub row: CatalogItem,
    /// Its code, one entry a codebook.
    pub code: Vec<u16>,
}

impl View {
    /// What the index says, unchanged.
    pub fn of(index: Arc<Index>) -> Self {
        let version = index.version().to_owned();
        Self { index, changed: BTreeMap::new(), version }
    }

    /// The index underneath: ids, codes, postings and priors. Attributes and eligibility are this view's to tell.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// The version that answers tell: that of the bundle's index, and behind a `+` how often it was changed.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// How many items are not as the index has them.
    pub fn overlaid(&self) -> usize {
        self.changed.len()
    }

    /// The item with this number.
    ///
    /// # Panics
    /// When the index has no such number.
    pub fn item(&self, number: ItemNumber) -> Item {
        match self.changed.get(&number) {
            Some(item) => Item::clone(item),
            None => self.index.item(number).item,
        }
    }

    /// As [`Index::root`], of the items as they are now.
    pub fn root(&self, filter: &Filter, exclude: &[ItemNumber]) -> Candidates {
        let mut set = self.index.root(filter, exclude);
        if !self.changed.is_empty() {
            set.remove_all(self.changed.keys().copied());
            let passing = self.changed.iter().filter(|(_, item)| passes(filter, item));
            set.insert_all(passing.map(|(&number, _)| number));
            set.remove_all(exclude.iter().copied());
        }
        set
    }

    /// The items that have the category at any level, eligible or not.
    pub fn of_category(&self, name: &str) -> Candidates {
        let has = |item: &Item| item.categories.iter().any(|category| category == name);
        let mut set = Candidates::of(self.index.len(), self.index.of_category(name));
        set.remove_all(self.changed.keys().copied());
        set.insert_all(self.changed.iter().filter(|(_, item)| has(item)).map(|(&number, _)| number));
        set
    }

    /// First categories of the items that were changed over the index: their numbers there, and for names that it has not,
    /// numbers past all of those.
    pub fn moved_categories(&self) -> BTreeMap<ItemNumber, Option<u32>> {
        let categories = &self.index.attributes.categories;
        let mut new = BTreeMap::new();
        let moved = self.changed.iter().map(|(&item, changed)| {
            let number = changed.categories.first().map(|name| {
                let past = (categories.texts.len() + new.len()) as u32;
                categories.number(name).map_or_else(|| *new.entry(name).or_insert(past), |number| number as u32)
            });
            (item, number)
        });
        moved.collect()
    }

    /// With these items as they are said to be here. `version` is what answers tell then.
    pub fn with(&self, items: impl IntoIterator<Item = (ItemNumber, Item)>, version: String) -> Self {
        let mut changed = self.changed.clone();
        changed.extend(items.into_iter().map(|(number, item)| (number, Arc::new(item))));
        Self { index: Arc::clone(&self.index), changed, version }
    }

    /// The overlay folded into a new index, which also has `added` items, with the numbers past all others in their order,
    /// and other codes for `recoded` ones. Reads every item once.
    ///
    /// # Errors
    /// As [`Index::build`]; the items of the view itself were checked already.
    pub fn folded(
        &self,
        added: Vec<AddedItem>,
        recoded: &[(ItemNumber, Vec<u16>)],
        version: String,
    ) -> Result<Self, CatalogError> {
        let index = &self.index;
        let codes = index.codes();
        let shape = codes.shape();
        let mut entries = Vec::with_capacity((index.len() + added.len()) * shape.codebooks);
        entries.extend_from_slice(&codes.entries());
        for (number, code) in recoded {
            let start = *number as usize * shape.codebooks;
            if let Some(place) =
                entries.get_mut(start..start + shape.codebooks).filter(|_| code.len() == shape.codebooks)
            {
                place.copy_from_slice(code);
            }
        }
        let mut rows = Vec::with_capacity(index.len() + added.len());
        for number in 0..index.len() as ItemNumber {
            let row = index.item(number);
            rows.push(CatalogItem { item: self.item(number), category: row.category, prior: row.prior });
        }
        for AddedItem { row, code } in added {
            rows.push(row);
            entries.extend(code);
        }
        let refuse = |reason| CatalogError::Item { number: rows.len(), id: String::new(), reason };
        let codes = CodeTable::new(shape, entries).map_err(refuse)?;
        let names = index.category_names().to_vec();
        let index = Index::build(rows, codes, names, index.version().to_owned())?;
        Ok(Self { index: Arc::new(index), changed: BTreeMap::new(), version })
    }
}

/// What the filter means, for one item.
fn passes(filter: &Filter, item: &Item) -> bool {
    let among = |names: &[String]| item.categories.iter().any(|category| names.contains(category));
    let branded = |names: &[String]| item.brand.as_ref().is_some_and(|brand| names.contains(brand));
    let at_least = |min: f32| item.price.is_some_and(|price| price >= min);
    let at_most = |max: f32| item.price.is_some_and(|price| price <= max);
    item.eligible
        && !filter.exclude_items.contains(&item.id)
        && (filter.include_categories.is_empty() || among(&filter.include_categories))
        && !among(&filter.exclude_categories)
        && (filter.include_brands.is_empty() || branded(&filter.include_brands))
        && !branded(&filter.exclude_brands)
        && filter.min_price.is_none_or(at_least)
        && filter.max_price.is_none_or(at_most)
}
