//! Which tokens may follow a prefix when codes are written in the codebooks' order.

use std::ops::Range;

use crate::domain::{CodeTable, ItemNumber};

/// The items in the order of their codes, so that the items of a prefix lie side by side.
#[derive(Debug)]
pub struct Prefixes<'a> {
    codes: &'a CodeTable,
    sorted: Vec<ItemNumber>,
    /// Place of each item among the sorted ones.
    places: Vec<usize>,
}

impl<'a> Prefixes<'a> {
    /// The prefixes of the items of `codes`.
    pub fn of(codes: &'a CodeTable) -> Self {
        let mut sorted: Vec<ItemNumber> = (0..codes.items() as ItemNumber).collect();
        sorted.sort_by_key(|&item| codes.code(item));
        let mut places = vec![0; sorted.len()];
        sorted.iter().enumerate().for_each(|(place, &item)| places[item as usize] = place);
        Self { codes, sorted, places }
    }

    /// The codes.
    pub fn codes(&self) -> &'a CodeTable {
        self.codes
    }

    /// The empty prefix: all items.
    pub fn all(&self) -> Range<usize> {
        0..self.sorted.len()
    }

    /// The items of a prefix.
    pub fn items(&self, prefix: Range<usize>) -> &[ItemNumber] {
        &self.sorted[prefix]
    }

    /// The first `depth` tokens of an item: everything that shares them.
    pub fn of_item(&self, item: ItemNumber, depth: usize) -> Range<usize> {
        let place = self.places[item as usize];
        let head = self.codes.code(item).head(depth);
        let from = self.sorted[..place].partition_point(|&other| self.codes.code(other).head(depth) < head);
        let to = place + self.sorted[place..].partition_point(|&other| self.codes.code(other).head(depth) <= head);
        from..to
    }

    /// The tokens that continue a prefix of `depth` tokens, ascending, each with the prefix that it makes.
    pub fn children(&self, prefix: Range<usize>, depth: usize) -> impl Iterator<Item = (u16, Range<usize>)> + '_ {
        let mut from = prefix.start;
        std::iter::from_fn(move || {
            let entry = self.codes.code(*self.sorted[..prefix.end].get(from)?)[depth];
            let within = &self.sorted[from..prefix.end];
            let to = from + within.partition_point(|&item| self.codes.code(item)[depth] <= entry);
            let child = from..to;
            from = to;
            Some((entry, child))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CodeShape;

    #[test]
    fn children_are_the_tokens_of_the_items_that_share_a_prefix() {
        let shape = CodeShape { codebooks: 3, entries: 4 };
        let codes = CodeTable::new(shape, vec![2, 1, 0, 0, 3, 3, 2, 1, 3, 2, 0, 1, 2, 1, 0]).unwrap();
        let prefixes = Prefixes::of(&codes);
        let entries = |prefix, depth| prefixes.children(prefix, depth).map(|(entry, _)| entry).collect::<Vec<_>>();
        assert_eq!(entries(prefixes.all(), 0), [0, 2]);
        for (item, depth, expected) in [(0, 1, vec![0, 1]), (0, 2, vec![0, 3]), (3, 2, vec![1]), (1, 1, vec![3])] {
            assert_eq!(entries(prefixes.of_item(item, depth), depth), expected, "item {item}, depth {depth}");
        }
        let mut same = prefixes.items(prefixes.of_item(4, 3)).to_vec();
        same.sort_unstable();
        assert_eq!(same, [0, 4]);
        assert_eq!(prefixes.of_item(2, 0), prefixes.all());
    }
}
