//! Which tokens may follow a path: the constraint of a search over tokens, by look-up.
//!
//! Of a path of one token that is said by the masks of tokens that occur together. Of a longer one the candidates are
//! found: block of 65,536 items by block, the two rarest tokens' lists are intersected by bits, and what is left is held
//! against the root and the other tokens by its code; with [`CodeColumns`], one list's codes are read instead. A path stops to be read when every token that its pairs allow was
//! met.

use std::sync::Arc;

use rayon::prelude::*;

use crate::domain::{ItemNumber, Token};

use super::candidates::Candidates;
use super::code_columns::{CodeColumns, Cursor};
use super::index::Index;
use super::postings::{BLOCK, List};

/// Words of a block's bits.
const WORDS: usize = BLOCK / 64;
/// The shorter of two lists is looked up by code where the other is longer than this many times its length: to mark a
/// number costs about a fourth of a look at a code.
const LOPSIDED: usize = 8;
/// Candidates between two comparisons of what was met with what is possible, which cost as much as twenty of them.
const COMPARED: usize = 256;
/// A root that lacks no more of the eligible items is read as all of them less these.
const MOST_REMOVED: usize = 4_096;
/// To read a position of a column is so many times cheaper than to look at a code.
const CHEAPER: usize = 24;
/// Numbers to be read below which a second thread is not worth waking.
const WORTH_A_THREAD: usize = 20_000;

/// Look-ups of the tokens that may follow paths. Keeps its memory from one to the next: a look-up of no more paths than
/// one before allocates nothing.
#[derive(Debug, Default)]
pub struct NextTokens {
    columns: Option<Arc<CodeColumns>>,
    shape_words: usize,
    /// `[paths, M * D bits]`
    masks: Vec<u64>,
    removed: Vec<ItemNumber>,
    scratches: Vec<Scratch>,
}

/// One thread's room.
#[derive(Debug, Clone, Default)]
struct Scratch {
    /// The marked numbers of a block; all zero between look-ups.
    bits: Vec<u64>,
    /// Lower halves of the numbers that two lists share, in front; room for a block and one more.
    shared: Vec<u16>,
    /// What the pairs of a path's tokens allow.
    possible: Vec<u64>,
    /// A byte a token: whether a candidate has it.
    met: Vec<u8>,
}

impl NextTokens {
    /// Look-ups that read `columns` where they are of the index asked.
    pub fn with_columns(columns: Arc<CodeColumns>) -> Self {
        Self { columns: Some(columns), ..Self::default() }
    }

    /// For each path the tokens of its unused codebooks that some item of `root` has together with all of the path's
    /// tokens. `root` holds eligible items of this index; tokens are of its shape, each path's of different codebooks. Tokens that are not
    /// lead to nothing. What was looked up before is forgotten.
    pub fn look_up(&mut self, index: &Index, root: &Candidates, paths: &[&[Token]]) {
        let words = index.codes().shape().tokens().div_ceil(64);
        self.shape_words = words;
        self.masks.clear();
        self.masks.resize(paths.len() * words, 0);
        let threads = rayon::current_num_threads().clamp(1, paths.len().max(1));
        let work: usize = paths.iter().map(|path| work(index, root, path)).sum();
        let threads = if work < WORTH_A_THREAD { 1 } else { threads };
        if self.scratches.len() < threads {
            self.scratches.resize(threads, Scratch::default());
        }
        let columns = self.columns.as_deref().filter(|columns| columns.are_of(index));
        // Sought only where it is read: the bits of all items must be looked at.
        let single = index.cooccurrence().is_some() && paths.iter().any(|path| path.len() == 1);
        let few = single && index.eligible().len().saturating_sub(root.len()) <= MOST_REMOVED && !is_whole(index, root);
        if few {
            self.removed.clear();
            index.eligible().less_into(root, &mut self.removed);
        }
        let asked = Asked { index, root, columns, removed: few.then_some(&self.removed) };
        if threads == 1 {
            let scratch = &mut self.scratches[0];
            let each = paths.iter().zip(self.masks.chunks_exact_mut(words));
            each.for_each(|(path, mask)| scratch.allow(asked, path, mask));
            return;
        }
        let share = paths.len().div_ceil(threads);
        let shares = paths.par_chunks(share).zip(self.masks.par_chunks_mut(share * words)).zip(&mut self.scratches);
        shares.for_each(|((paths, masks), scratch)| {
            let each = paths.iter().zip(masks.chunks_exact_mut(words));
            each.for_each(|(path, mask)| scratch.allow(asked, path, mask));
        });
    }

    /// What may follow the path at this place of the last look-up: `[M * D]` bits in words of 64, by the tokens' flat
    /// places. No bits past the last path.
    pub fn mask(&self, path: usize) -> &[u64] {
        self.masks.get(path * self.shape_words..(path + 1) * self.shape_words).unwrap_or(&[])
    }

    /// How many items of `root` have all tokens of the path.
    pub fn count(&mut self, index: &Index, root: &Candidates, path: &[Token]) -> usize {
        if self.scratches.is_empty() {
            self.scratches.push(Scratch::default());
        }
        let columns = self.columns.as_deref().filter(|columns| columns.are_of(index));
        let asked = Asked { index, root, columns, removed: None };
        let mut count = 0;
        self.scratches[0].candidates(asked, path, |_| {
            count += 1;
            true
        });
        count
    }
}

/// What a look-up asks.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    index: &'a Index,
    root: &'a Candidates,
    columns: Option<&'a CodeColumns>,
    /// The eligible items that are not in the root, where they are few.
    removed: Option<&'a [ItemNumber]>,
}

/// The place of the path's token of the lowest codebook, when there are others and none is of the same codebook.
fn lowest(path: &[Token]) -> Option<usize> {
    let codebooks = path.iter().fold(0u64, |all, token| all | 1u64.checked_shl(u32::from(token.codebook)).unwrap_or(0));
    let distinct = path.len() > 1 && codebooks.count_ones() as usize == path.len();
    let lowest = path.iter().enumerate().min_by_key(|(_, token)| token.codebook)?.0;
    distinct.then_some(lowest)
}

/// About how many numbers must be read for a path.
fn work(index: &Index, root: &Candidates, path: &[Token]) -> usize {
    match path {
        [] => 0,
        [_] if is_whole(index, root) => 0,
        path => path.iter().map(|&token| index.postings(token).len()).min().unwrap_or(0),
    }
}

/// Whether the root is all that the masks of pairs were made of.
fn is_whole(index: &Index, root: &Candidates) -> bool {
    root.len() == index.eligible().len() && index.cooccurrence().is_some()
}

impl Scratch {
    /// Sets the bits of what may follow `path` in `mask`, which is all zero.
    fn allow(&mut self, asked: Asked<'_>, path: &[Token], mask: &mut [u64]) {
        let Asked { index, root, .. } = asked;
        let mut possible = std::mem::take(&mut self.possible);
        possible_after(index, path, &mut possible);
        match path {
            [_] if is_whole(index, root) => mask.copy_from_slice(&possible),
            &[token] if asked.removed.is_some() => {
                mask.copy_from_slice(&possible);
                self.less_removed(asked, token, mask);
            }
            path if possible.iter().any(|word| *word != 0) => self.meet(asked, path, &possible, mask),
            _ => {}
        }
        self.possible = possible;
    }

    /// Sets the bits of `possible` whose tokens a candidate has.
    fn meet(&mut self, asked: Asked<'_>, path: &[Token], possible: &[u64], mask: &mut [u64]) {
        let shape = asked.index.codes().shape();
        let mut met = std::mem::take(&mut self.met);
        met.clear();
        met.resize(possible.len() * 64, 0);
        let mut left = COMPARED;
        let mut go_on = |met: &[u8]| {
            left -= 1;
            if left > 0 {
                return true;
            }
            left = COMPARED;
            pack(met, mask);
            mask.iter().zip(possible).any(|(met, possible)| possible & !met != 0)
        };
        // A byte a token, stored and not read, is the least that a candidate can cost.
        if let Some(bytes) = asked.index.codes().bytes() {
            self.candidates(asked, path, |item| {
                let code = &bytes[item as usize * shape.codebooks..][..shape.codebooks];
                let rows = met.chunks_exact_mut(shape.entries);
                rows.zip(code).for_each(|(row, &entry)| row[usize::from(entry)] = 1);
                go_on(&met)
            });
        } else {
            self.candidates(asked, path, |item| {
                let rows = met.chunks_exact_mut(shape.entries);
                rows.zip(asked.index.codes().code(item)).for_each(|(row, &entry)| row[usize::from(entry)] = 1);
                go_on(&met)
            });
        }
        pack(&met, mask);
        mask.iter_mut().zip(possible).for_each(|(word, possible)| *word &= possible);
        self.met = met;
    }

    /// Of what may follow a single token in all eligible items, takes back what only removed items have together with it:
    /// for each pair that a removed item has, another item is looked for, and as a rule found at once.
    fn less_removed(&mut self, asked: Asked<'_>, token: Token, mask: &mut [u64]) {
        let codes = asked.index.codes();
        for &item in asked.removed.unwrap_or(&[]) {
            if !codes.holds(item, token) {
                continue;
            }
            for (codebook, &entry) in codes.code(item).iter().enumerate() {
                let other = Token { codebook: codebook as u8, entry };
                let at = codes.shape().flat(other);
                if mask[at / 64] >> (at % 64) & 1 == 1 {
                    let mut found = false;
                    self.candidates(asked, &[token, other], |_| {
                        found = true;
                        false
                    });
                    mask[at / 64] &= !(u64::from(!found) << (at % 64));
                }
            }
        }
    }

    /// Gives every item of `root` that has all tokens of the path to `take`, in no order, until it says no.
    fn candidates(&mut self, asked: Asked<'_>, path: &[Token], mut take: impl FnMut(ItemNumber) -> bool) {
        let Asked { index, root, columns, .. } = asked;
        let codes = index.codes();
        let mut lists = path.iter().map(|&token| (index.postings(token), token));
        let Some(mut first) = lists.next() else {
            root.iter().all(&mut take);
            return;
        };
        // The two rarest tokens.
        let mut second: Option<(List<'_>, Token)> = None;
        for list in lists {
            if list.0.len() < first.0.len() {
                second = Some(std::mem::replace(&mut first, list));
            } else if second.is_none_or(|second| list.0.len() < second.0.len()) {
                second = Some(list);
            }
        }
        let has_all = |item: ItemNumber| root.contains(item) && path.iter().all(|&token| codes.holds(item, token));
        if root.len() < first.0.len() {
            root.iter().filter(|&item| has_all(item)).all(take);
        } else if let Some((columns, lowest)) = columns.zip(lowest(path))
            && index.postings(path[lowest]).len() < CHEAPER * first.0.len()
        {
            let list = index.postings(path[lowest]);
            let (mut others, mut used) = ([path[lowest]; 64], 0);
            for (_, &token) in path.iter().enumerate().filter(|(at, _)| *at != lowest) {
                others[used] = token;
                used += 1;
            }
            let mut cursor = Cursor::of(list);
            columns.matches(path[lowest], list.len(), &others[..used], |at| {
                cursor.number(at).filter(|&item| root.contains(item)).is_none_or(&mut take)
            });
        } else if let Some((longer, _)) = second
            && first.0.whole().is_none()
            && longer.len() < LOPSIDED * first.0.len()
        {
            let has_all = |item: ItemNumber| {
                root.contains(item) && (path.len() < 3 || path.iter().all(|&token| codes.holds(item, token)))
            };
            for block in 0..index.len().div_ceil(BLOCK) {
                let shared = self.intersect(first.0.block(block), longer.block(block));
                let base = (block * BLOCK) as ItemNumber;
                let shared = self.shared[..shared].iter().map(|&low| base + ItemNumber::from(low));
                if !shared.filter(|&item| has_all(item)).all(&mut take) {
                    return;
                }
            }
        } else {
            first.0.iter().filter(|&item| has_all(item)).all(take);
        }
    }

    /// Puts in the front of `shared` what both lists of a block hold, and answers how many those are.
    fn intersect(&mut self, shorter: &[u16], longer: &[u16]) -> usize {
        if shorter.is_empty() || longer.is_empty() {
            return 0;
        }
        self.bits.resize(WORDS, 0);
        self.shared.resize(BLOCK + 1, 0);
        let Ok(bits) = <&mut [u64; WORDS]>::try_from(self.bits.as_mut_slice()) else { return 0 };
        shorter.iter().for_each(|&low| bits[usize::from(low >> 6)] |= 1 << (low & 63));
        let mut shared = 0;
        // Written always and kept where it counts: no branch to guess wrong.
        for &low in longer {
            self.shared[shared] = low;
            shared += (bits[usize::from(low >> 6)] >> (low & 63) & 1) as usize;
        }
        shorter.iter().for_each(|&low| bits[usize::from(low >> 6)] = 0);
        shared
    }
}

/// What every token of the path occurs with, less the codebooks that it used; what a path may be followed by is among it.
fn possible_after(index: &Index, path: &[Token], possible: &mut Vec<u64>) {
    let shape = index.codes().shape();
    possible.clear();
    possible.resize(shape.tokens().div_ceil(64), u64::MAX);
    if path
        .iter()
        .any(|token| usize::from(token.codebook) >= shape.codebooks || usize::from(token.entry) >= shape.entries)
    {
        possible.fill(0);
        return;
    }
    if let Some(together) = index.cooccurrence() {
        for &token in path {
            possible.iter_mut().zip(together.mask(token)).for_each(|(word, mask)| *word &= mask);
        }
    }
    for token in path {
        let first = usize::from(token.codebook) * shape.entries;
        clear(possible, first..first + shape.entries);
    }
    clear(possible, shape.tokens()..shape.tokens().next_multiple_of(64));
}

/// A bit for each byte that is one; `bytes` holds 64 for each word, all zero or one.
fn pack(bytes: &[u8], words: &mut [u64]) {
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<64>().0) {
        let eighths = bytes.as_chunks::<8>().0.iter().enumerate();
        *word = eighths.fold(0, |word, (at, &eight)| {
            // Gathers the lowest bits of eight bytes in the highest byte.
            word | (u64::from_le_bytes(eight).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * at)
        });
    }
}

/// Clears a range of bits.
fn clear(words: &mut [u64], bits: std::ops::Range<usize>) {
    let mut at = bits.start;
    while at < bits.end {
        let here = (64 - at % 64).min(bits.end - at);
        words[at / 64] &= !((u64::MAX >> (64 - here)) << (at % 64));
        at += here;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use allocation_counter::measure;
    use proptest::prelude::*;

    use super::super::CatalogItem;
    use super::*;
    use crate::domain::{CodeShape, CodeTable, Filter, Item};

    fn index(shape: CodeShape, entries: Vec<u16>, eligible: impl Fn(usize) -> bool) -> Index {
        let codes = CodeTable::new(shape, entries).unwrap();
        let item = |n: usize| Item {
            id: n.to_string(),
            title: None,
            brand: Some(format!("b{}", n % 3)),
            categories: vec![],
            price: None,
            eligible: eligible(n),
        };
        let items = (0..codes.items()).map(|n| CatalogItem { item: item(n), category: 0, prior: 0.0 }).collect();
        Index::build(items, codes, vec!["any".into()], "1".into()).unwrap()
    }

    /// The tokens of unused codebooks of all items of the root that have the path, and how many those are.
    fn naive(index: &Index, root: &Candidates, path: &[Token]) -> (Vec<u64>, usize) {
        let shape = index.codes().shape();
        let (mut mask, mut count) = (vec![0u64; shape.tokens().div_ceil(64)], 0);
        for item in root.iter() {
            let code = index.codes().code(item);
            if path.iter().all(|token| code[usize::from(token.codebook)] == token.entry) {
                count += 1;
                for codebook in (0..shape.codebooks as u8).filter(|r| path.iter().all(|token| token.codebook != *r)) {
                    let at = shape.flat(Token { codebook, entry: code[usize::from(codebook)] });
                    mask[at / 64] |= 1 << (at % 64);
                }
            }
        }
        (mask, count)
    }

    fn paths(index: &Index, seed: usize) -> Vec<Vec<Token>> {
        let shape = index.codes().shape();
        let code = |at: usize| index.codes().code((at % index.len()) as ItemNumber);
        let token = |at: usize, r: usize| Token { codebook: r as u8, entry: code(at)[r] };
        let mut paths: Vec<Vec<Token>> = (0..=shape.codebooks)
            .map(|depth| (0..depth).map(|step| token(seed, (seed + step) % shape.codebooks)).collect())
            .collect();
        // Tokens of two items, which may have no candidate.
        if shape.codebooks > 1 {
            paths.push(vec![token(seed, 0), token(seed + 1, 1)]);
        }
        paths
    }

    fn agrees(index: &Index, root: &Candidates, seed: usize) {
        let paths = paths(index, seed);
        let asked: Vec<&[Token]> = paths.iter().map(Vec::as_slice).collect();
        let columns = Arc::new(CodeColumns::of(index).unwrap());
        for mut next in [NextTokens::default(), NextTokens::with_columns(columns)] {
            next.look_up(index, root, &asked);
            for (at, path) in paths.iter().enumerate() {
                let (mask, count) = naive(index, root, path);
                assert_eq!(next.mask(at), mask, "{path:?} of {} items", root.len());
                assert_eq!(next.count(index, root, path), count);
            }
            assert!(next.mask(paths.len()).is_empty());
        }
    }

    #[test]
    fn lists_over_several_blocks_are_intersected_whole() {
        let shape = CodeShape { codebooks: 3, entries: 6 };
        let items = 2 * BLOCK + 999;
        let entries = (0..items).flat_map(|n| {
            let mixed = (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            // The last entry of the first codebook is rare, which makes its list a short one.
            [if n % 40_000 == 7 { 5 } else { (mixed >> 60) as u16 % 5 }, (mixed >> 50) as u16 % 6, (n % 5) as u16]
        });
        let index = index(shape, entries.collect(), |n| n % 7 != 0);
        let some = index.root(&Filter { include_brands: vec!["b1".into()], ..Filter::default() }, &[]);
        let few = Candidates::of(items, (0..300).map(|n| n * 431).filter(|&n| index.is_eligible(n)));
        for root in [index.eligible(), &some, &few] {
            [1, 7, 40_007, 70_001].into_iter().for_each(|seed| agrees(&index, root, seed));
        }
    }

    #[test]
    fn tokens_that_are_not_lead_to_nothing() {
        let index = index(CodeShape { codebooks: 2, entries: 3 }, vec![0, 1, 2, 1], |_| true);
        let mut next = NextTokens::default();
        let strangers = [Token { codebook: 0, entry: 3 }, Token { codebook: 9, entry: 0 }];
        next.look_up(&index, index.eligible(), &[&strangers[..1], &strangers[1..], &strangers]);
        assert!((0..3).all(|path| next.mask(path) == [0]));
    }

    #[test]
    fn a_look_up_in_the_memory_of_another_allocates_nothing() {
        let shape = CodeShape { codebooks: 4, entries: 16 };
        let entries = (0..4_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u16 % 16).collect();
        let index = index(shape, entries, |n| n % 9 != 0);
        let filtered = index.root(&Filter { exclude_brands: vec!["b2".into()], ..Filter::default() }, &[]);
        let paths: Vec<Vec<Token>> = [3, 30, 300].into_iter().flat_map(|seed| paths(&index, seed)).collect();
        let asked: Vec<&[Token]> = paths.iter().map(Vec::as_slice).collect();
        let columns = Arc::new(CodeColumns::of(&index).unwrap());
        for mut next in [NextTokens::default(), NextTokens::with_columns(columns)] {
            let mut counted = |root: &Candidates| measure(|| next.look_up(&index, root, &asked)).count_total;
            let first = (counted(index.eligible()), counted(&filtered));
            assert!(first.0 > 0 && first.1 > 0, "nothing is counted");
            let again = (counted(index.eligible()), counted(&filtered), counted(index.eligible()));
            assert_eq!(again, (0, 0, 0));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_looked_up_is_what_a_scan_finds(
            (codebooks, entries, flat) in (1usize..6, 2usize..40).prop_flat_map(|(codebooks, entries)| {
                let code = prop::collection::vec(0..entries as u16, codebooks);
                (Just(codebooks), Just(entries), prop::collection::vec(code, 1..150))
            }),
            ineligible in prop::collection::hash_set(0usize..150, 0..40),
            excluded in prop::collection::vec(0u32..150, 0..30),
            brand in prop::option::of("b[0-3]"),
            seed in 0usize..150,
        ) {
            let index = index(CodeShape { codebooks, entries }, flat.concat(), |n| !ineligible.contains(&n));
            let filter = Filter { include_brands: brand.into_iter().collect(), ..Filter::default() };
            agrees(&index, index.eligible(), seed);
            agrees(&index, &index.root(&filter, &excluded), seed);
        }
    }
}
