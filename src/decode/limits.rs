//! How many items of a kind one answer may hold.

use std::collections::BTreeMap;

use crate::catalog::{Candidates, Index};
use crate::domain::ItemNumber;

/// Most items of each first category, and of named sets of items. An answer is the best items that the limits let pass, best
/// first: what is beyond a limit makes room for the next best. Items without a category count towards none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Limits {
    /// Most items of one first category; none: any number.
    pub per_category: Option<usize>,
    /// Items whose first category is another than the index says, by its number there or past all of those.
    pub moved: BTreeMap<ItemNumber, Option<u32>>,
    /// Sets of items, and the most of each.
    pub sets: Vec<(Candidates, usize)>,
}

impl Limits {
    /// Whether they let every answer pass.
    pub fn is_none(&self) -> bool {
        self.per_category.is_none() && self.sets.is_empty()
    }

    /// The number of the item's first category.
    fn category(&self, index: &Index, item: ItemNumber) -> Option<u32> {
        match self.moved.get(&item) {
            Some(category) => *category,
            None => index.first_category(item),
        }
    }

    /// Whether the same limits hold for both.
    fn alike(&self, index: &Index, one: ItemNumber, other: ItemNumber) -> bool {
        let category = |item| self.per_category.and_then(|_| self.category(index, item));
        category(one) == category(other) && self.sets.iter().all(|(set, _)| set.contains(one) == set.contains(other))
    }
}

/// What the limits leave while items are taken one after another.
///
/// Where sets lie within each other or apart, as first categories do, any order of taking fits in as many items: so a list
/// that could not grow when its items were taken never can.
#[derive(Debug, Clone)]
pub(super) struct Room<'a> {
    limits: &'a Limits,
    index: &'a Index,
    /// Limits are wider by this fraction, rounded up.
    wider: (usize, usize),
    /// Items taken of each first category, as far as one was taken.
    of_categories: Vec<usize>,
    /// Items taken of each set.
    of_sets: Vec<usize>,
}

impl<'a> Room<'a> {
    pub(super) fn new(limits: &'a Limits, index: &'a Index) -> Self {
        let of_sets = vec![0; limits.sets.len()];
        Self { limits, index, wider: (1, 1), of_categories: Vec::new(), of_sets }
    }

    /// With limits wider by `times / by`.
    pub(super) fn wider(self, times: usize, by: usize) -> Self {
        Self { wider: (times, by), ..self }
    }

    /// Whether every limit has room for one item more.
    pub(super) fn has(&self, item: ItemNumber) -> bool {
        let (times, by) = self.wider;
        let most = |limit: usize| limit.saturating_mul(times).div_ceil(by);
        let category = || {
            let limit = self.limits.per_category?;
            let taken = self.of_categories.get(self.limits.category(self.index, item)? as usize)?;
            Some(*taken < most(limit))
        };
        let mut sets = self.limits.sets.iter().zip(&self.of_sets).filter(|((set, _), _)| set.contains(item));
        // None was taken yet where there is no number, and every limit of a category is above zero.
        category().unwrap_or(true) && sets.all(|((_, limit), taken)| *taken < most(*limit))
    }

    /// Takes the item where there is room for it, and answers whether there was.
    pub(super) fn take(&mut self, item: ItemNumber) -> bool {
        let has = self.has(item);
        if has {
            let category = self.limits.per_category.and_then(|_| self.limits.category(self.index, item));
            if let Some(category) = category.map(|category| category as usize) {
                self.of_categories.resize(self.of_categories.len().max(category + 1), 0);
                self.of_categories[category] += 1;
            }
            let sets = self.limits.sets.iter().zip(&mut self.of_sets).filter(|((set, _), _)| set.contains(item));
            sets.for_each(|(_, taken)| *taken += 1);
        }
        has
    }

    /// Takes a path's place: a path whose items are all alike takes one place of theirs, and answers false where there is
    /// none left; one that leads to several kinds takes nobody's.
    pub(super) fn take_path(&mut self, held: &[ItemNumber]) -> bool {
        let Some((&first, others)) = held.split_first() else { return true };
        let mixed = others.iter().any(|&other| !self.limits.alike(self.index, first, other));
        mixed || self.take(first)
    }
}
