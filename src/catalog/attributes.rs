//! What filters ask for, interned: categories and brands to lists of items, prices to one sorted list.

use std::collections::HashMap;

use crate::domain::{Filter, Item, ItemNumber};

use super::candidates::Candidates;
use super::postings::Postings;

/// Items by category (every level), by brand, and by price.
#[derive(Debug, Clone)]
pub(super) struct Attributes {
    categories: Names,
    brands: Names,
    /// The items that have a price, cheapest first, and their prices beside them.
    by_price: Vec<ItemNumber>,
    prices: Vec<f32>,
}

impl Attributes {
    /// Interns the attributes of all items, in the order of their numbers.
    pub(super) fn of<'a>(items: impl Iterator<Item = &'a Item> + Clone) -> Self {
        let mut priced: Vec<(f32, ItemNumber)> =
            items.clone().enumerate().filter_map(|(n, item)| Some((item.price?, n as ItemNumber))).collect();
        priced.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        Self {
            categories: Names::of(items.clone().map(|item| item.categories.iter())),
            brands: Names::of(items.map(|item| item.brand.iter())),
            by_price: priced.iter().map(|&(_, number)| number).collect(),
            prices: priced.iter().map(|&(price, _)| price).collect(),
        }
    }

    /// Narrows `set` to what passes the filter's categories, brands and prices. Names match exactly; a name that no
    /// item has matches nothing.
    pub(super) fn narrow(&self, set: &mut Candidates, items: usize, filter: &Filter) {
        let includes = [(&filter.include_categories, &self.categories), (&filter.include_brands, &self.brands)];
        for (wanted, names) in includes {
            if !wanted.is_empty() {
                let mut union = Candidates::none(items);
                wanted.iter().for_each(|name| union.insert_all(names.items(name).iter().copied()));
                set.intersect(&union);
            }
        }
        let excludes = [(&filter.exclude_categories, &self.categories), (&filter.exclude_brands, &self.brands)];
        for (unwanted, names) in excludes {
            unwanted.iter().for_each(|name| set.remove_all(names.items(name).iter().copied()));
        }
        if filter.min_price.is_some() || filter.max_price.is_some() {
            set.intersect(&Candidates::of(items, self.between(filter.min_price, filter.max_price).iter().copied()));
        }
    }

    /// The items whose price is in the range, both ends inclusive. A bound that is no number lets nothing pass.
    /// The items that have the category, lowest number first.
    pub(super) fn of_category(&self, name: &str) -> &[ItemNumber] {
        self.categories.items(name)
    }

    fn between(&self, min: Option<f32>, max: Option<f32>) -> &[ItemNumber] {
        if min.is_some_and(f32::is_nan) || max.is_some_and(f32::is_nan) {
            return &[];
        }
        let start = min.map_or(0, |min| self.prices.partition_point(|&price| price < min));
        let end = max.map_or(self.prices.len(), |max| self.prices.partition_point(|&price| price <= max));
        self.by_price.get(start..end).unwrap_or(&[])
    }
}

/// Names and the items that carry them.
#[derive(Debug, Clone)]
struct Names {
    keys: HashMap<Box<str>, usize>,
    postings: Postings,
}

impl Names {
    /// `rows`: the names of each item, in the order of the items' numbers.
    fn of<'a, R: Iterator<Item = &'a String>>(rows: impl Iterator<Item = R>) -> Self {
        let mut keys = HashMap::new();
        let mut pairs = Vec::new();
        for (number, row) in rows.enumerate() {
            let first = pairs.len();
            for name in row {
                let next = keys.len();
                // Looked up before it is copied: most names are already there.
                let key = match keys.get(name.as_str()) {
                    Some(&key) => key,
                    None => *keys.entry(Box::from(name.as_str())).or_insert(next),
                };
                let pair = (key, number as ItemNumber);
                if !pairs[first..].contains(&pair) {
                    pairs.push(pair);
                }
            }
        }
        let postings = Postings::group(keys.len(), || pairs.iter().copied());
        Self { keys, postings }
    }

    fn items(&self, name: &str) -> &[ItemNumber] {
        self.keys.get(name).map_or(&[], |&key| self.postings.of(key))
    }
}
