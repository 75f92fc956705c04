//! Codes in the order of the postings, so that a path is held against a list by reading on.

use rayon::prelude::*;

use crate::domain::{ItemNumber, Token};

use super::index::Index;

/// Positions that are compared at a time.
const STEP: usize = 64;

/// Beside the postings of each token of codebook r, the entries that its items have in the codebooks after r: a byte each, a
/// codebook after another. Every path of two tokens and more has one of the lowest codebook, whose list then says which of
/// its items have the others without looking at a code. M (M - 1) / 2 bytes an item: 28 with 8 codebooks. Only a search
/// that asks for masks over the whole catalogue needs them, so an index does not hold them.
#[derive(Debug)]
pub struct CodeColumns {
    items: usize,
    codebooks: usize,
    entries: usize,
    version: String,
    /// `[M * D]`: where each token's list begins in the columns of its codebook.
    starts: Vec<usize>,
    /// `[M][(M - 1 - r) * items]`
    columns: Vec<Vec<u8>>,
}

impl CodeColumns {
    /// Reads every item's code once for each codebook, on all threads; none where codes are not kept as bytes (D above 256).
    pub fn of(index: &Index) -> Option<Self> {
        let (shape, items) = (index.codes().shape(), index.len());
        let bytes = index.codes().bytes()?;
        let token = |codebook: usize, entry: usize| Token { codebook: codebook as u8, entry: entry as u16 };
        let of_codebook = |r: usize| {
            let mut columns = vec![0; (shape.codebooks - 1 - r) * items];
            if r + 1 < shape.codebooks && items > 0 {
                let mut rest: Vec<_> = columns.chunks_exact_mut(items).map(|column| column.iter_mut()).collect();
                for entry in 0..shape.entries {
                    index.postings(token(r, entry)).iter().for_each(|item| {
                        let after = &bytes[item as usize * shape.codebooks + r + 1..];
                        rest.iter_mut().zip(after).for_each(|(column, &entry)| {
                            if let Some(place) = column.next() {
                                *place = entry;
                            }
                        });
                    });
                }
            }
            columns
        };
        let columns = (0..shape.codebooks).into_par_iter().map(of_codebook).collect();
        let mut starts = Vec::with_capacity(shape.tokens());
        for r in 0..shape.codebooks {
            let mut before = 0;
            for entry in 0..shape.entries {
                starts.push(before);
                before += index.postings(token(r, entry)).len();
            }
        }
        let (codebooks, entries, version) = (shape.codebooks, shape.entries, index.version().to_owned());
        Some(Self { items, codebooks, entries, version, starts, columns })
    }

    /// Whether they are of this index.
    pub(super) fn are_of(&self, index: &Index) -> bool {
        self.items == index.len() && self.version == index.version()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(Vec::len).sum::<usize>() + 8 * self.starts.len()
    }

    /// Gives the positions in `first`'s list, lowest first, whose items have all of `others`, tokens of codebooks after
    /// its own, to `take`, until it says no. `len` is the list's.
    pub(super) fn matches(&self, first: Token, len: usize, others: &[Token], mut take: impl FnMut(usize) -> bool) {
        let r = usize::from(first.codebook);
        let (Some(&start), Some(all)) =
            (self.starts.get(r * self.entries + usize::from(first.entry)), self.columns.get(r))
        else {
            return;
        };
        // At most as many as there are codebooks; on the stack, so that a look-up allocates nothing.
        let mut columns: [(&[u8], u8); 64] = [(&[], 0); 64];
        let mut used = 0;
        for token in others {
            let s = usize::from(token.codebook);
            if s <= r || s >= self.codebooks {
                return;
            }
            let from = (s - r - 1) * self.items + start;
            let Some(column) = all.get(from..from + len) else { return };
            columns[used] = (column, token.entry as u8);
            used += 1;
        }
        let columns = &columns[..used];
        let mut at = 0;
        while at < len {
            let step = STEP.min(len - at);
            let mut bits = if step == STEP { u64::MAX } else { (1 << step) - 1 };
            for &(column, entry) in columns {
                bits &= equal(&column[at..at + step], entry);
                if bits == 0 {
                    break;
                }
            }
            while bits != 0 {
                if !take(at + bits.trailing_zeros() as usize) {
                    return;
                }
                bits &= bits - 1;
            }
            at += step;
        }
    }
}

/// A bit for each of up to 64 bytes that is `entry`: eight bytes at a time where there are 64.
#[inline(always)]
fn equal(bytes: &[u8], entry: u8) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const LOW: u64 = 0x7F7F_7F7F_7F7F_7F7F;
    if bytes.len() < STEP {
        return bytes.iter().enumerate().fold(0, |bits, (at, &byte)| bits | u64::from(byte == entry) << at);
    }
    bytes.as_chunks::<8>().0.iter().enumerate().fold(0, |bits, (at, &eight)| {
        let different = u64::from_le_bytes(eight) ^ (ONES * u64::from(entry));
        // The highest bit of each byte that is zero, and no other.
        let same = !(((different & LOW) + LOW) | different | LOW);
        // Gathers those bits in the highest byte.
        bits | ((same >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * at)
    })
}

/// The numbers of a list by ascending positions.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    list: super::postings::List<'a>,
    block: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn of(list: super::postings::List<'a>) -> Self {
        Self { list, block: 0 }
    }

    /// The number at a position that is not before the last one asked for.
    pub(super) fn number(&mut self, at: usize) -> Option<ItemNumber> {
        self.list.number_at(at, &mut self.block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_compared_alike_in_full_steps_and_in_the_last() {
        for entry in [0u8, 1, 127, 128, 255] {
            let bytes: Vec<u8> = (0..64u32).map(|at| (at.wrapping_mul(0x9E37_79B9) >> 30) as u8 * 85).collect();
            let bytes: Vec<u8> = bytes.iter().map(|&byte| byte.wrapping_add(entry)).collect();
            let wanted = |bytes: &[u8]| {
                bytes.iter().enumerate().filter(|(_, byte)| **byte == entry).fold(0u64, |bits, (at, _)| bits | 1 << at)
            };
            assert!(wanted(&bytes) != 0 && wanted(&bytes) != u64::MAX);
            assert_eq!(equal(&bytes, entry), wanted(&bytes));
            assert_eq!(equal(&bytes[..41], entry), wanted(&bytes[..41]));
        }
    }
}
