//! What may follow the token sets that many items have.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::domain::{CodeShape, Token, breathe};

/// A set of tokens is a crowd when at least so many items have it, or more where that would make too many crowds.
const LEAST: usize = 1_024;

/// For every set of two tokens and more that a crowd of eligible items has, the tokens that one of them has beside it: to find
/// them by going through the items is what takes long in a look-up. A set whose subsets are no crowds is none, so sets are
/// found token by token, codebook after codebook, as frequent item sets are (Zaki 2000, Eclat).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Crowds {
    shape: CodeShape,
    /// `[sets]`: the set without its last token: a token's flat place, or M * D and the row of a set before this one.
    pub(super) parents: Vec<u32>,
    /// `[sets]`: the flat place of the last token, that of the highest codebook.
    pub(super) lasts: Vec<u32>,
    /// `[sets, M * D]` bits in words of 64; none of the set's own codebooks.
    pub(super) masks: Vec<u64>,
    rows: HashMap<(u32, u32), u32>,
}

/// What was found of the sets that begin with one token.
#[derive(Default)]
struct Found {
    parents: Vec<u32>,
    lasts: Vec<u32>,
    masks: Vec<u64>,
}

/// Looks for crowds of at least `least` items; gives up when there are more than `left`.
struct Search<'a> {
    shape: CodeShape,
    least: usize,
    left: &'a AtomicUsize,
}

impl Crowds {
    /// Finds the crowds among the codes of eligible items, `codes_of(token)` those that have the token, `[items, M]`; not more
    /// than the masks of which take `room` bytes.
    pub(super) fn of<F>(shape: CodeShape, room: usize, codes_of: F) -> Self
    where
        F: Fn(Token) -> Vec<u16> + Sync,
    {
        Self::with_limits(shape, LEAST, room / (8 * shape.tokens().div_ceil(64)), codes_of)
    }

    /// At most `most` crowds: the least number of items is doubled until there are no more.
    fn with_limits<F>(shape: CodeShape, mut least: usize, most: usize, codes_of: F) -> Self
    where
        F: Fn(Token) -> Vec<u16> + Sync,
    {
        loop {
            let left = AtomicUsize::new(most);
            let search = Search { shape, least, left: &left };
            let of_token = |at: usize| {
                breathe();
                let token = Token { codebook: (at / shape.entries) as u8, entry: (at % shape.entries) as u16 };
                let mut found = Found::default();
                // The last codebook's tokens have none after them.
                if at / shape.entries + 1 < shape.codebooks {
                    search.extend(&codes_of(token), &mut vec![at], &mut found)?;
                }
                Some(found)
            };
            let all: Option<Vec<Found>> = (0..shape.tokens()).into_par_iter().map(of_token).collect();
            if let Some(all) = all {
                return Self::joined(shape, all);
            }
            least = least.saturating_mul(2);
        }
    }

    fn joined(shape: CodeShape, all: Vec<Found>) -> Self {
        let (tokens, mut joined) = (shape.tokens() as u32, Found::default());
        for Found { parents, lasts, masks } in all {
            let before = joined.lasts.len() as u32;
            joined.parents.extend(parents.iter().map(|&set| if set < tokens { set } else { set + before }));
            joined.lasts.extend(lasts);
            joined.masks.extend(masks);
        }
        let Found { parents, lasts, mut masks } = joined;
        masks.shrink_to_fit();
        let rows = rows(&parents, &lasts);
        Self { shape, parents, lasts, masks, rows }
    }

    /// What was saved; none when it does not fit the shape.
    pub(super) fn of_parts(shape: CodeShape, parents: Vec<u32>, lasts: Vec<u32>, masks: Vec<u64>) -> Option<Self> {
        let (tokens, words) = (shape.tokens(), shape.tokens().div_ceil(64));
        let fits = parents.len() == lasts.len() && masks.len() == lasts.len() * words;
        let known = parents.iter().enumerate().all(|(row, &set)| (set as usize) < tokens + row)
            && lasts.iter().all(|&token| (token as usize) < tokens);
        (fits && known).then(|| Self { shape, rows: rows(&parents, &lasts), parents, lasts, masks })
    }

    /// The tokens that some eligible item has beside those of the path, `[M * D]` bits; none where the path is no crowd's, of
    /// fewer than two tokens, or of tokens that are not.
    pub(super) fn mask(&self, path: &[Token]) -> Option<&[u64]> {
        // One of each codebook at most.
        let mut sorted = [0u32; 64];
        let sorted = sorted.get_mut(..path.len()).filter(|sorted| sorted.len() > 1)?;
        for (at, &token) in path.iter().enumerate() {
            if usize::from(token.codebook) >= self.shape.codebooks || usize::from(token.entry) >= self.shape.entries {
                return None;
            }
            sorted[at] = self.shape.flat(token) as u32;
        }
        sorted.sort_unstable();
        let tokens = self.shape.tokens() as u32;
        let row = sorted[1..].iter().try_fold(sorted[0], |set, &token| Some(tokens + self.rows.get(&(set, token))?))?;
        let (row, words) = ((row - tokens) as usize, self.shape.tokens().div_ceil(64));
        self.masks.get(row * words..(row + 1) * words)
    }

    /// Bytes held, about.
    pub(super) fn bytes(&self) -> usize {
        8 * self.masks.len() + (8 + 16) * self.lasts.len()
    }
}

fn rows(parents: &[u32], lasts: &[u32]) -> HashMap<(u32, u32), u32> {
    parents.iter().zip(lasts).zip(0..).map(|((&parent, &last), row)| ((parent, last), row)).collect()
}

impl Search<'_> {
    /// Finds the crowds that begin with `set`, flat places by codebook, whose items' codes are `codes`. None: too many.
    fn extend(&self, codes: &[u16], set: &mut Vec<usize>, found: &mut Found) -> Option<()> {
        let CodeShape { codebooks, entries } = self.shape;
        let mut counts = vec![0u32; self.shape.tokens()];
        for code in codes.chunks_exact(codebooks) {
            code.iter().enumerate().for_each(|(r, &entry)| counts[r * entries + usize::from(entry)] += 1);
        }
        if set.len() > 1 {
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).ok()?;
            let at = found.masks.len();
            found.masks.resize(at + counts.len().div_ceil(64), 0);
            let mask = &mut found.masks[at..];
            let own = |token: usize| set.iter().any(|own| own / entries == token / entries);
            let beside = counts.iter().enumerate().filter(|&(token, &count)| count > 0 && !own(token));
            beside.for_each(|(token, _)| mask[token / 64] |= 1 << (token % 64));
        }
        let (first, tokens) = (set[0], self.shape.tokens());
        let this = if set.len() > 1 { tokens + found.lasts.len() - 1 } else { first };
        let after = set.last().map_or(0, |last| last / entries + 1);
        for codebook in after..codebooks {
            let counts = &counts[codebook * entries..(codebook + 1) * entries];
            let of_crowd = |entry: usize| counts[entry] as usize >= self.least;
            // The codes of each crowd together, one crowd after another.
            let (mut places, mut total) = (vec![usize::MAX; entries], 0);
            for entry in (0..entries).filter(|&entry| of_crowd(entry)) {
                places[entry] = total;
                total += counts[entry] as usize * codebooks;
            }
            if total == 0 {
                continue;
            }
            let mut sorted = vec![0u16; total];
            for code in codes.chunks_exact(codebooks) {
                let place = &mut places[usize::from(code[codebook])];
                if *place != usize::MAX {
                    sorted[*place..*place + codebooks].copy_from_slice(code);
                    *place += codebooks;
                }
            }
            let mut begins = 0;
            for entry in (0..entries).filter(|&entry| of_crowd(entry)) {
                let ends = begins + counts[entry] as usize * codebooks;
                found.parents.push(this as u32);
                found.lasts.push((codebook * entries + entry) as u32);
                set.push(codebook * entries + entry);
                self.extend(&sorted[begins..ends], set, found)?;
                set.pop();
                begins = ends;
            }
        }
        Some(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SHAPE: CodeShape = CodeShape { codebooks: 4, entries: 3 };

    /// Three hundred codes, two thirds of them near (1, 2, 0, 1).
    fn codes() -> Vec<[u16; 4]> {
        let drawn = |at: u32, r: u32| at.wrapping_mul(0x9E37_79B9).rotate_left(7 * r).wrapping_mul(0x85EB_CA6B) >> 13;
        let near =
            |at: u32, r: u32, entry: u16| if drawn(at, r) % 10 < 6 { entry } else { (drawn(at, r + 9) % 3) as u16 };
        (0..300).map(|at| [near(at, 0, 1), near(at, 1, 2), near(at, 2, 0), near(at, 3, 1)]).collect()
    }

    fn token(flat: usize) -> Token {
        Token { codebook: (flat / SHAPE.entries) as u8, entry: (flat % SHAPE.entries) as u16 }
    }

    fn crowds(least: usize, most: usize) -> Crowds {
        let codes = codes();
        Crowds::with_limits(SHAPE, least, most, |token| {
            codes.iter().filter(|code| code[usize::from(token.codebook)] == token.entry).flatten().copied().collect()
        })
    }

    /// How many codes have all of the path, and what they have in other codebooks.
    fn scan(path: &[Token]) -> (usize, Vec<u64>) {
        let (mut count, mut mask) = (0, vec![0]);
        for code in codes().iter().filter(|code| path.iter().all(|one| code[usize::from(one.codebook)] == one.entry)) {
            count += 1;
            for (r, &entry) in
                code.iter().enumerate().filter(|(r, _)| path.iter().all(|one| usize::from(one.codebook) != *r))
            {
                mask[0] |= 1u64 << (r * SHAPE.entries + usize::from(entry));
            }
        }
        (count, mask)
    }

    /// Every set of tokens of different codebooks, in two orders.
    fn sets() -> Vec<Vec<Token>> {
        let mut sets = vec![vec![]];
        for codebook in 0..SHAPE.codebooks {
            let longer: Vec<Vec<Token>> = sets
                .iter()
                .flat_map(|set: &Vec<Token>| {
                    (0..SHAPE.entries)
                        .map(|entry| set.iter().copied().chain([token(codebook * SHAPE.entries + entry)]).collect())
                })
                .collect();
            sets.extend(longer);
        }
        let turned: Vec<Vec<Token>> = sets.iter().map(|set| set.iter().rev().copied().collect()).collect();
        sets.extend(turned);
        sets
    }

    #[test]
    fn a_crowd_is_every_set_that_so_many_have_and_no_other() {
        for least in [1, 20, 40, 120] {
            let crowds = crowds(least, usize::MAX);
            let mut told = 0;
            for set in sets() {
                let (count, mask) = scan(&set);
                let wanted = (set.len() > 1 && count >= least).then_some(mask.as_slice());
                assert_eq!(crowds.mask(&set), wanted, "{set:?}, {count} of at least {least}");
                told += usize::from(wanted.is_some());
            }
            assert!(told > 0, "nobody is together with {least}");
            assert_eq!(told, 2 * crowds.lasts.len());
            let Crowds { parents, lasts, masks, .. } = crowds.clone();
            assert_eq!(Crowds::of_parts(SHAPE, parents, lasts, masks), Some(crowds));
        }
    }

    #[test]
    fn where_there_are_too_many_only_larger_ones_count() {
        let all = crowds(10, usize::MAX).lasts.len();
        assert_eq!(crowds(10, all), crowds(10, usize::MAX));
        let fewer = crowds(10, all - 1);
        assert_eq!(fewer, crowds(20, usize::MAX));
        assert!(fewer.lasts.len() < all && !fewer.lasts.is_empty());
        assert!(crowds(10, 0).lasts.is_empty());
    }

    #[test]
    fn what_is_no_set_has_no_mask_and_damaged_parts_are_refused() {
        let crowds = crowds(20, usize::MAX);
        let stranger = Token { codebook: 9, entry: 0 };
        assert_eq!((crowds.mask(&[]), crowds.mask(&[token(1)])), (None, None));
        assert_eq!((crowds.mask(&[token(1), stranger]), crowds.mask(&[token(1), token(1)])), (None, None));
        assert_eq!(crowds.mask(&vec![token(1); 70]), None);
        let Crowds { parents, lasts, masks, .. } = crowds;
        let refused = |change: fn(&mut Vec<u32>, &mut Vec<u32>, &mut Vec<u64>)| {
            let (mut parents, mut lasts, mut masks) = (parents.clone(), lasts.clone(), masks.clone());
            change(&mut parents, &mut lasts, &mut masks);
            Crowds::of_parts(SHAPE, parents, lasts, masks).is_none()
        };
        assert!(refused(|_, _, masks| masks.truncate(masks.len() - 1)));
        assert!(refused(|parents, _, _| parents.truncate(parents.len() - 1)));
        assert!(refused(|_, lasts, _| lasts[0] = 12));
        assert!(refused(|parents, _, _| parents[0] = 12));
        assert!(!refused(|_, _, _| ()));
    }
}
