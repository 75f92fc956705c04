//! Items in the order of their codes.

use std::ops::Range;

use rayon::prelude::*;

use crate::domain::{CodeTable, ItemNumber, Token};

use super::postings::List;

/// Where the items of a token stand when items are numbered in the order of their codes. Look-ups of several tokens then
/// read less: items of like codes stand together, so that two lists share few stretches. The first codebook needs no
/// lists at all: the items of each of its entries are one stretch. Those of an entry of the second are a stretch within
/// each of these, and in large catalogues it is known where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CodeOrder {
    /// `[D + 1]`: where the items of each entry of the first codebook begin.
    pub(super) runs: Vec<u32>,
    /// `[D * D + 1]`: where the items of each entry of the first codebook with each of the second begin; empty where that
    /// would take more than half a byte an item.
    pub(super) pairs: Vec<u32>,
}

/// Items for each pair of entries, from which on it is known where those of a pair stand.
const ITEMS_A_PAIR: usize = 8;

impl CodeOrder {
    /// Of items whose codes are in order.
    pub(super) fn of(codes: &CodeTable) -> Self {
        let (shape, items) = (codes.shape(), codes.items());
        let runs = begins(shape.entries, codes_of(codes, 0));
        let large = shape.codebooks > 1 && has_pairs(shape.entries, items);
        let pairs = large.then(|| {
            let pair = codes_of(codes, 0).zip(codes_of(codes, 1));
            begins(shape.entries * shape.entries, pair.map(|(first, second)| first * shape.entries + second))
        });
        Self { runs, pairs: pairs.unwrap_or_default() }
    }

    /// What was saved, or what is wrong with it.
    pub(super) fn of_parts(runs: Vec<u32>, pairs: Vec<u32>, items: usize, entries: usize) -> Result<Self, String> {
        let begin = |begins: &[u32], keys: usize| {
            begins.len() == keys + 1
                && begins.windows(2).all(|two| two[0] <= two[1])
                && (begins.first(), begins.last()) == (Some(&0), Some(&(items as u32)))
        };
        if !begin(&runs, entries) || !(pairs.is_empty() || begin(&pairs, entries * entries)) {
            return Err("order: stretches of another catalogue".to_owned());
        }
        Ok(Self { runs, pairs })
    }

    /// A token's items; `list` is what the postings hold of it.
    pub(super) fn list<'a>(&'a self, token: Token, list: List<'a>) -> List<'a> {
        let entry = usize::from(token.entry);
        let run = match (token.codebook, self.runs.get(entry), self.runs.get(entry + 1)) {
            (0, Some(&start), Some(&end)) => (start, end),
            _ => (0, 0),
        };
        list.or_run(run)
    }

    /// Where the items stand that have an entry of the second codebook: with one of the first, or with each of them, one after
    /// another; none where that is not known.
    pub(super) fn stretches(&self, first: Option<u16>, second: u16) -> Option<impl Iterator<Item = Range<usize>> + '_> {
        let entries = self.runs.len() - 1;
        let firsts = first.map_or(0..entries, |first| usize::from(first)..usize::from(first) + 1);
        let stretch = move |first: usize| {
            let pair = first * entries + usize::from(second);
            Some(*self.pairs.get(pair)? as usize..*self.pairs.get(pair + 1)? as usize)
        };
        (!self.pairs.is_empty()).then(|| firsts.filter_map(stretch).filter(|stretch| !stretch.is_empty()))
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        4 * (self.runs.len() + self.pairs.len())
    }
}

/// The items in the order of their codes, sorted on all threads; none where they come so. Those whose codes agree in as
/// many codebooks as 64 bits hold stay in the order in which they come.
pub(super) fn in_code_order(codes: &CodeTable) -> Option<Vec<ItemNumber>> {
    let (shape, items) = (codes.shape(), codes.items());
    let bits = usize::BITS - (shape.entries - 1).leading_zeros();
    let read = (64 / bits as usize).min(shape.codebooks);
    let key =
        |item: ItemNumber| codes.code(item).iter().take(read).fold(0u64, |key, &entry| key << bits | u64::from(entry));
    let ascending = |item: ItemNumber| key(item) <= key(item + 1);
    if (0..items.saturating_sub(1) as ItemNumber).into_par_iter().all(ascending) {
        return None;
    }
    let mut order: Vec<(u64, ItemNumber)> =
        (0..items as ItemNumber).into_par_iter().map(|item| (key(item), item)).collect();
    order.par_sort_unstable();
    // Copied: taken over, it would keep the memory of the keys.
    Some(order.iter().map(|&(_, item)| item).collect())
}

/// Whether so many items are enough to say where those of each pair of entries stand.
fn has_pairs(entries: usize, items: usize) -> bool {
    entries.checked_mul(entries).is_some_and(|pairs| items / ITEMS_A_PAIR >= pairs)
}

/// For each of so many keys how many have a lower one, and how many there are.
fn begins(keys: usize, of: impl Iterator<Item = usize>) -> Vec<u32> {
    let mut begins = vec![0u32; keys + 1];
    of.for_each(|key| begins[key + 1] += 1);
    (0..keys).for_each(|key| begins[key + 1] += begins[key]);
    begins
}

/// The entry of every item in one codebook.
fn codes_of(codes: &CodeTable, codebook: usize) -> impl Iterator<Item = usize> + '_ {
    (0..codes.items() as ItemNumber).map(move |item| usize::from(codes.code(item)[codebook]))
}
