//! The immutable index of one bundle's items.

use std::cmp::Ordering;

use thiserror::Error;

use crate::domain::{CodeTable, Filter, Item, ItemNumber, Token};

use super::attributes::Attributes;
use super::build::{IndexBuilder, Row};
use super::candidates::Candidates;
use super::code_order::CodeOrder;
use super::cooccurrence::Cooccurrence;
use super::crowds::{Crowds, Mask};
use super::dictionary::Dictionary;
use super::postings::{List, Postings};
use super::titles::Titles;

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

/// All that serving knows of one bundle's items. Immutable; swapped whole. Items are kept in columns and arenas, not as
/// structs: about 60 bytes an item with 8 codebooks of 256 entries and ids of 10 letters (see [`Index::bytes`]).
#[derive(Debug, Clone)]
pub struct Index {
    pub(super) codes: CodeTable,
    pub(super) ids: Dictionary,
    pub(super) titles: Titles,
    pub(super) attributes: Attributes,
    pub(super) priors: Vec<f32>,
    pub(super) eligible: Candidates,
    pub(super) postings: Postings,
    pub(super) cooccurrence: Option<Cooccurrence>,
    /// Of an index for look-ups of paths.
    pub(super) paths: Option<Paths>,
    pub(super) category_names: Vec<String>,
    pub(super) version: String,
}

/// What an index for look-ups of paths has beside the others' parts; its items are numbered in the order of their codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paths {
    pub(super) order: CodeOrder,
    pub(super) crowds: Crowds,
}

/// Bytes of an index in memory, by part. Allocators and growth reserves are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IndexBytes {
    /// The items' codes.
    pub codes: usize,
    /// Items by token.
    pub postings: usize,
    /// Masks of the tokens that occur together.
    pub cooccurrence: usize,
    /// Of an index for look-ups of paths: the order of codes, and the masks of crowds.
    pub paths: usize,
    /// Ids and the look-up by id.
    pub ids: usize,
    /// Priors, eligibility, prices, and the numbers of kinds and brands.
    pub columns: usize,
    /// Names of categories and brands, and items by kind and brand.
    pub attributes: usize,
    /// Titles; none when they are read from the saved index.
    pub titles: usize,
}

impl IndexBytes {
    /// All parts together.
    pub fn total(&self) -> usize {
        let Self { codes, postings, cooccurrence, paths, ids, columns, attributes, titles } = self;
        codes + postings + cooccurrence + paths + ids + columns + attributes + titles
    }
}

impl Index {
    /// Checks every item and builds the look-ups. `items[n]` has the code `codes.code(n)`; `category_names[c]` is the
    /// name of class c of the category head. [`IndexBuilder`] does the same without all items in memory at once.
    ///
    /// # Errors
    /// The first item whose id is empty, whose price is negative or no number, whose category has no name, or whose prior
    /// is not finite; a code table of another length; or the first item whose id was there before.
    pub fn build(
        items: Vec<CatalogItem>,
        codes: CodeTable,
        category_names: Vec<String>,
        version: String,
    ) -> Result<Index, CatalogError> {
        if items.len() != codes.items() {
            return Err(CatalogError::Codes { items: items.len(), codes: codes.items() });
        }
        let mut builder = IndexBuilder::new(category_names);
        for entry in items {
            builder.push(&Row::from(&entry), entry.item.categories.iter().map(String::as_str))?;
        }
        builder.finish(codes, version)
    }

    /// How many items there are, eligible or not.
    pub fn len(&self) -> usize {
        self.priors.len()
    }

    /// Whether there are no items at all.
    pub fn is_empty(&self) -> bool {
        self.priors.is_empty()
    }

    /// The items' codes, `[items, M]`.
    pub fn codes(&self) -> &CodeTable {
        &self.codes
    }

    /// The number of the item with this id.
    pub fn number(&self, id: &str) -> Option<ItemNumber> {
        self.ids.number(id).map(|number| number as ItemNumber)
    }

    /// The item with this number, put together from its columns: made for showing, not for loops. What one column says is
    /// cheaper by [`Index::id`], [`Index::prior`], [`Index::class`], [`Index::is_eligible`].
    ///
    /// # Panics
    /// When the number is not below [`Index::len`]: numbers belong to one index.
    pub fn item(&self, number: ItemNumber) -> CatalogItem {
        let at = number as usize;
        let item = Item {
            id: self.id(number).to_owned(),
            title: self.titles.get(at),
            brand: self.attributes.brand(at).map(str::to_owned),
            categories: self.attributes.path(at).map(str::to_owned).collect(),
            price: self.attributes.price(at),
            eligible: self.is_eligible(number),
        };
        CatalogItem { item, category: self.class(number), prior: self.prior(number) }
    }

    /// All items, in the order of their numbers, each as [`Index::item`] makes it.
    pub fn items(&self) -> impl ExactSizeIterator<Item = CatalogItem> + '_ {
        // One less than there are numbers, so that the end is one, too.
        (0..self.len() as ItemNumber).map(|number| self.item(number))
    }

    /// The owner's id of an item.
    ///
    /// # Panics
    /// When the number is not below [`Index::len`].
    pub fn id(&self, number: ItemNumber) -> &str {
        assert!((number as usize) < self.len(), "item {number} of an index of {}", self.len());
        self.ids.texts.get(number as usize).unwrap_or_default()
    }

    /// The smoothed log popularity of an item.
    ///
    /// # Panics
    /// When the number is not below [`Index::len`].
    pub fn prior(&self, number: ItemNumber) -> f32 {
        self.priors[number as usize]
    }

    /// An item's class of the category head; zero past the end.
    pub fn class(&self, number: ItemNumber) -> u32 {
        self.attributes.class(number as usize)
    }

    /// The number of the item's first, coarsest category: the same name has the same number. None where it has none.
    pub fn first_category(&self, number: ItemNumber) -> Option<u32> {
        self.attributes.first(number as usize)
    }

    /// Whether the item may be answered; false for numbers that the index does not have.
    pub fn is_eligible(&self, number: ItemNumber) -> bool {
        self.eligible.contains(number)
    }

    /// Every eligible item.
    pub fn eligible(&self) -> &Candidates {
        &self.eligible
    }

    /// What the index holds in memory, by part.
    pub fn bytes(&self) -> IndexBytes {
        let (columns, attributes) = self.attributes.bytes();
        let shape = self.codes.shape();
        let wide = if self.codes.bytes().is_some() { 1 } else { 2 };
        IndexBytes {
            codes: wide * shape.codebooks * self.len(),
            postings: self.postings.bytes(),
            cooccurrence: self.cooccurrence.as_ref().map_or(0, |masks| 8 * masks.words().len()),
            paths: self.paths.as_ref().map_or(0, |paths| paths.order.bytes() + paths.crowds.bytes()),
            ids: self.ids.bytes(),
            columns: columns + 4 * self.priors.len() + 8 * self.eligible.words().len(),
            attributes,
            titles: self.titles.bytes(),
        }
    }

    /// The names of the category head's classes, by class.
    pub fn category_names(&self) -> &[String] {
        &self.category_names
    }

    /// The version of this index, echoed in answers.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The items whose code holds the token, eligible or not: lowest number first.
    pub fn postings(&self, token: Token) -> List<'_> {
        let list = self.postings.of(self.codes.shape().flat(token));
        self.code_order().map_or(list, |order| order.list(token, list))
    }

    /// Of an index for look-ups of paths: the order of codes.
    pub(super) fn code_order(&self) -> Option<&CodeOrder> {
        self.paths.as_ref().map(|paths| &paths.order)
    }

    /// What may follow a path of two tokens and more that many items have; none where it is not kept.
    pub(super) fn crowd(&self, path: &[Token]) -> Option<Mask<'_>> {
        self.paths.as_ref()?.crowds.mask(path)
    }

    /// Which tokens occur together; none for shapes past [`Cooccurrence::MOST_TOKENS`].
    pub fn cooccurrence(&self) -> Option<&Cooccurrence> {
        self.cooccurrence.as_ref()
    }

    /// The eligible items that pass the filter, less `exclude` (items seen, say). The filter's `exclude_seen` is not
    /// read here: what was seen comes in `exclude`. Numbers and ids that the index does not have exclude nothing.
    pub fn root(&self, filter: &Filter, exclude: &[ItemNumber]) -> Candidates {
        let mut set = self.eligible.clone();
        self.attributes.narrow(&mut set, self.len(), filter);
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
    pub fn of_category(&self, name: &str) -> Vec<ItemNumber> {
        self.attributes.of_category(name)
    }

    /// The k items of the set with the highest prior, best first; ties: lower number first.
    pub fn popular(&self, root: &Candidates, k: usize) -> Vec<ItemNumber> {
        let better =
            |a: &ItemNumber, b: &ItemNumber| -> Ordering { self.prior(*b).total_cmp(&self.prior(*a)).then(a.cmp(b)) };
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
