//! Which tokens may follow a set of tokens: those of the items that hold them all.

use crate::domain::{CodeTable, ItemNumber, Token};

/// The items of each token, for models that know tokens only.
#[derive(Debug)]
pub struct Holders<'a> {
    codes: &'a CodeTable,
    /// By flat token number, ascending.
    lists: Vec<Vec<ItemNumber>>,
}

impl<'a> Holders<'a> {
    /// The items of `codes` by their tokens.
    pub fn of(codes: &'a CodeTable) -> Self {
        let shape = codes.shape();
        let mut lists = vec![Vec::new(); shape.tokens()];
        for item in 0..codes.items() as ItemNumber {
            for (codebook, &entry) in codes.code(item).iter().enumerate() {
                lists[codebook * shape.entries + usize::from(entry)].push(item);
            }
        }
        Self { codes, lists }
    }

    /// The codes.
    pub fn codes(&self) -> &'a CodeTable {
        self.codes
    }

    /// The items of `among` (none: of the catalogue) that hold `token`.
    pub fn narrowed(&self, among: Option<&[ItemNumber]>, token: Token) -> Vec<ItemNumber> {
        match among {
            None => self.lists[self.codes.shape().flat(token)].clone(),
            Some(items) => items.iter().copied().filter(|&item| self.codes.holds(item, token)).collect(),
        }
    }

    /// For each entry of `codebook`: whether an item of `among` (none: of the catalogue) that `counts` holds it.
    pub fn following(
        &self,
        among: Option<&[ItemNumber]>,
        codebook: usize,
        counts: impl Fn(ItemNumber) -> bool,
    ) -> Vec<bool> {
        let entries = self.codes.shape().entries;
        match among {
            None => {
                let lists = &self.lists[codebook * entries..(codebook + 1) * entries];
                lists.iter().map(|list| list.iter().any(|&item| counts(item))).collect()
            }
            Some(items) => {
                let mut following = vec![false; entries];
                let counted = items.iter().filter(|&&item| counts(item));
                counted.for_each(|&item| following[usize::from(self.codes.code(item)[codebook])] = true);
                following
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CodeShape;

    #[test]
    fn what_follows_are_the_tokens_of_the_items_that_hold_all_before() {
        let shape = CodeShape { codebooks: 3, entries: 4 };
        let codes = CodeTable::new(shape, vec![2, 1, 0, 0, 3, 3, 2, 1, 3, 2, 0, 1, 2, 1, 0]).unwrap();
        let holders = Holders::of(&codes);
        let entries = |among: Option<&[u32]>, codebook, but: u32| -> Vec<usize> {
            let following = holders.following(among, codebook, |item| item != but);
            (0..4).filter(|&entry| following[entry]).collect()
        };
        assert_eq!(entries(None, 0, 9), [0, 2]);
        assert_eq!(entries(None, 2, 9), [0, 1, 3]);
        assert_eq!(entries(None, 0, 1), [2]);
        let last = holders.narrowed(None, Token { codebook: 2, entry: 3 });
        assert_eq!(last, [1, 2]);
        assert_eq!(entries(Some(&last), 1, 9), [1, 3]);
        assert_eq!(entries(Some(&last), 1, 2), [3]);
        assert_eq!(holders.narrowed(Some(&last), Token { codebook: 0, entry: 2 }), [2]);
        assert!(holders.narrowed(Some(&last), Token { codebook: 1, entry: 0 }).is_empty());
    }
}
