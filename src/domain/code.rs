//! Semantic tokens: M independent codebooks of D entries; an item's code is one token from each, unordered.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::ItemNumber;

/// Entry `entry` of codebook `codebook`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Token {
    /// r, below M.
    pub codebook: u8,
    /// j, below D.
    pub entry: u16,
}

/// How many codebooks (M) and how many entries each (D).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeShape {
    /// M, 1 to 64: sets of used codebooks are kept in one 64-bit mask.
    pub codebooks: usize,
    /// D, 2 to 65,536.
    pub entries: usize,
}

impl CodeShape {
    /// M * D: the number of distinct tokens.
    pub fn tokens(self) -> usize {
        self.codebooks * self.entries
    }

    /// The place of a token in a flat `[M, D]` table.
    pub fn flat(self, token: Token) -> usize {
        usize::from(token.codebook) * self.entries + usize::from(token.entry)
    }
}

/// The entries that a byte can name, so that codes kept as bytes are read like codes kept as words.
static ENTRIES: [u16; 256] = {
    let (mut entries, mut at) = ([0; 256], 0);
    while at < entries.len() {
        entries[at] = at as u16;
        at += 1;
    }
    entries
};

/// An item's M entries; position r holds the entry of codebook r. Read like a slice, whatever it is kept as.
#[derive(Debug, Clone, Copy)]
pub enum Code<'a> {
    /// Of codebooks of at most 256 entries.
    Bytes(&'a [u8]),
    /// Of larger ones.
    Words(&'a [u16]),
}

impl<'a> Code<'a> {
    /// How many entries there are.
    pub fn len(self) -> usize {
        match self {
            Code::Bytes(code) => code.len(),
            Code::Words(code) => code.len(),
        }
    }

    /// Whether there are no entries at all.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The entries, by codebook.
    pub fn iter(self) -> Entries<'a> {
        match self {
            Code::Bytes(code) => Entries::Bytes(code.iter()),
            Code::Words(code) => Entries::Words(code.iter()),
        }
    }

    /// A copy of the entries.
    pub fn to_vec(self) -> Vec<u16> {
        self.iter().copied().collect()
    }

    /// The entries of the first `depth` codebooks.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn head(self, depth: usize) -> Self {
        match self {
            Code::Bytes(code) => Code::Bytes(&code[..depth]),
            Code::Words(code) => Code::Words(&code[..depth]),
        }
    }
}

impl Default for Code<'_> {
    fn default() -> Self {
        Code::Bytes(&[])
    }
}

impl std::ops::Index<usize> for Code<'_> {
    type Output = u16;

    fn index(&self, codebook: usize) -> &u16 {
        match self {
            Code::Bytes(code) => &ENTRIES[usize::from(code[codebook])],
            Code::Words(code) => &code[codebook],
        }
    }
}

impl PartialEq for Code<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Code<'_> {}

impl PartialOrd for Code<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Code<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl Hash for Code<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.iter().for_each(|entry| entry.hash(state));
    }
}

impl<'a> IntoIterator for Code<'a> {
    type Item = &'a u16;
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        self.iter()
    }
}

/// The entries of a code, by codebook.
#[derive(Debug, Clone)]
pub enum Entries<'a> {
    /// Kept as bytes.
    Bytes(std::slice::Iter<'a, u8>),
    /// Kept as words.
    Words(std::slice::Iter<'a, u16>),
}

impl<'a> Iterator for Entries<'a> {
    type Item = &'a u16;

    fn next(&mut self) -> Option<&'a u16> {
        match self {
            Entries::Bytes(bytes) => bytes.next().map(|&byte| &ENTRIES[usize::from(byte)]),
            Entries::Words(words) => words.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Entries::Bytes(bytes) => bytes.size_hint(),
            Entries::Words(words) => words.size_hint(),
        }
    }
}

impl ExactSizeIterator for Entries<'_> {}

/// The codes of all items, row after row: `[items, M]`, a byte an entry when D is at most 256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeTable {
    shape: CodeShape,
    rows: Rows,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rows {
    Bytes(Vec<u8>),
    Words(Vec<u16>),
}

impl CodeTable {
    /// Takes `[items, M]` entries. Says what is wrong when the length is not a multiple of M or an entry is not below D.
    pub fn new(shape: CodeShape, entries: Vec<u16>) -> Result<Self, String> {
        let mut table = Self::empty(shape)?;
        table.check(&entries)?;
        match &mut table.rows {
            Rows::Bytes(bytes) => bytes.extend(entries.iter().map(|&entry| entry as u8)),
            Rows::Words(words) => *words = entries,
        }
        Ok(table)
    }

    /// The table of no items.
    pub fn empty(shape: CodeShape) -> Result<Self, String> {
        if !(1..=64).contains(&shape.codebooks) || !(2..=65_536).contains(&shape.entries) {
            return Err(format!(
                "{} codebooks of {} entries: expected 1 to 64 codebooks of 2 to 65536 entries",
                shape.codebooks, shape.entries
            ));
        }
        let rows = if shape.entries <= ENTRIES.len() { Rows::Bytes(Vec::new()) } else { Rows::Words(Vec::new()) };
        Ok(Self { shape, rows })
    }

    /// Takes `[items, M]` entries of at most 256 as bytes; refuses what [`CodeTable::new`] refuses.
    pub fn of_bytes(shape: CodeShape, bytes: Vec<u8>) -> Result<Self, String> {
        let mut table = Self::empty(shape)?;
        let Rows::Bytes(_) = table.rows else {
            return Err(format!("bytes for {} entries: expected at most 256", shape.entries));
        };
        let most = bytes.iter().copied().max().unwrap_or(0);
        if !bytes.len().is_multiple_of(shape.codebooks) || usize::from(most) >= shape.entries {
            // Found again the slow way, to name it.
            table.check(&bytes.iter().map(|&byte| u16::from(byte)).collect::<Vec<_>>())?;
        }
        table.rows = Rows::Bytes(bytes);
        Ok(table)
    }

    /// Adds rows of M entries behind the others; refuses what [`CodeTable::new`] refuses.
    pub fn extend(&mut self, entries: &[u16]) -> Result<(), String> {
        self.check(entries)?;
        match &mut self.rows {
            Rows::Bytes(bytes) => bytes.extend(entries.iter().map(|&entry| entry as u8)),
            Rows::Words(words) => words.extend_from_slice(entries),
        }
        Ok(())
    }

    fn check(&self, entries: &[u16]) -> Result<(), String> {
        let (shape, before) = (self.shape, self.items());
        if !entries.len().is_multiple_of(shape.codebooks) {
            return Err(format!("{} code entries do not fill rows of {}", entries.len(), shape.codebooks));
        }
        if let Some(at) = entries.iter().position(|&entry| usize::from(entry) >= shape.entries) {
            let (item, codebook) = (before + at / shape.codebooks, at % shape.codebooks);
            return Err(format!(
                "item {item}, codebook {codebook}: entry {} is not below {}",
                entries[at], shape.entries
            ));
        }
        Ok(())
    }

    /// The rows of `items`, one after another.
    ///
    /// # Panics
    /// When there are not so many items.
    pub fn in_order(&self, items: impl ExactSizeIterator<Item = ItemNumber>) -> Self {
        let width = self.shape.codebooks;
        let row = |item: ItemNumber| item as usize * width..(item as usize + 1) * width;
        let rows = match &self.rows {
            Rows::Bytes(bytes) => {
                let mut ordered = Vec::with_capacity(items.len() * width);
                items.for_each(|item| ordered.extend_from_slice(&bytes[row(item)]));
                Rows::Bytes(ordered)
            }
            Rows::Words(words) => {
                let mut ordered = Vec::with_capacity(items.len() * width);
                items.for_each(|item| ordered.extend_from_slice(&words[row(item)]));
                Rows::Words(ordered)
            }
        };
        Self { shape: self.shape, rows }
    }

    /// M and D.
    pub fn shape(&self) -> CodeShape {
        self.shape
    }

    /// The number of items.
    pub fn items(&self) -> usize {
        let entries = match &self.rows {
            Rows::Bytes(bytes) => bytes.len(),
            Rows::Words(words) => words.len(),
        };
        entries / self.shape.codebooks
    }

    /// The code of one item: M entries.
    ///
    /// # Panics
    /// When there are not so many items.
    #[inline]
    pub fn code(&self, item: ItemNumber) -> Code<'_> {
        let start = item as usize * self.shape.codebooks;
        match &self.rows {
            Rows::Bytes(bytes) => Code::Bytes(&bytes[start..start + self.shape.codebooks]),
            Rows::Words(words) => Code::Words(&words[start..start + self.shape.codebooks]),
        }
    }

    /// Whether the item's code holds the token; false for items and tokens that do not exist.
    #[inline]
    pub fn holds(&self, item: ItemNumber, token: Token) -> bool {
        let codebook = usize::from(token.codebook);
        let at = item as usize * self.shape.codebooks + codebook;
        match &self.rows {
            _ if codebook >= self.shape.codebooks => false,
            Rows::Bytes(bytes) => bytes.get(at).is_some_and(|&entry| u16::from(entry) == token.entry),
            Rows::Words(words) => words.get(at).is_some_and(|&entry| entry == token.entry),
        }
    }

    /// All entries, `[items, M]` in one slice: a copy where they are kept as bytes.
    pub fn entries(&self) -> Cow<'_, [u16]> {
        match &self.rows {
            Rows::Bytes(bytes) => Cow::Owned(bytes.iter().map(|&entry| u16::from(entry)).collect()),
            Rows::Words(words) => Cow::Borrowed(words),
        }
    }

    /// All entries, `[items, M]`, when they are kept as bytes: D is at most 256.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.rows {
            Rows::Bytes(bytes) => Some(bytes),
            Rows::Words(_) => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_alike_as_bytes_and_as_words() {
        let table = |entries| CodeTable::new(CodeShape { codebooks: 2, entries }, vec![3, 255, 0, 7]).unwrap();
        let (bytes, words) = (table(256), table(257));
        assert!(bytes.bytes().is_some() && words.bytes().is_none());
        for item in 0..2 {
            let (one, other) = (bytes.code(item), words.code(item));
            assert_eq!(one, other);
            assert_eq!((one[1], one.len(), one.to_vec()), (other[1], other.len(), other.to_vec()));
            assert_eq!(one.head(1), other.head(1));
            assert!((0..256).all(|entry| [0, 1].iter().all(|&codebook| {
                let token = Token { codebook, entry };
                bytes.holds(item, token) == words.holds(item, token)
                    && bytes.holds(item, token) == (one[usize::from(codebook)] == entry)
            })));
        }
        let strangers = [(2, Token { codebook: 0, entry: 0 }), (0, Token { codebook: 2, entry: 0 })];
        assert!(strangers.iter().all(|&(item, token)| !bytes.holds(item, token) && !words.holds(item, token)));
        assert!(bytes.code(1) < bytes.code(0) && words.code(1) < words.code(0));
        assert_eq!(bytes.entries(), words.entries());
        assert_eq!(CodeTable::of_bytes(bytes.shape(), bytes.bytes().unwrap().to_vec()).unwrap(), bytes);
    }

    #[test]
    fn a_bad_entry_is_named() {
        let shape = CodeShape { codebooks: 2, entries: 4 };
        let told = "item 1, codebook 0: entry 4 is not below 4";
        assert_eq!(CodeTable::new(shape, vec![0, 3, 4, 0]).unwrap_err(), told);
        assert_eq!(CodeTable::of_bytes(shape, vec![0, 3, 4, 0]).unwrap_err(), told);
        let mut grown = CodeTable::new(shape, vec![0, 3]).unwrap();
        assert_eq!(grown.extend(&[4, 0]).unwrap_err(), told);
        assert_eq!(grown.extend(&[1]).unwrap_err(), "1 code entries do not fill rows of 2");
        grown.extend(&[1, 2]).unwrap();
        assert_eq!(grown.code(1).to_vec(), [1, 2]);
    }
}
