//! Lists of items by key in flat arrays, and which tokens occur together.

use crate::domain::{CodeShape, CodeTable, ItemNumber, Token};

/// For every key 0 to `keys` - 1 the items that have it, sorted, in one flat array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postings {
    /// `[keys + 1]`: where each key's list begins.
    starts: Vec<usize>,
    /// All lists, one after another.
    items: Vec<ItemNumber>,
}

impl Postings {
    /// Groups (key, item) pairs that come in ascending order of items. `pairs` is walked twice: to count, and to place.
    pub(super) fn group<I: Iterator<Item = (usize, ItemNumber)>>(keys: usize, pairs: impl Fn() -> I) -> Self {
        let mut starts = vec![0; keys + 1];
        for (key, _) in pairs() {
            starts[key + 1] += 1;
        }
        for key in 0..keys {
            starts[key + 1] += starts[key];
        }
        let mut next = starts.clone();
        let mut items = vec![0; starts[keys]];
        for (key, item) in pairs() {
            items[next[key]] = item;
            next[key] += 1;
        }
        Self { starts, items }
    }

    /// For every token, by its flat place, the items whose code holds it.
    pub(super) fn of_tokens(codes: &CodeTable) -> Self {
        let shape = codes.shape();
        Self::group(shape.tokens(), || {
            codes.entries().iter().enumerate().map(move |(at, &entry)| {
                let (item, codebook) = (at / shape.codebooks, at % shape.codebooks);
                (codebook * shape.entries + usize::from(entry), item as ItemNumber)
            })
        })
    }

    /// The items of one key, lowest number first; none for a key that does not exist.
    pub fn of(&self, key: usize) -> &[ItemNumber] {
        match (self.starts.get(key), self.starts.get(key + 1)) {
            (Some(&start), Some(&end)) => &self.items[start..end],
            _ => &[],
        }
    }
}

/// For every token a bit mask of the tokens that occur together with it in some item: `[M * D, M * D]` bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cooccurrence {
    shape: CodeShape,
    /// 64-bit words a row.
    width: usize,
    words: Vec<u64>,
}

impl Cooccurrence {
    /// The most tokens (M * D) that a mask is built for: 32 MiB of bits. Past it the lists of items say the same.
    pub const MOST_TOKENS: usize = 16_384;

    /// Reads every item's code once; none when there are more than [`Cooccurrence::MOST_TOKENS`] tokens.
    pub(super) fn of(codes: &CodeTable) -> Option<Self> {
        let shape = codes.shape();
        if shape.tokens() > Self::MOST_TOKENS {
            return None;
        }
        let width = shape.tokens().div_ceil(64);
        let mut words = vec![0; shape.tokens() * width];
        let mut places = Vec::with_capacity(shape.codebooks);
        for code in codes.entries().chunks_exact(shape.codebooks) {
            places.clear();
            places.extend(code.iter().enumerate().map(|(r, &entry)| r * shape.entries + usize::from(entry)));
            for &one in &places {
                let row = &mut words[one * width..(one + 1) * width];
                for &other in &places {
                    row[other / 64] |= 1 << (other % 64);
                }
            }
        }
        Some(Self { shape, width, words })
    }

    /// The mask of one token, `[M * D]` bits in words of 64: bit `flat(other)` is set when some item has both. A token
    /// that occurs at all occurs with itself.
    pub fn mask(&self, token: Token) -> &[u64] {
        let start = self.shape.flat(token) * self.width;
        &self.words[start..start + self.width]
    }

    /// Whether some item has both tokens.
    pub fn together(&self, one: Token, other: Token) -> bool {
        let at = self.shape.flat(other);
        self.mask(one)[at / 64] >> (at % 64) & 1 == 1
    }
}
