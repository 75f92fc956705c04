//! What may follow the token sets that many items have.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::domain::{CodeShape, Token, breathe};

/// A set of three tokens and more is a crowd when at least so many items have it, or more where that would take too much room.
const LEAST: usize = 1_024;
/// A set of two when one in so many of them have it: to meet them there are longer lists to be read.
const PAIRS: usize = 4;

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
    /// Of each set D bits for every codebook but its own, in words of 64; where 64 does not divide D `[sets, M * D]` bits.
    pub(super) masks: Vec<u64>,
    /// `[sets + 1]`: where the words of each mask begin.
    starts: Vec<u32>,
    rows: HashMap<(u32, u32), u32>,
}

/// Bits by token, `[M * D]`, some of which are not kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mask<'a> {
    words: &'a [u64],
    /// The codebooks that have no bits, one bit each.
    without: u64,
    /// Words of a codebook, where some have none.
    each: usize,
}

impl<'a> Mask<'a> {
    /// Bits of every token.
    pub(super) fn whole(words: &'a [u64]) -> Self {
        Self { words, without: 0, each: words.len().max(1) }
    }

    /// Sets the bits that are also in `possible` in `common`, both `[M * D]`.
    pub(super) fn set_common(self, possible: &[u64], common: &mut [u64]) {
        let mut words = self.words.iter();
        let codebooks = common.chunks_mut(self.each).zip(possible.chunks(self.each)).enumerate();
        for (_, (common, possible)) in codebooks.filter(|&(at, _)| at >= 64 || self.without >> at & 1 == 0) {
            let places = common.iter_mut().zip(possible);
            places.zip(words.by_ref()).for_each(|((common, possible), word)| *common |= possible & word);
        }
    }
}

/// What was found of the sets that begin with one token.
#[derive(Default)]
struct Found {
    parents: Vec<u32>,
    lasts: Vec<u32>,
    masks: Vec<u64>,
}

/// Looks for crowds of at least `least` items; gives up when their masks have more words than `left`.
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
        Self::with_limits(shape, LEAST, room / 8, codes_of)
    }

    /// Masks of at most `most` words: the least number of items is raised by half until there are no more.
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
            least = least.saturating_add(least.div_ceil(2));
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
        // Always some: sets come behind their parents, and their words have a room that u32 can name.
        let starts = starts(shape, &parents).unwrap_or_default();
        let rows = rows(&parents, &lasts);
        Self { shape, parents, lasts, masks, starts, rows }
    }

    /// What was saved; none when it does not fit the shape.
    pub(super) fn of_parts(shape: CodeShape, parents: Vec<u32>, lasts: Vec<u32>, masks: Vec<u64>) -> Option<Self> {
        let tokens = shape.tokens();
        let known = parents.iter().enumerate().all(|(row, &set)| (set as usize) < tokens + row)
            && parents.len() == lasts.len()
            && lasts.iter().all(|&token| (token as usize) < tokens);
        let starts = starts(shape, &parents).filter(|_| known)?;
        let fits = starts.last().is_some_and(|&end| end as usize == masks.len());
        fits.then(|| Self { shape, rows: rows(&parents, &lasts), parents, lasts, masks, starts })
    }

    /// The tokens that some eligible item has beside those of the path; none where the path is no crowd's, of fewer than two
    /// tokens, or of tokens that are not.
    pub(super) fn mask(&self, path: &[Token]) -> Option<Mask<'_>> {
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
        let row = (row - tokens) as usize;
        let words = self.masks.get(*self.starts.get(row)? as usize..*self.starts.get(row + 1)? as usize)?;
        let without = path.iter().fold(0, |without, token| without | 1u64 << token.codebook);
        Some(words_of_codebook(self.shape).map_or(Mask::whole(words), |each| Mask { words, without, each }))
    }

    /// Bytes held, about.
    pub(super) fn bytes(&self) -> usize {
        8 * self.masks.len() + (12 + 16) * self.lasts.len()
    }
}

fn rows(parents: &[u32], lasts: &[u32]) -> HashMap<(u32, u32), u32> {
    parents.iter().zip(lasts).zip(0..).map(|((&parent, &last), row)| ((parent, last), row)).collect()
}

/// Words of each codebook in a mask that leaves some out; none where codebooks do not end with words.
fn words_of_codebook(shape: CodeShape) -> Option<usize> {
    shape.entries.is_multiple_of(64).then_some(shape.entries / 64)
}

/// Words of the mask of a set of so many tokens.
fn words_of(shape: CodeShape, tokens: usize) -> usize {
    let whole = shape.tokens().div_ceil(64);
    words_of_codebook(shape).map_or(whole, |each| each * (shape.codebooks - tokens))
}

/// Where the words of each set's mask begin, and where the last ones end; none where a set has more tokens than there are
/// codebooks, or its parent is not before it.
fn starts(shape: CodeShape, parents: &[u32]) -> Option<Vec<u32>> {
    let (mut starts, mut lens, mut end) = (vec![0], Vec::with_capacity(parents.len()), 0);
    for &parent in parents {
        let len = match (parent as usize).checked_sub(shape.tokens()) {
            None => 2,
            Some(row) => lens.get(row)? + 1,
        };
        if len > shape.codebooks {
            return None;
        }
        lens.push(len);
        end += words_of(shape, len);
        starts.push(u32::try_from(end).ok()?);
    }
    Some(starts)
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
            let words = words_of(self.shape, set.len());
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(words)).ok()?;
            let at = found.masks.len();
            found.masks.resize(at + words, 0);
            let mask = &mut found.masks[at..];
            let packed = words_of_codebook(self.shape).is_some();
            let mut bit = 0;
            for (codebook, counts) in counts.chunks_exact(entries).enumerate() {
                let own = set.iter().any(|own| own / entries == codebook);
                if !own {
                    let beside = (bit..).zip(counts).filter(|(_, count)| **count > 0);
                    beside.for_each(|(bit, _)| mask[bit / 64] |= 1 << (bit % 64));
                }
                bit += if own && packed { 0 } else { entries };
            }
        }
        let (first, tokens) = (set[0], self.shape.tokens());
        let this = if set.len() > 1 { tokens + found.lasts.len() - 1 } else { first };
        let after = set.last().map_or(0, |last| last / entries + 1);
        for codebook in after..codebooks {
            let counts = &counts[codebook * entries..(codebook + 1) * entries];
            let least = if set.len() == 1 { self.least.div_ceil(PAIRS) } else { self.least };
            let of_crowd = |entry: usize| counts[entry] as usize >= least;
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

    /// Of both only three entries are used; in the second codebooks end with words.
    const SHAPES: [CodeShape; 2] = [CodeShape { codebooks: 4, entries: 3 }, CodeShape { codebooks: 4, entries: 128 }];
    const USED: usize = 3;

    /// Three hundred codes, two thirds of them near (1, 2, 0, 1).
    fn codes() -> Vec<[u16; 4]> {
        let drawn = |at: u32, r: u32| at.wrapping_mul(0x9E37_79B9).rotate_left(7 * r).wrapping_mul(0x85EB_CA6B) >> 13;
        let near =
            |at: u32, r: u32, entry: u16| if drawn(at, r) % 10 < 6 { entry } else { (drawn(at, r + 9) % 3) as u16 };
        (0..300).map(|at| [near(at, 0, 1), near(at, 1, 2), near(at, 2, 0), near(at, 3, 1)]).collect()
    }

    fn token(codebook: usize, entry: usize) -> Token {
        Token { codebook: codebook as u8, entry: entry as u16 }
    }

    fn crowds(shape: CodeShape, least: usize, most: usize) -> Crowds {
        let codes = codes();
        Crowds::with_limits(shape, least, most, |token| {
            codes.iter().filter(|code| code[usize::from(token.codebook)] == token.entry).flatten().copied().collect()
        })
    }

    /// The crowd's mask with bits for all tokens.
    fn whole(shape: CodeShape, mask: Mask<'_>) -> Vec<u64> {
        let mut whole = vec![0; shape.tokens().div_ceil(64)];
        mask.set_common(&vec![u64::MAX; whole.len()], &mut whole);
        whole
    }

    /// How many codes have all of the path, and what they have in other codebooks.
    fn scan(shape: CodeShape, path: &[Token]) -> (usize, Vec<u64>) {
        let (mut count, mut mask) = (0, vec![0; shape.tokens().div_ceil(64)]);
        for code in codes().iter().filter(|code| path.iter().all(|one| code[usize::from(one.codebook)] == one.entry)) {
            count += 1;
            for (r, &entry) in
                code.iter().enumerate().filter(|(r, _)| path.iter().all(|one| usize::from(one.codebook) != *r))
            {
                let at = r * shape.entries + usize::from(entry);
                mask[at / 64] |= 1u64 << (at % 64);
            }
        }
        (count, mask)
    }

    /// Every set of tokens of different codebooks, in two orders.
    fn sets() -> Vec<Vec<Token>> {
        let mut sets = vec![vec![]];
        for codebook in 0..SHAPES[0].codebooks {
            let longer: Vec<Vec<Token>> = sets
                .iter()
                .flat_map(|set: &Vec<Token>| {
                    (0..USED).map(|entry| set.iter().copied().chain([token(codebook, entry)]).collect())
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
        for (shape, least) in SHAPES.into_iter().flat_map(|shape| [1, 20, 40, 120].map(|least| (shape, least))) {
            let crowds = crowds(shape, least, usize::MAX);
            let mut told = 0;
            for set in sets() {
                let (count, mask) = scan(shape, &set);
                let least = if set.len() == 2 { least.div_ceil(PAIRS) } else { least };
                let wanted = (set.len() > 1 && count >= least).then_some(mask);
                assert_eq!(
                    crowds.mask(&set).map(|mask| whole(shape, mask)),
                    wanted,
                    "{set:?}, {count} of at least {least}"
                );
                told += usize::from(wanted.is_some());
            }
            assert!(told > 0, "nobody is together with {least}");
            assert_eq!(told, 2 * crowds.lasts.len());
            let Crowds { parents, lasts, masks, .. } = crowds.clone();
            assert_eq!(Crowds::of_parts(shape, parents, lasts, masks), Some(crowds));
        }
    }

    #[test]
    fn where_there_are_too_many_only_larger_ones_count() {
        for shape in SHAPES {
            let all = crowds(shape, 10, usize::MAX).masks.len();
            assert_eq!(crowds(shape, 10, all), crowds(shape, 10, usize::MAX));
            let fewer = crowds(shape, 10, all - 1);
            assert_eq!(fewer, crowds(shape, 15, usize::MAX));
            assert!(fewer.masks.len() < all && !fewer.lasts.is_empty());
            assert!(crowds(shape, 10, 0).lasts.is_empty());
        }
    }

    #[test]
    fn what_is_no_set_has_no_mask_and_damaged_parts_are_refused() {
        let shape = SHAPES[1];
        let crowds = crowds(shape, 20, usize::MAX);
        let stranger = Token { codebook: 9, entry: 0 };
        for path in [&[][..], &[token(0, 1)], &[token(0, 1), stranger], &[token(0, 1); 2], &[token(0, 1); 70]] {
            assert!(crowds.mask(path).is_none(), "{path:?}");
        }
        let Crowds { parents, lasts, masks, .. } = crowds;
        let refused = |change: fn(&mut Vec<u32>, &mut Vec<u32>, &mut Vec<u64>)| {
            let (mut parents, mut lasts, mut masks) = (parents.clone(), lasts.clone(), masks.clone());
            change(&mut parents, &mut lasts, &mut masks);
            Crowds::of_parts(shape, parents, lasts, masks).is_none()
        };
        assert!(refused(|_, _, masks| masks.truncate(masks.len() - 1)));
        assert!(refused(|parents, _, _| parents.truncate(parents.len() - 1)));
        assert!(refused(|_, lasts, _| lasts[0] = 512));
        assert!(refused(|parents, _, _| parents[0] = 512));
        assert!(!refused(|_, _, _| ()));
    }
}
