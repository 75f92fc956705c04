//! The candidates of a path, found where the lists of its tokens meet.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::domain::{ItemNumber, Token};

use super::candidates::Candidates;
use super::index::Index;
use super::postings::{BLOCK, List};

/// A block's list is held against what is left by the codes where it is longer than this many times what is left: to look at
/// a code costs that much more than to read a number.
const LOPSIDED: usize = 32;
/// The same where items are not numbered in the order of their codes: each look is then at another place of large tables.
const LOPSIDED_AFAR: usize = 128;
/// Numbers of a list among which a place is found by counting.
const COUNTED: usize = 2048;
/// To find a stretch in a list takes as long as to read so many numbers.
const STRETCH: usize = 50;
/// Items that are looked at together, at least: first one, for those who need no more; then twice as many, up to so many.
const TOGETHER: usize = 256;
/// A path has one token of each codebook at most.
pub(super) const LONGEST: usize = 64;

/// What the lists of one block share.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    /// `[65,536]`: the turn in which each number was marked last.
    marks: Vec<u8>,
    turn: u8,
    /// `[65,536]`: what is left, in front.
    left: Vec<u16>,
    /// Numbers that all lists have and that were not looked at yet: what is known of an item is far in memory, and many are
    /// fetched at once in the time of one.
    found: Vec<ItemNumber>,
    /// How many of them are looked at together next.
    together: usize,
}

/// What is looked for.
struct Wanted<'a> {
    index: &'a Index,
    root: &'a Candidates,
    path: &'a [Token],
    /// Long lists of some of the path's tokens.
    lists: &'a [List<'a>],
}

impl Meeting {
    /// Gives every item of `root` that has all tokens of the path to `take`, in no order, until it says no.
    pub(super) fn candidates(
        &mut self,
        index: &Index,
        root: &Candidates,
        path: &[Token],
        mut take: impl FnMut(ItemNumber) -> bool,
    ) {
        let codes = index.codes();
        let has_all = |item: ItemNumber| root.contains(item) && path.iter().all(|&token| codes.holds(item, token));
        let mut lists = [List::default(); LONGEST];
        let mut used = 0;
        let mut shortest: Option<List<'_>> = None;
        // Tokens of the first two codebooks, the items of which are stretches.
        let (mut first, mut second) = (None, None);
        let in_order = index.code_order().filter(|_| path.iter().all(|&token| is_of(index, token)));
        let second_too = has_stretches(index, path);
        for &token in path {
            let list = index.postings(token);
            if shortest.is_none_or(|shortest| list.len() < shortest.len()) {
                shortest = Some(list);
            }
            match (token.codebook, in_order) {
                (0, Some(_)) => first = Some(token.entry),
                (1, Some(_)) if second_too => second = Some(token.entry),
                _ => {
                    if let Some(place) = lists.get_mut(used) {
                        (*place, used) = (list, used + 1);
                    }
                }
            }
        }
        let Some(shortest) = shortest.filter(|shortest| shortest.len() <= root.len() && path.len() <= LONGEST) else {
            root.iter().filter(|&item| has_all(item)).all(take);
            return;
        };
        if path.iter().any(|&token| index.postings(token).is_short()) {
            // Also one that is none at all.
            shortest.iter().filter(|&item| has_all(item)).all(take);
            return;
        }
        let wanted = Wanted { index, root, path, lists: &lists[..used] };
        self.found.clear();
        self.together = 1;
        let mut within = |stretch: Range<usize>| self.within(stretch, &wanted, &mut take);
        let to_the_end = match (in_order, first, second) {
            (Some(order), first, Some(second)) => order.stretches(first, second).into_iter().flatten().all(within),
            (Some(order), Some(first), None) => {
                within(order.runs[usize::from(first)] as usize..order.runs[usize::from(first) + 1] as usize)
            }
            _ => within(0..index.len()),
        };
        if to_the_end {
            self.give(&wanted, &mut take);
        }
    }

    /// Finds every item that stands within the stretch and in all of the lists; answers whether `take` never said no.
    fn within(
        &mut self,
        stretch: Range<usize>,
        wanted: &Wanted<'_>,
        take: &mut impl FnMut(ItemNumber) -> bool,
    ) -> bool {
        let &Wanted { index, lists, .. } = wanted;
        let lopsided = if index.code_order().is_some() { LOPSIDED } else { LOPSIDED_AFAR };
        if lists.is_empty() {
            return stretch.into_iter().all(|place| {
                self.found.push(place as ItemNumber);
                self.found.len() < self.together || self.give(wanted, take)
            });
        }
        let mut parts: [&[u16]; LONGEST] = [&[]; LONGEST];
        'blocks: for block in stretch.start / BLOCK..stretch.end.div_ceil(BLOCK) {
            let base = block * BLOCK;
            let inside = stretch.start.saturating_sub(base)..stretch.end.saturating_sub(base);
            // The shortest first.
            for (at, list) in lists.iter().enumerate() {
                let part = cut(list.block(block), &inside);
                if part.is_empty() {
                    continue 'blocks;
                }
                let mut place = at;
                while place > 0 && parts[place - 1].len() > part.len() {
                    parts[place] = parts[place - 1];
                    place -= 1;
                }
                parts[place] = part;
            }
            self.intersect(&parts[..lists.len()], base, lopsided);
            if self.found.len() >= self.together && !self.give(wanted, take) {
                return false;
            }
        }
        true
    }

    /// Gives what was found and is wanted to `take`; answers whether it never said no.
    fn give(&mut self, wanted: &Wanted<'_>, take: &mut impl FnMut(ItemNumber) -> bool) -> bool {
        let Wanted { index, root, path, .. } = *wanted;
        let codes = index.codes();
        let mut items = [0; TOGETHER];
        let mut rest = &self.found[..];
        while !rest.is_empty() {
            let (together, others) = rest.split_at(self.together.min(rest.len()));
            let mut kept = 0;
            for &item in together {
                items[kept] = item;
                kept += usize::from(root.contains(item) && path.iter().all(|&token| codes.holds(item, token)));
            }
            if !items[..kept].iter().all(|&item| take(item)) {
                return false;
            }
            rest = others;
            self.together = (2 * self.together).min(TOGETHER);
        }
        self.found.clear();
        true
    }

    /// Adds to what was found the numbers that these lists of a block share, or at least the first of them, the shortest of which
    /// comes first: as long as holding one more against the others costs less than to look at the codes of what is left.
    fn intersect(&mut self, lists: &[&[u16]], base: usize, lopsided: usize) {
        let Some(&first) = lists.first() else { return };
        self.marks.resize(BLOCK, 0);
        self.left.resize(BLOCK, 0);
        let Self { marks, turn, left, found, .. } = self;
        let (Ok(marks), Ok(left)) =
            (<&mut [u8; BLOCK]>::try_from(marks.as_mut_slice()), <&mut [u16; BLOCK]>::try_from(left.as_mut_slice()))
        else {
            return;
        };
        let (mut held, mut count) = (1, first.len());
        while let Some(list) = lists.get(held).filter(|list| list.len() <= lopsided * count) {
            if *turn == u8::MAX {
                marks.fill(0);
                *turn = 0;
            }
            *turn += 1;
            let turn = *turn;
            let marked = if held == 1 { first } else { &left[..count] };
            marked.iter().for_each(|&low| marks[usize::from(low)] = turn);
            count = 0;
            // Written always and kept where it counts: no branch to guess wrong.
            for &low in *list {
                left[count % BLOCK] = low;
                count += usize::from(marks[usize::from(low)] == turn);
            }
            held += 1;
        }
        let shared = if held == 1 { first } else { &left[..count] };
        found.extend(shared.iter().map(|&low| base as ItemNumber + ItemNumber::from(low)));
    }
}

/// The numbers of a sorted list that are inside of a stretch, which is not empty.
fn cut<'a>(list: &'a [u16], inside: &Range<usize>) -> &'a [u16] {
    if inside.start == 0 && inside.end >= BLOCK {
        return list;
    }
    let (start, last) = (inside.start as u16, (inside.end - 1).min(BLOCK - 1) as u16);
    let places = if list.len() <= COUNTED {
        // Sooner counted than sought: every look of a search waits for the one before.
        let (before, until) = Arch::new().dispatch(Count { list, start, last });
        usize::from(before)..usize::from(until)
    } else {
        list.partition_point(|&low| low < start)..list.partition_point(|&low| low <= last)
    };
    list.get(places).unwrap_or(&[])
}

/// How many numbers are below `start`, and how many not above `last`, of no more than [`COUNTED`].
struct Count<'a> {
    list: &'a [u16],
    start: u16,
    last: u16,
}

impl WithSimd for Count<'_> {
    type Output = (u16, u16);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (u16, u16) {
        let (mut before, mut until) = (0, 0);
        for &low in self.list {
            before += u16::from(low < self.start);
            until += u16::from(low <= self.last);
        }
        (before, until)
    }
}

/// Whether the items of the path's token of the second codebook are taken as stretches: where that is known, and costs less
/// than to read two lists.
pub(super) fn has_stretches(index: &Index, path: &[Token]) -> bool {
    let of = |codebook: u8| path.iter().any(|token| token.codebook == codebook);
    if !of(1) || index.code_order().is_none_or(|order| order.pairs.is_empty()) {
        return false;
    }
    let (first, second) = two_shortest(index, path);
    of(0) || first + second > index.codes().shape().entries * STRETCH * path.len()
}

/// Items of the two shortest lists of a path's tokens.
pub(super) fn two_shortest(index: &Index, path: &[Token]) -> (usize, usize) {
    let lens = path.iter().map(|&token| index.postings(token).len());
    lens.fold((index.len(), index.len()), |(first, second), len| (first.min(len), second.min(first.max(len))))
}

/// Whether there is such a token.
pub(super) fn is_of(index: &Index, token: Token) -> bool {
    let shape = index.codes().shape();
    usize::from(token.codebook) < shape.codebooks && usize::from(token.entry) < shape.entries
}
