//! A set of items that may be answered: one bit an item.

use std::sync::Arc;

use crate::domain::ItemNumber;

/// Bits in a word.
const BITS: usize = u64::BITS as usize;

/// A set of eligible items of one index. Clones share the bits until one of them changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    words: Arc<Vec<u64>>,
    len: usize,
    catalogue: usize,
}

impl Candidates {
    /// The empty set over `items` items, numbers 0 to `items` - 1.
    pub fn none(items: usize) -> Self {
        Self { words: Arc::new(vec![0; items.div_ceil(BITS)]), len: 0, catalogue: items }
    }

    /// The set of `numbers` over `items` items. Numbers that are not below `items` are left out.
    pub fn of(items: usize, numbers: impl IntoIterator<Item = ItemNumber>) -> Self {
        let mut set = Self::none(items);
        set.insert_all(numbers.into_iter().filter(|&number| (number as usize) < items));
        set
    }

    /// How many items are in the set.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no item is in the set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many items there are in the index that the set was drawn from.
    pub fn catalogue_len(&self) -> usize {
        self.catalogue
    }

    /// Whether the item is in the set; false for numbers that the index does not have.
    pub fn contains(&self, number: ItemNumber) -> bool {
        let at = number as usize;
        self.words.get(at / BITS).is_some_and(|word| word >> (at % BITS) & 1 == 1)
    }

    /// The items, lowest number first.
    pub fn iter(&self) -> impl Iterator<Item = ItemNumber> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| Ones(word).map(move |bit| (at * BITS) as u32 + bit))
    }

    /// Leaves the values of the set's items as they are, and puts `other` in the place of all others. `values` has one for
    /// every item of the index, which may have grown since the set was drawn.
    pub fn keep_of(&self, values: &mut [f32], other: f32) {
        let words = self.words.iter().copied().chain(std::iter::repeat(0));
        for (values, word) in values.chunks_mut(BITS).zip(words) {
            if word != u64::MAX {
                let out = values.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
                out.for_each(|(_, value)| *value = other);
            }
        }
    }

    /// Adds numbers; those past the last word are ignored.
    pub(super) fn insert_all(&mut self, numbers: impl IntoIterator<Item = ItemNumber>) {
        let (words, mut added) = (Arc::make_mut(&mut self.words), 0);
        numbers.into_iter().for_each(|number| {
            if let Some(word) = words.get_mut(number as usize / BITS) {
                let bit = 1 << (number as usize % BITS);
                added += usize::from(*word & bit == 0);
                *word |= bit;
            }
        });
        self.len += added;
    }

    /// Takes numbers out; those that are not in the set are ignored.
    pub(super) fn remove_all(&mut self, numbers: impl IntoIterator<Item = ItemNumber>) {
        let (words, mut removed) = (Arc::make_mut(&mut self.words), 0);
        numbers.into_iter().for_each(|number| {
            if let Some(word) = words.get_mut(number as usize / BITS) {
                let bit = 1 << (number as usize % BITS);
                removed += usize::from(*word & bit != 0);
                *word &= !bit;
            }
        });
        self.len -= removed;
    }

    /// Leaves only the items whose value is to be kept; `values` holds one an item.
    pub(super) fn retain_where<T>(&mut self, values: &[T], keep: impl Fn(&T) -> bool) {
        let words = Arc::make_mut(&mut self.words);
        for (word, values) in words.iter_mut().zip(values.chunks(BITS)).filter(|(word, _)| **word != 0) {
            let kept = |kept: u64, (bit, value): (usize, &T)| kept | u64::from(keep(value)) << bit;
            *word &= values.iter().enumerate().fold(0, kept);
        }
        self.len = words.iter().map(|word| word.count_ones() as usize).sum();
    }

    /// The items that are not in the other set, put behind what `list` holds.
    pub(super) fn less_into(&self, other: &Candidates, list: &mut Vec<ItemNumber>) {
        for (at, (word, other)) in self.words.iter().zip(other.words.iter()).enumerate() {
            list.extend(Ones(word & !other).map(|bit| (at * BITS) as ItemNumber + bit));
        }
    }

    /// The set whose bits these are; none when they are not one an item of `items` items.
    pub(super) fn of_words(items: usize, words: Vec<u64>) -> Option<Self> {
        let past = words.last().is_some_and(|word| !items.is_multiple_of(BITS) && word >> (items % BITS) != 0);
        let len = words.iter().map(|word| word.count_ones() as usize).sum();
        (words.len() == items.div_ceil(BITS) && !past).then(|| Self { words: Arc::new(words), len, catalogue: items })
    }

    /// One bit an item, 64 to a word.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Leaves only what is in the other set, too.
    pub(super) fn intersect(&mut self, other: &Candidates) {
        let words = Arc::make_mut(&mut self.words);
        for (word, other) in words.iter_mut().zip(other.words.iter()) {
            *word &= other;
        }
        self.len = words.iter().map(|word| word.count_ones() as usize).sum();
    }
}

/// The places of the ones in a word, lowest first.
struct Ones(u64);

impl Iterator for Ones {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let place = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(place)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn values_of_items_outside_of_the_set_are_replaced() {
        let set = Candidates::of(200, (0..200).filter(|n| *n < 64 || n % 5 == 0));
        let mut values: Vec<f32> = (0..400).map(|n| n as f32).collect();
        set.keep_of(&mut values, -1.0);
        for (number, value) in (0..400).zip(values) {
            assert_eq!(value, if set.contains(number) { number as f32 } else { -1.0 });
        }
    }

    #[test]
    fn a_set_holds_each_number_once_in_order() {
        let set = Candidates::of(130, [129, 0, 64, 63, 64, 130, 4_000_000_000]);
        assert_eq!(set.iter().collect::<Vec<_>>(), vec![0, 63, 64, 129]);
        assert_eq!(set.len(), 4);
        assert!(set.contains(129) && !set.contains(130) && !set.contains(u32::MAX));
    }

    #[test]
    fn changing_a_clone_leaves_the_original_alone() {
        let set = Candidates::of(10, 0..10);
        let mut clone = set.clone();
        clone.remove_all([3, 3, 77]);
        clone.intersect(&Candidates::of(10, [2, 3, 4]));
        assert_eq!(clone.iter().collect::<Vec<_>>(), vec![2, 4]);
        assert_eq!((clone.len(), set.len()), (2, 10));
    }
}
