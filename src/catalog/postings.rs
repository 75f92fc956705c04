//! Lists of items by key, about two bytes an entry.

use rayon::prelude::*;

use crate::domain::{CodeTable, ItemNumber, breathe};

/// Items whose numbers share their upper half.
pub(super) const BLOCK: usize = 1 << 16;

/// For every key 0 to `keys` - 1 the items that have it, sorted. A long list keeps the lower halves of its numbers, block
/// after block of 65,536 items, and where each block begins; a list of so few items that this would take more keeps them
/// whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Postings {
    /// Blocks that the catalogue makes.
    pub(super) blocks: usize,
    /// `[keys]`: items of each list.
    pub(super) lens: Vec<u32>,
    /// `[keys]`: of a short list where it begins in `whole`; of a long one its row.
    pub(super) places: Vec<u64>,
    /// `[rows]`: where each long list begins in `lows`.
    pub(super) bases: Vec<u64>,
    /// `[rows, blocks]`: where each block begins, counted from the list's beginning.
    pub(super) starts: Vec<u32>,
    /// Lower halves of the long lists' numbers.
    pub(super) lows: Vec<u16>,
    /// The short lists' numbers.
    pub(super) whole: Vec<ItemNumber>,
}

impl Postings {
    /// Groups (key, item) pairs of a catalogue of `items` items, which come in ascending order of items. `pairs` is walked
    /// twice: to count, and to place.
    pub(super) fn group<I: Iterator<Item = (usize, ItemNumber)>>(
        keys: usize,
        items: usize,
        pairs: impl Fn() -> I,
    ) -> Self {
        let blocks = items.div_ceil(BLOCK);
        let mut lens = vec![0u32; keys];
        pairs().for_each(|(key, _)| lens[key] += 1);
        let (mut places, mut bases) = (Vec::with_capacity(keys), Vec::new());
        let (mut long, mut short) = (0, 0);
        for &len in &lens {
            if is_long(len, blocks) {
                places.push(bases.len() as u64);
                bases.push(long);
                long += u64::from(len);
            } else {
                places.push(short);
                short += u64::from(len);
            }
        }
        let mut starts = vec![0u32; bases.len() * blocks];
        let (mut lows, mut whole) = (vec![0; long as usize], vec![0; short as usize]);
        let mut filled = vec![0u32; keys];
        for (key, item) in pairs() {
            let (place, at) = (places[key] as usize, filled[key]);
            if is_long(lens[key], blocks) {
                lows[bases[place] as usize + at as usize] = item as u16;
                starts[place * blocks + item as usize / BLOCK] += 1;
            } else {
                whole[place + at as usize] = item;
            }
            filled[key] += 1;
        }
        for row in starts.chunks_exact_mut(blocks.max(1)) {
            let mut before = 0;
            for start in row {
                before += std::mem::replace(start, before);
            }
        }
        Self { blocks, lens, places, bases, starts, lows, whole }
    }

    /// For every token, by its flat place, the items whose code holds it; none for the tokens of codebooks before `first`.
    pub(super) fn of_tokens(codes: &CodeTable, first: usize) -> Self {
        let shape = codes.shape();
        let of_codebook = |codebook: usize| {
            breathe();
            let items = codes.items() as ItemNumber;
            if codebook < first {
                return Self::group(shape.entries, codes.items(), std::iter::empty);
            }
            // A byte column is walked without looking at each code as a whole.
            match codes.bytes() {
                Some(bytes) => Self::group(shape.entries, codes.items(), || {
                    let column = bytes.iter().skip(codebook).step_by(shape.codebooks);
                    column.zip(0..items).map(|(&entry, item)| (usize::from(entry), item))
                }),
                None => Self::group(shape.entries, codes.items(), || {
                    (0..items).map(|item| (usize::from(codes.code(item)[codebook]), item))
                }),
            }
        };
        let parts: Vec<Self> = (0..shape.codebooks).into_par_iter().map(of_codebook).collect();
        let mut all = Self { blocks: codes.items().div_ceil(BLOCK), ..Self::default() };
        all.lows.reserve_exact(parts.iter().map(|part| part.lows.len()).sum());
        parts.into_iter().for_each(|part| all.append(part));
        all
    }

    /// Puts the keys of another table of the same catalogue behind these.
    fn append(&mut self, other: Self) {
        let (rows, long, short) = (self.bases.len() as u64, self.lows.len() as u64, self.whole.len() as u64);
        let blocks = self.blocks;
        let moved = other.lens.iter().zip(&other.places);
        let moved = moved.map(|(&len, place)| place + if is_long(len, blocks) { rows } else { short });
        self.places.extend(moved);
        self.lens.extend_from_slice(&other.lens);
        self.bases.extend(other.bases.iter().map(|base| base + long));
        self.starts.extend_from_slice(&other.starts);
        self.lows.extend_from_slice(&other.lows);
        self.whole.extend_from_slice(&other.whole);
    }

    /// The items of one key, lowest number first; none for a key that does not exist.
    pub fn of(&self, key: usize) -> List<'_> {
        self.list(key).unwrap_or_default()
    }

    fn list(&self, key: usize) -> Option<List<'_>> {
        let (len, place) = (*self.lens.get(key)?, *self.places.get(key)? as usize);
        if is_long(len, self.blocks) {
            let base = *self.bases.get(place)? as usize;
            let lows = self.lows.get(base..base + len as usize)?;
            let blocks = self.starts.get(place * self.blocks..(place + 1) * self.blocks)?;
            Some(List { blocks, lows, ..List::default() })
        } else {
            Some(List { whole: self.whole.get(place..place + len as usize)?, ..List::default() })
        }
    }

    /// Says what is wrong with lists that were read from a file: then no number that they give is past the catalogue's
    /// `items`, and no look-up fails.
    pub(super) fn check(&self, keys: usize, items: usize) -> Result<(), String> {
        let sizes = (self.blocks, self.lens.len(), self.places.len());
        if sizes != (items.div_ceil(BLOCK), keys, keys) || self.starts.len() != self.bases.len() * self.blocks {
            return Err("lists of another catalogue".to_owned());
        }
        for key in 0..keys {
            let list = self.list(key).ok_or_else(|| format!("list {key} is not all there"))?;
            let last = self.blocks.saturating_sub(1);
            let ordered = list.blocks.first().is_none_or(|&start| start == 0)
                && list.blocks.windows(2).all(|pair| pair[0] <= pair[1])
                && list.blocks.last().is_none_or(|&start| start as usize <= list.lows.len());
            let within = ordered
                && list.whole.iter().all(|&item| (item as usize) < items)
                && list.block(last).iter().all(|&low| last * BLOCK + usize::from(low) < items);
            if !within {
                return Err(format!("list {key} names items that there are not"));
            }
        }
        Ok(())
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let rows = 4 * self.lens.len() + 8 * (self.places.len() + self.bases.len()) + 4 * self.starts.len();
        rows + 2 * self.lows.len() + 4 * self.whole.len()
    }
}

/// Two bytes an entry and four a block, or four bytes an entry: what is less.
fn is_long(len: u32, blocks: usize) -> bool {
    len as usize > 2 * blocks
}

/// The items of one key, lowest number first.
#[derive(Debug, Clone, Copy, Default)]
pub struct List<'a> {
    /// Of a long list where each block begins.
    blocks: &'a [u32],
    /// A long list's lower halves.
    lows: &'a [u16],
    /// A short list's numbers.
    whole: &'a [ItemNumber],
    /// Numbers that follow each other, from and to: all of a list that is kept so.
    run: (ItemNumber, ItemNumber),
}

impl<'a> List<'a> {
    /// How many items there are.
    pub fn len(self) -> usize {
        self.lows.len() + self.whole.len() + (self.run.1 - self.run.0) as usize
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The items, in the list's order.
    pub fn iter(self) -> Numbers<'a> {
        Numbers { list: self, at: 0, block: 0 }
    }

    /// A copy of the items.
    pub fn to_vec(self) -> Vec<ItemNumber> {
        let mut numbers = Vec::with_capacity(self.len());
        self.iter().for_each(|number| numbers.push(number));
        numbers
    }

    /// The lower halves of a long list's numbers in one block; of a short list, none.
    pub(super) fn block(self, block: usize) -> &'a [u16] {
        let Some(&start) = self.blocks.get(block) else { return &[] };
        let end = self.blocks.get(block + 1).map_or(self.lows.len(), |&end| end as usize);
        self.lows.get(start as usize..end).unwrap_or(&[])
    }

    /// This list, or if it is empty the numbers from `run.0` up to `run.1`.
    pub(super) fn or_run(self, run: (ItemNumber, ItemNumber)) -> Self {
        Self { run, ..self }
    }

    /// The numbers that are all of a list that is kept as the two ends of a stretch.
    pub(super) fn run(self) -> Option<std::ops::Range<usize>> {
        (self.run.0 < self.run.1).then_some(self.run.0 as usize..self.run.1 as usize)
    }

    /// The number at a position; `block` is the block of the last position asked for, which was not after this one.
    fn number_at(self, at: usize, block: &mut usize) -> Option<ItemNumber> {
        if let Some(&number) = self.whole.get(at) {
            return Some(number);
        }
        if let Some(place) = self.run().and_then(|mut run| run.nth(at)) {
            return Some(place as ItemNumber);
        }
        let &low = self.lows.get(at)?;
        while self.blocks.get(*block + 1).is_some_and(|&start| start as usize <= at) {
            *block += 1;
        }
        Some((*block * BLOCK) as ItemNumber + ItemNumber::from(low))
    }

    /// Whether the list is one of so few that they are not kept by blocks.
    pub(super) fn is_short(self) -> bool {
        self.lows.is_empty() && self.run().is_none()
    }
}

impl<'a> IntoIterator for List<'a> {
    type Item = ItemNumber;
    type IntoIter = Numbers<'a>;

    fn into_iter(self) -> Numbers<'a> {
        self.iter()
    }
}

/// The numbers of a list, lowest first.
#[derive(Debug, Clone)]
pub struct Numbers<'a> {
    list: List<'a>,
    at: usize,
    /// The block of the next number.
    block: usize,
}

impl Iterator for Numbers<'_> {
    type Item = ItemNumber;

    fn next(&mut self) -> Option<ItemNumber> {
        let number = self.list.number_at(self.at, &mut self.block)?;
        self.at += 1;
        Some(number)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.list.len().saturating_sub(self.at);
        (left, Some(left))
    }

    // Block by block, so that a walk over a whole list does not look for its block at every number.
    fn fold<B, F: FnMut(B, ItemNumber) -> B>(self, first: B, mut f: F) -> B {
        let Self { list, at, .. } = self;
        let mut result = list.whole.iter().skip(at).fold(first, |result, &number| f(result, number));
        if let Some(run) = list.run() {
            result = run.skip(at).fold(result, |result, place| f(result, place as ItemNumber));
        }
        for block in 0..list.blocks.len() {
            let start = list.blocks[block] as usize;
            let base = (block * BLOCK) as ItemNumber;
            let lows = list.block(block).iter().skip(at.saturating_sub(start));
            result = lows.fold(result, |result, &low| f(result, base + ItemNumber::from(low)));
        }
        result
    }
}

impl ExactSizeIterator for Numbers<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists over three blocks, so that some are long and some short.
    fn sample() -> (Vec<Vec<ItemNumber>>, Postings, usize) {
        let items = 2 * BLOCK + 700;
        let lists: Vec<Vec<ItemNumber>> = vec![
            (0..items as u32).filter(|n| n % 1_000 == 0).collect(),
            vec![],
            vec![5, 70_000],
            (BLOCK as u32..BLOCK as u32 + 20).collect(),
            (0..40).map(|n| items as u32 - 40 + n).collect(),
        ];
        let mut pairs: Vec<(usize, ItemNumber)> =
            lists.iter().enumerate().flat_map(|(key, list)| list.iter().map(move |&item| (key, item))).collect();
        pairs.sort_unstable_by_key(|&(_, item)| item);
        let postings = Postings::group(lists.len(), items, || pairs.iter().copied());
        (lists, postings, items)
    }

    #[test]
    fn lists_long_and_short_give_their_numbers_in_order() {
        let (lists, postings, items) = sample();
        for (key, list) in lists.iter().enumerate() {
            let found = postings.of(key);
            assert_eq!(found.to_vec(), *list);
            assert_eq!(found.iter().map(Some).chain([None]).collect::<Vec<_>>().len(), list.len() + 1);
            let (mut stepped, mut numbers) = (Vec::new(), found.iter());
            while let Some(number) = numbers.next() {
                stepped.push(number);
                // What is left is the same, walked at once.
                assert_eq!(numbers.clone().fold(0, |count, _| count + 1), list.len() - stepped.len());
            }
            assert_eq!((stepped, found.len()), (list.clone(), list.len()));
        }
        assert!(postings.of(2).is_short() && !postings.of(0).is_short() && postings.of(99).is_empty());
        assert_eq!(postings.check(lists.len(), items), Ok(()));
    }

    #[test]
    fn lists_that_cannot_be_are_refused() {
        let (lists, postings, items) = sample();
        let keys = lists.len();
        assert!(postings.check(keys + 1, items).is_err() && postings.check(keys, items + BLOCK).is_err());
        assert!(postings.check(keys, items - 1).is_err(), "names an item that there is not");
        let broken = |change: &dyn Fn(&mut Postings)| {
            let mut postings = postings.clone();
            change(&mut postings);
            postings.check(keys, items).is_err()
        };
        assert!(broken(&|postings| postings.whole[1] = items as u32));
        assert!(broken(&|postings| postings.starts[1] = u32::MAX));
        assert!(broken(&|postings| postings.places[3] = 99));
        assert!(broken(&|postings| postings.lows.truncate(100)));
        assert!(broken(&|postings| postings.bases[0] = 7_000_000));
    }
}
