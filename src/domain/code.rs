//! Semantic tokens: M independent codebooks of D entries; an item's code is one token from each, unordered.

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

/// An item's M entries; position r holds the entry of codebook r.
pub type Code<'a> = &'a [u16];

/// The codes of all items, row after row: `[items, M]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeTable {
    shape: CodeShape,
    entries: Vec<u16>,
}

impl CodeTable {
    /// Takes `[items, M]` entries. Says what is wrong when the length is not a multiple of M or an entry is not below D.
    pub fn new(shape: CodeShape, entries: Vec<u16>) -> Result<Self, String> {
        if !(1..=64).contains(&shape.codebooks) || !(2..=65_536).contains(&shape.entries) {
            return Err(format!(
                "{} codebooks of {} entries: expected 1 to 64 codebooks of 2 to 65536 entries",
                shape.codebooks, shape.entries
            ));
        }
        if !entries.len().is_multiple_of(shape.codebooks) {
            return Err(format!("{} code entries do not fill rows of {}", entries.len(), shape.codebooks));
        }
        if let Some(at) = entries.iter().position(|&entry| usize::from(entry) >= shape.entries) {
            let (item, codebook) = (at / shape.codebooks, at % shape.codebooks);
            return Err(format!(
                "item {item}, codebook {codebook}: entry {} is not below {}",
                entries[at], shape.entries
            ));
        }
        Ok(Self { shape, entries })
    }

    /// M and D.
    pub fn shape(&self) -> CodeShape {
        self.shape
    }

    /// The number of items.
    pub fn items(&self) -> usize {
        self.entries.len() / self.shape.codebooks
    }

    /// The code of one item: M entries.
    pub fn code(&self, item: ItemNumber) -> Code<'_> {
        let start = item as usize * self.shape.codebooks;
        &self.entries[start..start + self.shape.codebooks]
    }

    /// All entries, `[items, M]` in one slice.
    pub fn entries(&self) -> &[u16] {
        &self.entries
    }
}
