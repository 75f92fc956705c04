//! Which tokens may follow a path: the constraint of a search over tokens, by look-up.
//!
//! Of a path of one token that is said by the masks of tokens that occur together; of a longer one that many items have, by
//! the mask of that crowd. Of the others the candidates are found: block of 65,536 numbers by block, the shortest of the
//! tokens' lists there are intersected, and what is left is held against the root and the other tokens by its code. A path
//! stops to be read when every token that its pairs allow was met.

use std::sync::{Mutex, PoisonError};

use crate::domain::{ItemNumber, Token, share_out};

use super::candidates::Candidates;
use super::crowds::Mask;
use super::index::Index;
use super::meeting::{LONGEST, Meeting, has_stretches, is_of, two_shortest};

/// Candidates between two comparisons of what was met with what is possible, which cost as much as twenty of them.
const COMPARED: usize = 256;
/// A root that lacks no more of the eligible items is read as all of them less these.
const MOST_REMOVED: usize = 4_096;
/// Numbers to be read for which one more thread is worth waking.
const WORTH_A_THREAD: usize = 30_000;
/// How much less is read where a token is of the first codebook, or of the second, whose items are stretches of the lists.
const LESS_BY_FIRST: usize = 16;
const LESS_BY_SECOND: usize = 3;

/// Look-ups of the tokens that may follow paths, request after request. Keeps its memory from one to the next: a look-up of no
/// more paths than one before allocates nothing but a few words for each thread that is woken to help.
#[derive(Debug, Default)]
pub struct NextTokens {
    shape_words: usize,
    /// `[paths, M * D bits]`, by place.
    masks: Vec<u64>,
    /// `[paths]`: the place of each path's mask.
    places: Vec<usize>,
    /// About how many numbers must be read for each path, and the path: most first.
    order: Vec<(usize, usize)>,
    removed: Vec<ItemNumber>,
    /// `[threads]`
    scratches: Vec<Mutex<Scratch>>,
}

/// One thread's room.
#[derive(Debug, Default)]
struct Scratch {
    meeting: Meeting,
    /// What the pairs of a path's tokens allow.
    possible: Vec<u64>,
    /// A byte a token: whether a candidate has it.
    met: Vec<u8>,
}

/// The look-ups of one request, which are all among the same items.
#[derive(Debug)]
pub struct Among<'a> {
    memory: &'a mut NextTokens,
    index: &'a Index,
    root: &'a Candidates,
    /// Whether the memory knows which eligible items are not in this root.
    compared: bool,
}

impl NextTokens {
    /// Begins the look-ups of a request, among the items of `root`: eligible ones of this index. What was looked up before is
    /// forgotten.
    pub fn among<'a>(&'a mut self, index: &'a Index, root: &'a Candidates) -> Among<'a> {
        self.places.clear();
        Among { memory: self, index, root, compared: false }
    }

    /// How many items of `root` have all tokens of the path. Makes room of its own.
    pub fn count(index: &Index, root: &Candidates, path: &[Token]) -> usize {
        let mut count = 0;
        Meeting::default().candidates(index, root, path, |_| {
            count += 1;
            true
        });
        count
    }
}

impl Among<'_> {
    /// For each path the tokens of its unused codebooks that some item of `root` has together with all of the path's
    /// tokens. Other threads of rayon's pool help; they are not waited for when they sleep if this is one of them (see
    /// `rayon::ThreadPool::install`). Tokens are of the index's shape, each path's of different codebooks; tokens that are
    /// not lead to nothing. What was looked up before is forgotten.
    pub fn look_up(&mut self, paths: &[&[Token]]) {
        let &mut Self { ref mut memory, index, root, ref mut compared } = self;
        let words = index.codes().shape().tokens().div_ceil(64);
        memory.shape_words = words;
        memory.masks.clear();
        memory.masks.resize(paths.len() * words, 0);
        // Sought only where it is read, and once: the bits of all items must be looked at.
        let few = index.eligible().len().saturating_sub(root.len()) <= MOST_REMOVED
            && !is_whole(index, root)
            && paths.iter().any(|path| kept(index, path).is_some());
        if few && !*compared {
            memory.removed.clear();
            index.eligible().less_into(root, &mut memory.removed);
            *compared = true;
        }
        let NextTokens { masks, places, order, removed, scratches, .. } = &mut **memory;
        let asked = Asked { index, root, removed: few.then_some(removed) };
        // Those that take longest first, so that no thread is left alone with one in the end.
        order.clear();
        order.extend(paths.iter().enumerate().map(|(at, path)| (work(asked, path), at)));
        order.sort_unstable_by(|one, other| other.cmp(one));
        places.clear();
        places.resize(paths.len(), 0);
        order.iter().enumerate().for_each(|(place, &(_, path))| places[path] = place);
        let work: usize = order.iter().map(|(work, _)| work).sum();
        let threads = (work / WORTH_A_THREAD).min(rayon::current_num_threads()).clamp(1, paths.len().max(1));
        if scratches.len() < threads {
            scratches.resize_with(threads, Mutex::default);
        }
        // Whoever is free takes the next path. The caller begins at once: another thread may take long to wake.
        let left = Mutex::new(order.iter().zip(masks.chunks_exact_mut(words)));
        let take = |scratch: &Mutex<Scratch>| {
            // What a look-up that did not end left behind is put in order by the next.
            let mut scratch = scratch.lock().unwrap_or_else(PoisonError::into_inner);
            let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
            while let Some((&(_, path), mask)) = next() {
                scratch.allow(asked, paths[path], mask);
            }
        };
        share_out(&scratches[..threads], take);
    }

    /// What may follow the path at this place of the last look-up: `[M * D]` bits in words of 64, by the tokens' flat
    /// places. No bits past the last path.
    pub fn mask(&self, path: usize) -> &[u64] {
        let NextTokens { places, masks, shape_words, .. } = &*self.memory;
        let words = places.get(path).and_then(|place| masks.chunks_exact(*shape_words).nth(*place));
        words.unwrap_or(&[])
    }
}

/// What a look-up asks.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    index: &'a Index,
    root: &'a Candidates,
    /// The eligible items that are not in the root, where they are few.
    removed: Option<&'a [ItemNumber]>,
}

/// What may follow the path in all eligible items, where that is kept: of a path of one token, and of a crowd's.
fn kept<'a>(index: &'a Index, path: &[Token]) -> Option<Mask<'a>> {
    match path {
        &[token] => index.cooccurrence().filter(|_| is_of(index, token)).map(|masks| Mask::whole(masks.mask(token))),
        path => index.crowd(path),
    }
}

/// About how many numbers must be read for a path; zero where its mask is there as it is.
fn work(asked: Asked<'_>, path: &[Token]) -> usize {
    let Asked { index, root, removed } = asked;
    if !path.iter().all(|&token| is_of(index, token)) {
        return 0;
    }
    if (is_whole(index, root) || removed.is_some()) && kept(index, path).is_some() {
        return removed.map_or(0, <[_]>::len);
    }
    let (first, second) = two_shortest(index, path);
    let (first, second) = (first.min(root.len()), second.min(root.len()));
    if index.code_order().is_some() && path.iter().any(|token| token.codebook == 0) {
        (first + second) / LESS_BY_FIRST
    } else if has_stretches(index, path) {
        (first + second) / LESS_BY_SECOND
    } else {
        first + second
    }
}

/// Whether the root is all that the masks of pairs were made of.
fn is_whole(index: &Index, root: &Candidates) -> bool {
    root.len() == index.eligible().len() && index.cooccurrence().is_some()
}

impl Scratch {
    /// Sets the bits of what may follow `path` in `mask`, which is all zero.
    fn allow(&mut self, asked: Asked<'_>, path: &[Token], mask: &mut [u64]) {
        let Asked { index, root, removed } = asked;
        let mut possible = std::mem::take(&mut self.possible);
        possible_after(index, path, &mut possible);
        if let Some(kept) = kept(index, path).filter(|_| is_whole(index, root) || removed.is_some()) {
            kept.set_common(&possible, mask);
            self.less_removed(asked, path, mask);
        } else if possible.iter().any(|word| *word != 0) {
            self.meet(asked, path, &possible, mask);
        }
        self.possible = possible;
    }

    /// Sets the bits of `possible` whose tokens a candidate has.
    fn meet(&mut self, asked: Asked<'_>, path: &[Token], possible: &[u64], mask: &mut [u64]) {
        let shape = asked.index.codes().shape();
        let Self { meeting, met, .. } = self;
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
            meeting.candidates(asked.index, asked.root, path, |item| {
                let code = &bytes[item as usize * shape.codebooks..][..shape.codebooks];
                let rows = met.chunks_exact_mut(shape.entries);
                rows.zip(code).for_each(|(row, &entry)| row[usize::from(entry)] = 1);
                go_on(met)
            });
        } else {
            meeting.candidates(asked.index, asked.root, path, |item| {
                let rows = met.chunks_exact_mut(shape.entries);
                rows.zip(asked.index.codes().code(item)).for_each(|(row, &entry)| row[usize::from(entry)] = 1);
                go_on(met)
            });
        }
        pack(met, mask);
        mask.iter_mut().zip(possible).for_each(|(word, possible)| *word &= possible);
    }

    /// Of what may follow a path in all eligible items, takes back what only removed items have beside it: for each token that
    /// a removed item has so, another item is looked for, and as a rule found at once.
    fn less_removed(&mut self, asked: Asked<'_>, path: &[Token], mask: &mut [u64]) {
        let codes = asked.index.codes();
        let mut longer = [Token { codebook: 0, entry: 0 }; LONGEST + 1];
        let Some(longer) = longer.get_mut(..=path.len()) else { return };
        longer[..path.len()].copy_from_slice(path);
        let removed = asked.removed.unwrap_or(&[]).iter();
        for &item in removed.filter(|&&item| path.iter().all(|&token| codes.holds(item, token))) {
            for (codebook, &entry) in codes.code(item).iter().enumerate() {
                let other = Token { codebook: codebook as u8, entry };
                let at = codes.shape().flat(other);
                if mask[at / 64] >> (at % 64) & 1 == 1 {
                    longer[path.len()] = other;
                    let mut found = false;
                    self.meeting.candidates(asked.index, asked.root, longer, |_| {
                        found = true;
                        false
                    });
                    mask[at / 64] &= !(u64::from(!found) << (at % 64));
                }
            }
        }
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

    use super::super::postings::BLOCK;
    use super::super::{CatalogItem, IndexBuilder, Row};
    use super::*;
    use crate::domain::{CodeShape, CodeTable, Filter, Item};

    /// A usual index, and one for look-ups of paths.
    fn indexes(shape: CodeShape, entries: Vec<u16>, eligible: impl Fn(usize) -> bool) -> [Index; 2] {
        let codes = CodeTable::new(shape, entries).unwrap();
        let item = |n: usize| Item {
            id: n.to_string(),
            title: None,
            brand: Some(format!("b{}", n % 3)),
            categories: vec![],
            price: None,
            eligible: eligible(n),
        };
        let items = |builder: &mut IndexBuilder| {
            for n in 0..codes.items() {
                let entry = CatalogItem { item: item(n), category: 0, prior: 0.0 };
                builder.push(&Row::from(&entry), std::iter::empty()).unwrap();
            }
        };
        let usual = IndexBuilder::new(vec!["any".into()]);
        [usual, IndexBuilder::new(vec!["any".into()]).for_paths()].map(|mut builder| {
            items(&mut builder);
            builder.finish(codes.clone(), "1".into()).unwrap()
        })
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
        let (mut memory, asked_before) = (NextTokens::default(), asked.get(1..2).unwrap_or_default());
        let mut next = memory.among(index, root);
        next.look_up(asked_before);
        next.look_up(&asked);
        for (at, path) in paths.iter().enumerate() {
            let (mask, count) = naive(index, root, path);
            assert_eq!(next.mask(at), mask, "{path:?} of {} items", root.len());
            assert_eq!(NextTokens::count(index, root, path), count);
        }
        assert!(next.mask(paths.len()).is_empty());
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
        let [usual, for_paths] = indexes(shape, entries.collect(), |n| n % 7 != 0);
        let crowd = [Token { codebook: 0, entry: 1 }, Token { codebook: 1, entry: 1 }];
        assert!(usual.crowd(&crowd).is_none() && for_paths.crowd(&crowd).is_some());
        for index in [usual, for_paths] {
            let some = index.root(&Filter { include_brands: vec!["b1".into()], ..Filter::default() }, &[]);
            let few = Candidates::of(items, (0..300).map(|n| n * 431).filter(|&n| index.is_eligible(n)));
            // All of a rare token's, and some others.
            let seen: Vec<u32> = (0..90).chain((0..4).map(|n| n * 40_000 + 7)).collect();
            let unseen = index.root(&Filter::default(), &seen);
            for root in [index.eligible(), &some, &few, &unseen] {
                [1, 7, 40_007, 70_001].into_iter().for_each(|seed| agrees(&index, root, seed));
            }
        }
    }

    #[test]
    fn lists_hold_the_same_items_however_they_are_numbered() {
        let shape = CodeShape { codebooks: 3, entries: 300 };
        let entries = (0..9_000u32).map(|at| (at.wrapping_mul(0x9E37_79B9) >> 8) as u16 % 300).collect();
        let [usual, for_paths] = indexes(shape, entries, |_| true);
        let mut items = 0;
        for (codebook, entry) in (0..3).flat_map(|codebook| (0..300).map(move |entry| (codebook, entry))) {
            let token = Token { codebook, entry };
            let (list, other) = (usual.postings(token), for_paths.postings(token));
            assert!(list.iter().is_sorted() && other.iter().is_sorted(), "{token:?}");
            assert_eq!((other.to_vec(), other.len()), (other.iter().collect(), list.len()));
            let came = |item| usual.number(&for_paths.item(item).item.id).unwrap();
            let mut came: Vec<ItemNumber> = other.iter().map(came).collect();
            came.sort_unstable();
            assert_eq!(came, list.to_vec(), "{token:?}");
            items += list.len();
        }
        assert_eq!(items, 9_000);
        assert!((1..3_000).all(|item| for_paths.codes().code(item - 1) <= for_paths.codes().code(item)));
    }

    #[test]
    fn tokens_that_are_not_lead_to_nothing() {
        for index in indexes(CodeShape { codebooks: 2, entries: 3 }, vec![0, 1, 2, 1], |_| true) {
            let mut memory = NextTokens::default();
            let strangers = [Token { codebook: 0, entry: 3 }, Token { codebook: 9, entry: 0 }];
            let mut next = memory.among(&index, index.eligible());
            next.look_up(&[&strangers[..1], &strangers[1..], &strangers]);
            assert!((0..3).all(|path| next.mask(path) == [0]));
        }
    }

    #[test]
    fn a_look_up_in_the_memory_of_another_allocates_nothing() {
        let shape = CodeShape { codebooks: 4, entries: 16 };
        let entries = (0..4_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u16 % 16).collect();
        for index in indexes(shape, entries, |n| n % 9 != 0) {
            let filtered = index.root(&Filter { exclude_brands: vec!["b2".into()], ..Filter::default() }, &[]);
            let paths: Vec<Vec<Token>> = [3, 30, 300].into_iter().flat_map(|seed| paths(&index, seed)).collect();
            let asked: Vec<&[Token]> = paths.iter().map(Vec::as_slice).collect();
            let mut next = NextTokens::default();
            let mut counted = |root: &Candidates| measure(|| next.among(&index, root).look_up(&asked)).count_total;
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
            let filter = Filter { include_brands: brand.into_iter().collect(), ..Filter::default() };
            for index in indexes(CodeShape { codebooks, entries }, flat.concat(), |n| !ineligible.contains(&n)) {
                agrees(&index, index.eligible(), seed);
                agrees(&index, &index.root(&filter, &excluded), seed);
            }
        }
    }
}
