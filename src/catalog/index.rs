//! The immutable index of one bundle's items.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use thiserror::Error;

use crate::domain::{CodeTable, Filter, Item, ItemNumber, Token};

use super::attributes::Attributes;
use super::candidates::Candidates;
use super::postings::{Cooccurrence, Postings};

/// One item as the bundle holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogItem {
    /// What its owner says of it.
    pub item: Item,
    /// Its class of the category head: below the number of category names.
    pub category: u32,
    /// Smoothed log popularity in the training part; finite.
    pub prior: f32,
}

/// Why items do not make an index.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CatalogError {
    /// One item is wrong.
    #[error("item {number} (id {id:?}): {reason}")]
    Item {
        /// Its place among the items.
        number: usize,
        /// Its id.
        id: String,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// Items and codes do not belong together.
    #[error("{items} items but {codes} codes: expected one code an item")]
    Codes {
        /// Rows of the item list.
        items: usize,
        /// Rows of the code table.
        codes: usize,
    },
}

/// All that serving knows of one bundle's items. Immutable; swapped whole.
#[derive(Debug, Clone)]
pub struct Index {
    items: Vec<CatalogItem>,
    numbers: HashMap<Box<str>, ItemNumber>,
    codes: CodeTable,
    postings: Postings,
    cooccurrence: Option<Cooccurrence>,
    attributes: Attributes,
    eligible: Candidates,
    category_names: Vec<String>,
    version: String,
}

impl Index {
    /// Checks every item and builds the look-ups. `items[n]` has the code `codes.code(n)`; `category_names[c]` is the
    /// name of class c of the category head.
    ///
    /// # Errors
    /// The first item whose id is empty or was there before, whose price is negative or no number, whose category has
    /// no name, or whose prior is not finite; or a code table of another length.
    pub fn build(
        items: Vec<CatalogItem>,
        codes: CodeTable,
        category_names: Vec<String>,
        version: String,
    ) -> Result<Index, CatalogError> {
        if items.len() != codes.items() || ItemNumber::try_from(items.len()).is_err() {
            return Err(CatalogError::Codes { items: items.len(), codes: codes.items() });
        }
        let mut numbers = HashMap::with_capacity(items.len());
        for (number, entry) in items.iter().enumerate() {
            let refuse = |reason: String| Err(CatalogError::Item { number, id: entry.item.id.clone(), reason });
            if let Some(reason) = fault(entry, category_names.len()) {
                return refuse(reason);
            }
            match numbers.entry(Box::from(entry.item.id.as_str())) {
                Entry::Vacant(place) => place.insert(number as ItemNumber),
                Entry::Occupied(first) => return refuse(format!("the id is already that of item {}", first.get())),
            };
        }
        let eligible = items.iter().enumerate().filter(|(_, entry)| entry.item.eligible);
        Ok(Index {
            eligible: Candidates::of(items.len(), eligible.map(|(number, _)| number as ItemNumber)),
            attributes: Attributes::of(items.iter().map(|entry| &entry.item)),
            postings: Postings::of_tokens(&codes),
            cooccurrence: Cooccurrence::of(&codes),
            items,
            numbers,
            codes,
            category_names,
            version,
        })
    }

    /// How many items there are, eligible or not.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no items at all.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items' codes, `[items, M]`.
    pub fn codes(&self) -> &CodeTable {
        &self.codes
    }

    /// The number of the item with this id.
    pub fn number(&self, id: &str) -> Option<ItemNumber> {
        self.numbers.get(id).copied()
    }

    /// The item with this number.
    ///
    /// # Panics
    /// When the number is not below [`Index::len`]: numbers belong to one index.
    pub fn item(&self, number: ItemNumber) -> &CatalogItem {
        &self.items[number as usize]
    }

    /// All items, in the order of their numbers.
    pub fn items(&self) -> &[CatalogItem] {
        &self.items
    }

    /// The names of the category head's classes, by class.
    pub fn category_names(&self) -> &[String] {
        &self.category_names
    }

    /// The version of this index, echoed in answers.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The items whose code holds the token, lowest number first, eligible or not.
    pub fn postings(&self, token: Token) -> &[ItemNumber] {
        self.postings.of(self.codes.shape().flat(token))
    }

    /// Which tokens occur together; none for shapes past [`Cooccurrence::MOST_TOKENS`].
    pub fn cooccurrence(&self) -> Option<&Cooccurrence> {
        self.cooccurrence.as_ref()
    }

    /// The eligible items that pass the filter, less `exclude` (items seen, say). The filter's `exclude_seen` is not
    /// read here: what was seen comes in `exclude`. Numbers and ids that the index does not have exclude nothing.
    pub fn root(&self, filter: &Filter, exclude: &[ItemNumber]) -> Candidates {
        let mut set = self.eligible.clone();
        self.attributes.narrow(&mut set, self.items.len(), filter);
        if !filter.exclude_items.is_empty() {
            set.remove_all(filter.exclude_items.iter().filter_map(|id| self.number(id)));
        }
        if !exclude.is_empty() {
            set.remove_all(exclude.iter().copied());
        }
        set
    }

    /// The items that have the category at any level, lowest number first, eligible or not. A name that no item has gives
    /// none.
    pub fn of_category(&self, name: &str) -> &[ItemNumber] {
        self.attributes.of_category(name)
    }

    /// The k items of the set with the highest prior, best first; ties: lower number first.
    pub fn popular(&self, root: &Candidates, k: usize) -> Vec<ItemNumber> {
        let better = |a: &ItemNumber, b: &ItemNumber| -> Ordering {
            self.item(*b).prior.total_cmp(&self.item(*a).prior).then(a.cmp(b))
        };
        let mut best: Vec<ItemNumber> = root.iter().collect();
        if k < best.len() {
            if k > 0 {
                best.select_nth_unstable_by(k - 1, better);
            }
            best.truncate(k);
        }
        best.sort_unstable_by(better);
        best
    }
}

/// What is wrong with an item on its own, if anything.
fn fault(entry: &CatalogItem, categories: usize) -> Option<String> {
    if entry.item.id.is_empty() {
        return Some("the id is empty".to_owned());
    }
    if let Some(price) = entry.item.price
        && !(price.is_finite() && price >= 0.0)
    {
        return Some(format!("price {price}: expected a finite number that is not negative"));
    }
    if entry.category as usize >= categories {
        return Some(format!("category {}: expected a number below {categories}", entry.category));
    }
    if !entry.prior.is_finite() {
        return Some(format!("prior {}: expected a finite number", entry.prior));
    }
    None
}
