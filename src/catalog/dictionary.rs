//! Texts in one arena, and the number of each by what it says.

use twox_hash::XxHash64;

use super::column::Column;

/// Texts between two absolute places; the places in between take a byte or two.
const GROUP: usize = 16;
/// Seed of the hash; part of the saved form.
const SEED: u64 = 0x5245_4734;
/// Texts to slots: four to five.
const SLOTS: (usize, usize) = (5, 4);

/// Texts one after another, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Texts {
    pub(super) text: String,
    /// Where each group of [`GROUP`] begins.
    pub(super) bases: Vec<u64>,
    /// Where each text ends, counted from its group's beginning.
    pub(super) ends: Column,
}

impl Texts {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Adds a text of less than 256 MiB.
    pub(super) fn push(&mut self, text: &str) {
        if self.len().is_multiple_of(GROUP) {
            self.bases.push(self.text.len() as u64);
        }
        self.text.push_str(text);
        let base = self.bases.last().copied().unwrap_or(0);
        self.ends.push((self.text.len() as u64 - base) as u32);
    }

    /// The text of a number; none past the end.
    pub(super) fn get(&self, number: usize) -> Option<&str> {
        let base = *self.bases.get(number / GROUP).filter(|_| number < self.len())? as usize;
        let start = if number.is_multiple_of(GROUP) { 0 } else { self.ends.get(number - 1) as usize };
        self.text.get(base.checked_add(start)?..base.checked_add(self.ends.get(number) as usize)?)
    }

    /// The texts of these numbers, in their order.
    pub(super) fn in_order(self, numbers: &[u32]) -> Self {
        let mut ordered = Self::default();
        ordered.text.reserve_exact(self.text.len());
        numbers.iter().for_each(|&number| ordered.push(self.get(number as usize).unwrap_or_default()));
        ordered
    }

    /// Gives back what growing reserved.
    pub(super) fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.bases.shrink_to_fit();
        self.ends.bytes.shrink_to_fit();
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.text.len() + 8 * self.bases.len() + self.ends.bytes.len()
    }
}

/// Distinct texts, their numbers found by hashing: a table of 32-bit slots, each a number and in its spare bits a part of
/// the hash, so that nearly no other text is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dictionary {
    pub(super) texts: Texts,
    /// Zero: empty. Else the number plus one in the low bits, the tag above.
    pub(super) slots: Vec<u32>,
}

/// A text that is there twice.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Twice {
    pub(super) first: usize,
    pub(super) again: usize,
}

impl Dictionary {
    /// Refuses the first text that was there before, and gives the texts back.
    pub(super) fn of(texts: Texts) -> Result<Self, (Texts, Twice)> {
        let slots = vec![0; texts.len() * SLOTS.0 / SLOTS.1 + 1];
        let mut dictionary = Self { texts, slots };
        for again in 0..dictionary.texts.len() {
            let text = dictionary.texts.get(again).unwrap_or_default();
            let (mut at, tag) = dictionary.place(text);
            while dictionary.slots[at] != 0 {
                if let Some(first) = dictionary.matches(dictionary.slots[at], tag, text) {
                    return Err((dictionary.texts, Twice { first, again }));
                }
                at = (at + 1) % dictionary.slots.len();
            }
            dictionary.slots[at] = tag | (again + 1) as u32;
        }
        Ok(dictionary)
    }

    /// The number of a text.
    pub(super) fn number(&self, text: &str) -> Option<usize> {
        let (start, tag) = self.place(text);
        // Bounded, so that a table without an empty slot ends as well.
        let slots = self.slots[start..].iter().chain(&self.slots[..start]);
        slots.take_while(|slot| **slot != 0).find_map(|&slot| self.matches(slot, tag, text))
    }

    fn matches(&self, slot: u32, tag: u32, text: &str) -> Option<usize> {
        let mask = self.number_mask();
        let number = (slot & mask).checked_sub(1)? as usize;
        (slot & !mask == tag && self.texts.get(number) == Some(text)).then_some(number)
    }

    /// The bits of a slot that hold the number plus one.
    fn number_mask(&self) -> u32 {
        u32::MAX.checked_shr((self.texts.len() as u32).leading_zeros()).unwrap_or(0)
    }

    /// Where to look for a text first, and its tag.
    fn place(&self, text: &str) -> (usize, u32) {
        let hash = XxHash64::oneshot(SEED, text.as_bytes());
        let at = (u128::from(hash) * self.slots.len() as u128) >> 64;
        (at as usize, hash as u32 & !self.number_mask())
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.texts.bytes() + 4 * self.slots.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn texts(all: &[String]) -> Texts {
        let mut texts = Texts::default();
        all.iter().for_each(|text| texts.push(text));
        texts
    }

    #[test]
    fn the_empty_dictionary_knows_nothing() {
        let nothing = Dictionary::of(Texts::default()).unwrap();
        assert_eq!((nothing.number(""), nothing.number("x")), (None, None));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_dictionary_answers_as_a_hash_map_does(
            all in prop::collection::vec("[a-c\u{e9}]{0,3}|x{300}", 0..120),
            asked in prop::collection::vec("[a-c\u{e9}]{0,3}", 0..40),
        ) {
            let mut first = HashMap::new();
            let twice = all.iter().enumerate().find_map(|(again, text)| {
                let first = *first.entry(text).or_insert(again);
                (first != again).then_some(Twice { first, again })
            });
            let arena = texts(&all);
            prop_assert!(all.iter().enumerate().all(|(n, text)| arena.get(n) == Some(text)) && arena.get(all.len()).is_none());
            match Dictionary::of(arena) {
                Ok(dictionary) => {
                    prop_assert_eq!(twice, None);
                    for text in all.iter().chain(&asked) {
                        prop_assert_eq!(dictionary.number(text), first.get(text).copied());
                    }
                }
                Err((_, found)) => prop_assert_eq!(Some(found), twice),
            }
        }
    }
}
