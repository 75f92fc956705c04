//! How evenly the items share a tokenizer's entries.

use serde::{Deserialize, Serialize};

use crate::domain::CodeTable;

/// How the items use their codebooks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenUse {
    /// Items with a code.
    pub items: usize,
    /// One entry a codebook.
    pub codebooks: Vec<CodebookUse>,
    /// Different codes among the items.
    pub distinct_codes: usize,
    /// Different codes before assignment moved items apart, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distinct_codes_before: Option<usize>,
    /// Share of the features' variance that the codes do not explain, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variance_left: Option<f64>,
}

/// How the items use one codebook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CodebookUse {
    /// Items of each entry, the most used first; as many numbers as there are entries.
    pub counts: Vec<u32>,
    /// e to the entropy of the entries' shares: the number of entries when all are used alike.
    pub perplexity: f64,
}

impl TokenUse {
    /// Counts the entries of `codes`; what is only known to who fitted them is left open.
    pub fn of(codes: &CodeTable) -> Self {
        let shape = codes.shape();
        let mut counts = vec![vec![0_u32; shape.entries]; shape.codebooks];
        let entries = codes.entries();
        for code in entries.chunks(shape.codebooks) {
            for (codebook, &entry) in code.iter().enumerate() {
                counts[codebook][usize::from(entry)] += 1;
            }
        }
        let mut distinct: Vec<&[u16]> = entries.chunks(shape.codebooks).collect();
        distinct.sort_unstable();
        distinct.dedup();
        Self {
            items: codes.items(),
            codebooks: counts.into_iter().map(CodebookUse::of).collect(),
            distinct_codes: distinct.len(),
            distinct_codes_before: None,
            variance_left: None,
        }
    }
}

impl CodebookUse {
    fn of(mut counts: Vec<u32>) -> Self {
        counts.sort_unstable_by(|one, other| other.cmp(one));
        let items: f64 = counts.iter().copied().map(f64::from).sum();
        let entropy: f64 = counts
            .iter()
            .filter(|&&count| count > 0)
            .map(|&count| f64::from(count) / items)
            .map(|share| -share * share.ln())
            .sum();
        Self { counts, perplexity: entropy.exp() }
    }

    /// Entries that some item has.
    pub fn used(&self) -> usize {
        self.counts.iter().filter(|&&count| count > 0).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CodeShape;

    #[test]
    fn entries_are_counted_per_codebook_most_used_first() {
        let shape = CodeShape { codebooks: 2, entries: 4 };
        let codes = CodeTable::new(shape, vec![3, 0, 3, 1, 1, 2, 3, 0]).unwrap();
        let found = TokenUse::of(&codes);
        assert_eq!(found.codebooks[0].counts, [3, 1, 0, 0]);
        assert_eq!(found.codebooks[1].counts, [2, 1, 1, 0]);
        assert_eq!((found.items, found.distinct_codes), (4, 3));
        assert_eq!((found.codebooks[0].used(), found.codebooks[1].used()), (2, 3));
    }

    #[test]
    fn perplexity_is_the_number_of_entries_when_all_are_used_alike() {
        let shape = CodeShape { codebooks: 1, entries: 4 };
        let even = TokenUse::of(&CodeTable::new(shape, vec![0, 1, 2, 3]).unwrap());
        assert!((even.codebooks[0].perplexity - 4.0).abs() < 1e-12);
        let one = TokenUse::of(&CodeTable::new(shape, vec![2, 2]).unwrap());
        assert_eq!(one.codebooks[0].perplexity, 1.0);
    }
}
