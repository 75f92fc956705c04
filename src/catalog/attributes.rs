//! What filters ask for, interned: categories and brands to lists of items, prices in a column.

use std::collections::HashMap;

use crate::domain::{Filter, ItemNumber};

use super::candidates::Candidates;
use super::column::Column;
use super::dictionary::{Dictionary, Texts};
use super::postings::Postings;

/// Items by category (every level), by brand, and by price.
#[derive(Debug, Clone)]
pub(super) struct Attributes {
    /// `[items]`: each item's kind.
    pub(super) kind_of: Column,
    pub(super) kinds: Kinds,
    pub(super) by_kind: Postings,
    pub(super) categories: Dictionary,
    /// Category to the kinds whose path has it.
    pub(super) kinds_with: Rows,
    /// `[items]`: zero for no brand, else its number plus one.
    pub(super) brand_of: Column,
    pub(super) brands: Dictionary,
    pub(super) by_brand: Postings,
    /// `[items]`: NaN where there is none.
    pub(super) prices: Vec<f32>,
}

/// Few numbers to each row, in one array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rows {
    /// `[rows + 1]`
    pub(super) starts: Vec<u32>,
    pub(super) values: Vec<u32>,
}

impl Default for Rows {
    fn default() -> Self {
        Self { starts: vec![0], values: Vec::new() }
    }
}

impl Rows {
    pub(super) fn push(&mut self, row: &[u32]) {
        self.values.extend_from_slice(row);
        self.starts.push(self.values.len() as u32);
    }

    /// One row; nothing past the end.
    pub(super) fn get(&self, at: usize) -> &[u32] {
        let (start, end) = (self.starts.get(at), self.starts.get(at + 1));
        start.zip(end).and_then(|(&start, &end)| self.values.get(start as usize..end as usize)).unwrap_or(&[])
    }

    fn bytes(&self) -> usize {
        4 * (self.starts.len() + self.values.len())
    }
}

/// The distinct pairs of a category path and a class of the category head: far fewer than items.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    /// Their paths' categories, coarse to fine.
    pub(super) paths: Rows,
    /// Their classes.
    pub(super) classes: Vec<u32>,
}

impl Attributes {
    /// What the items of `draft` have; `items` is how many there are.
    pub(super) fn of(draft: AttributesDraft) -> Self {
        let AttributesDraft { mut kind_of, kinds, categories, mut brand_of, brands, mut prices, .. } = draft;
        kind_of.bytes.shrink_to_fit();
        brand_of.bytes.shrink_to_fit();
        prices.shrink_to_fit();
        let items = prices.len();
        let numbered = |column: &Column| -> Vec<u32> { column.iter().collect() };
        let (by_kind, by_brand) = rayon::join(
            || {
                let of = numbered(&kind_of);
                Postings::group(kinds.classes.len(), items, || {
                    of.iter().zip(0..).map(|(&kind, item)| (kind as usize, item))
                })
            },
            || {
                let of = numbered(&brand_of);
                Postings::group(brands.texts.len(), items, || {
                    of.iter().zip(0..).filter_map(|(&brand, item)| Some((brand.checked_sub(1)? as usize, item)))
                })
            },
        );
        let mut with = vec![Vec::new(); categories.texts.len()];
        for kind in 0..kinds.classes.len() {
            let path = kinds.paths.get(kind);
            for (level, &category) in path.iter().enumerate() {
                if !path[..level].contains(&category) {
                    with[category as usize].push(kind as u32);
                }
            }
        }
        let mut kinds_with = Rows::default();
        with.iter().for_each(|kinds| kinds_with.push(kinds));
        let (categories, brands) = (categories.dictionary(), brands.dictionary());
        Self { kind_of, kinds, by_kind, categories, kinds_with, brand_of, brands, by_brand, prices }
    }

    /// Narrows `set` to what passes the filter's categories, brands and prices. Names match exactly; a name that no
    /// item has matches nothing.
    pub(super) fn narrow(&self, set: &mut Candidates, items: usize, filter: &Filter) {
        if !filter.include_categories.is_empty() {
            let mut union = Candidates::none(items);
            filter.include_categories.iter().for_each(|name| self.insert_category(&mut union, name));
            set.intersect(&union);
        }
        if !filter.include_brands.is_empty() {
            let mut union = Candidates::none(items);
            let lists = filter.include_brands.iter().filter_map(|name| self.brands.number(name));
            lists.for_each(|brand| union.insert_all(self.by_brand.of(brand)));
            set.intersect(&union);
        }
        for name in &filter.exclude_categories {
            self.kinds_of(name).iter().for_each(|&kind| set.remove_all(self.by_kind.of(kind as usize)));
        }
        for brand in filter.exclude_brands.iter().filter_map(|name| self.brands.number(name)) {
            set.remove_all(self.by_brand.of(brand));
        }
        if filter.min_price.is_some() || filter.max_price.is_some() {
            // An item without a price has NaN, which is in no range; a bound that is no number lets nothing pass.
            let (min, max) = (filter.min_price.unwrap_or(0.0), filter.max_price.unwrap_or(f32::INFINITY));
            set.retain_where(&self.prices, |&price| price >= min && price <= max);
        }
    }

    /// The items that have the category.
    pub(super) fn of_category(&self, name: &str) -> Vec<ItemNumber> {
        match self.kinds_of(name) {
            [] => Vec::new(),
            &[kind] => self.by_kind.of(kind as usize).to_vec(),
            kinds => {
                let lists = kinds.iter().map(|&kind| self.by_kind.of(kind as usize));
                let mut numbers: Vec<ItemNumber> = lists.flatten().collect();
                numbers.sort_unstable();
                numbers
            }
        }
    }

    fn insert_category(&self, set: &mut Candidates, name: &str) {
        self.kinds_of(name).iter().for_each(|&kind| set.insert_all(self.by_kind.of(kind as usize)));
    }

    fn kinds_of(&self, category: &str) -> &[u32] {
        self.categories.number(category).map_or(&[], |number| self.kinds_with.get(number))
    }

    /// The item's class of the category head.
    pub(super) fn class(&self, item: usize) -> u32 {
        self.kinds.classes.get(self.kind_of.get(item) as usize).copied().unwrap_or(0)
    }

    /// The number of the item's first category.
    pub(super) fn first(&self, item: usize) -> Option<u32> {
        self.kinds.paths.get(self.kind_of.get(item) as usize).first().copied()
    }

    /// The item's categories, coarse to fine.
    pub(super) fn path(&self, item: usize) -> impl Iterator<Item = &str> {
        let path = self.kinds.paths.get(self.kind_of.get(item) as usize);
        path.iter().filter_map(|&category| self.categories.texts.get(category as usize))
    }

    pub(super) fn brand(&self, item: usize) -> Option<&str> {
        self.brands.texts.get(self.brand_of.get(item).checked_sub(1)? as usize)
    }

    pub(super) fn price(&self, item: usize) -> Option<f32> {
        self.prices.get(item).copied().filter(|price| !price.is_nan())
    }

    /// Bytes held: of the columns, and of the look-ups by name.
    pub(super) fn bytes(&self) -> (usize, usize) {
        let columns = self.kind_of.bytes.len() + self.brand_of.bytes.len() + 4 * self.prices.len();
        let names = self.categories.bytes() + self.brands.bytes() + self.kinds_with.bytes();
        let kinds = self.kinds.paths.bytes() + 4 * self.kinds.classes.len();
        (columns, names + kinds + self.by_kind.bytes() + self.by_brand.bytes())
    }
}

/// Attributes as they come in, item after item.
#[derive(Debug, Default)]
pub(super) struct AttributesDraft {
    kind_of: Column,
    kinds: Kinds,
    kind_numbers: HashMap<Box<[u32]>, u32>,
    categories: Names,
    brand_of: Column,
    brands: Names,
    prices: Vec<f32>,
    /// Class and path of the item at hand.
    key: Vec<u32>,
}

impl AttributesDraft {
    pub(super) fn push<'a>(
        &mut self,
        class: u32,
        path: impl Iterator<Item = &'a str>,
        brand: Option<&str>,
        price: Option<f32>,
    ) {
        self.key.clear();
        self.key.push(class);
        for name in path {
            self.key.push(self.categories.number(name));
        }
        // Looked up before it is copied: most are already there.
        let kind = match self.kind_numbers.get(self.key.as_slice()) {
            Some(&kind) => kind,
            None => {
                let kind = self.kind_numbers.len() as u32;
                self.kind_numbers.insert(self.key.as_slice().into(), kind);
                self.kinds.classes.push(class);
                self.kinds.paths.push(&self.key[1..]);
                kind
            }
        };
        self.kind_of.push(kind);
        self.brand_of.push(brand.map_or(0, |name| self.brands.number(name) + 1));
        self.prices.push(price.unwrap_or(f32::NAN));
    }

    /// Those of these items, in their order.
    pub(super) fn in_order(self, items: &[u32]) -> Self {
        let prices = items.iter().map(|&item| self.prices[item as usize]).collect();
        Self { kind_of: self.kind_of.in_order(items), brand_of: self.brand_of.in_order(items), prices, ..self }
    }
}

/// Distinct names as they come in.
#[derive(Debug, Default)]
struct Names {
    texts: Texts,
    numbers: HashMap<Box<str>, u32>,
}

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.texts.len() as u32;
        self.texts.push(name);
        self.numbers.insert(name.into(), number);
        number
    }

    fn dictionary(self) -> Dictionary {
        // Distinct by the way they came in.
        Dictionary::of(self.texts).unwrap_or_else(|_| Dictionary { texts: Texts::default(), slots: vec![0] })
    }
}
