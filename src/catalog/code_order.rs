//! Items by places in the order of their codes.

use rayon::prelude::*;

use crate::domain::{CodeTable, ItemNumber, Token};

use super::column::Column;
use super::postings::List;

/// Says which item stands at which place when items are in the order of their codes. Lists of places instead of item numbers
/// make look-ups of several tokens read less: items of like codes stand together, so that two lists share few stretches. The
/// first codebook needs no lists at all: the items of each of its entries are one stretch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CodeOrder {
    /// `[items]`: the item at each place; none where items are numbered in the order of their codes.
    pub(super) items: Option<Column>,
    /// `[D + 1]`: where the items of each entry of the first codebook begin.
    pub(super) runs: Vec<u32>,
}

impl CodeOrder {
    /// Sorts the items, on all threads; answers also the codes by place, `[items, M]`. Items whose codes agree in as many
    /// codebooks as 64 bits hold are in the order of their numbers.
    pub(super) fn of(codes: &CodeTable) -> (Self, CodeTable) {
        let (shape, items) = (codes.shape(), codes.items());
        let bits = usize::BITS - (shape.entries - 1).leading_zeros();
        let read = (64 / bits as usize).min(shape.codebooks);
        let key = |item: ItemNumber| {
            codes.code(item).iter().take(read).fold(0u64, |key, &entry| key << bits | u64::from(entry))
        };
        let mut runs = vec![0u32; shape.entries + 1];
        codes_of(codes, 0).for_each(|entry| runs[entry + 1] += 1);
        (0..shape.entries).for_each(|entry| runs[entry + 1] += runs[entry]);

        let ascending = |item: ItemNumber| key(item) <= key(item + 1);
        if (0..items.saturating_sub(1) as ItemNumber).into_par_iter().all(ascending) {
            return (Self { items: None, runs }, codes.clone());
        }
        let mut order: Vec<(u64, ItemNumber)> =
            (0..items as ItemNumber).into_par_iter().map(|item| (key(item), item)).collect();
        order.par_sort_unstable();
        let width = (1..4).find(|width| items >> (8 * width) == 0).unwrap_or(4);
        let numbers = order.iter().flat_map(|(_, item)| item.to_le_bytes().into_iter().take(width));
        let mut bytes = Vec::with_capacity(items * width);
        bytes.extend(numbers);
        let by_place = codes.in_order(order.iter().map(|(_, item)| *item));
        (Self { items: Some(Column { width, bytes }), runs }, by_place)
    }

    /// What was saved, or what is wrong with it.
    pub(super) fn of_parts(
        items: Option<Column>,
        runs: Vec<u32>,
        count: usize,
        entries: usize,
    ) -> Result<Self, String> {
        let ascending = runs.windows(2).all(|pair| pair[0] <= pair[1]) && runs.first() == Some(&0);
        if runs.len() != entries + 1 || !ascending || runs.last().is_none_or(|&last| last as usize != count) {
            return Err("order: stretches of another catalogue".to_owned());
        }
        if items.iter().flat_map(Column::iter).any(|item| item as usize >= count) {
            return Err("order: items that there are not".to_owned());
        }
        Ok(Self { items, runs })
    }

    /// A token's list of places, told as items; `list` is what the postings hold of it.
    pub(super) fn list<'a>(&'a self, token: Token, list: List<'a>) -> List<'a> {
        let entry = usize::from(token.entry);
        let run = match (token.codebook, self.runs.get(entry), self.runs.get(entry + 1)) {
            (0, Some(&start), Some(&end)) => (start, end),
            _ => (0, 0),
        };
        list.by_place(run, self.items.as_ref())
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.items.as_ref().map_or(0, |items| items.bytes.len()) + 4 * self.runs.len()
    }
}

/// The entry of every item in one codebook.
fn codes_of(codes: &CodeTable, codebook: usize) -> impl Iterator<Item = usize> + '_ {
    (0..codes.items() as ItemNumber).map(move |item| usize::from(codes.code(item)[codebook]))
}
