//! Which tokens occur together.

use rayon::prelude::*;

use crate::domain::{CodeShape, CodeTable, ItemNumber, Token, breathe_at};

use super::candidates::Candidates;

/// Items that one thread looks at in one go.
const SHARE: usize = 1 << 18;

/// For every token a bit mask of the tokens that occur together with it in some eligible item: `[M * D, M * D]` bits.
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

    /// Reads every eligible item's code once; none when there are more than [`Cooccurrence::MOST_TOKENS`] tokens.
    pub(super) fn of(codes: &CodeTable, eligible: &Candidates) -> Option<Self> {
        let shape = codes.shape();
        if shape.tokens() > Self::MOST_TOKENS {
            return None;
        }
        let width = shape.tokens().div_ceil(64);
        let shares = codes.items().div_ceil(SHARE).clamp(1, rayon::current_num_threads());
        let share = codes.items().div_ceil(shares);
        let masks: Vec<Vec<u64>> = (0..shares)
            .into_par_iter()
            .map(|at| {
                let items = at * share..((at + 1) * share).min(codes.items());
                upper_half(codes, width, items.map(|item| item as ItemNumber).filter(|&item| eligible.contains(item)))
            })
            .collect();
        let mut words = vec![0; shape.tokens() * width];
        for mask in masks {
            words.iter_mut().zip(mask).for_each(|(word, more)| *word |= more);
        }
        mirror(&mut words, width, shape.tokens());
        Some(Self { shape, width, words })
    }

    /// What was saved; none when it does not fit the shape.
    pub(super) fn of_words(shape: CodeShape, words: Vec<u64>) -> Option<Self> {
        let width = shape.tokens().div_ceil(64);
        (words.len() == shape.tokens() * width).then_some(Self { shape, width, words })
    }

    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    /// The mask of one token, `[M * D]` bits in words of 64: bit `flat(other)` is set when some eligible item has both. A
    /// token that occurs at all occurs with itself.
    pub fn mask(&self, token: Token) -> &[u64] {
        let start = self.shape.flat(token) * self.width;
        &self.words[start..start + self.width]
    }

    /// Whether some eligible item has both tokens.
    pub fn together(&self, one: Token, other: Token) -> bool {
        let at = self.shape.flat(other);
        self.mask(one)[at / 64] >> (at % 64) & 1 == 1
    }
}

/// Bits only where the second token is not before the first: half the work.
fn upper_half(codes: &CodeTable, width: usize, items: impl Iterator<Item = ItemNumber>) -> Vec<u64> {
    let shape = codes.shape();
    let mut words = vec![0u64; shape.tokens() * width];
    let mut places = [0usize; 64];
    for (at, item) in items.enumerate() {
        breathe_at(at);
        let places = &mut places[..shape.codebooks];
        for (r, (place, &entry)) in places.iter_mut().zip(codes.code(item)).enumerate() {
            *place = r * shape.entries + usize::from(entry);
        }
        for (r, &one) in places.iter().enumerate() {
            let row = &mut words[one * width..(one + 1) * width];
            places[r..].iter().for_each(|other| row[other / 64] |= 1 << (other % 64));
        }
    }
    words
}

fn mirror(words: &mut [u64], width: usize, tokens: usize) {
    for one in 0..tokens {
        for at in one / 64..width {
            let mut bits = words[one * width + at];
            while bits != 0 {
                let other = at * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                words[other * width + one / 64] |= 1 << (one % 64);
            }
        }
    }
}
