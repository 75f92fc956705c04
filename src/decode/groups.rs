//! Candidates by their token of one codebook.

use crate::domain::{CodeTable, ItemNumber, Token};

use super::sums::Scored;

/// A path's candidates, those of each token of one codebook together: found in one walk, where a walk for each child would
/// read all of them as often as there are children.
#[derive(Debug, Default)]
pub(super) struct Groups {
    codebook: u8,
    /// `[D + 1]`: where those of each entry begin.
    starts: Vec<usize>,
    /// The entry of each candidate, as they were given.
    entries: Vec<u16>,
    items: Scored,
}

impl Groups {
    /// Groups `items`; what was there before is forgotten.
    pub(super) fn group(&mut self, items: &Scored, codes: &CodeTable, codebook: u8) {
        let (width, column) = (codes.shape().codebooks, usize::from(codebook));
        self.codebook = codebook;
        self.entries.clear();
        let numbers = items.numbers.iter();
        match codes.bytes() {
            Some(bytes) => {
                self.entries.extend(numbers.map(|&number| u16::from(bytes[number as usize * width + column])));
            }
            None => self.entries.extend(numbers.map(|&number| codes.code(number)[column])),
        }
        let Self { starts, entries, items: grouped, .. } = self;
        starts.clear();
        starts.resize(codes.shape().entries + 1, 0);
        entries.iter().for_each(|&entry| starts[usize::from(entry) + 1] += 1);
        (1..starts.len()).for_each(|entry| starts[entry] += starts[entry - 1]);
        grouped.clear();
        grouped.numbers.resize(entries.len(), 0);
        grouped.scores.resize(entries.len(), 0.0);
        // Each start moves to where the next one was.
        for (&entry, (&number, &score)) in entries.iter().zip(items.numbers.iter().zip(&items.scores)) {
            let place = &mut starts[usize::from(entry)];
            (grouped.numbers[*place], grouped.scores[*place]) = (number, score);
            *place += 1;
        }
        starts.pop();
        starts.insert(0, 0);
    }

    /// Those that hold the token, in the order in which they were given, and their scores; none of a codebook that they are
    /// not grouped by.
    pub(super) fn of(&self, token: Token) -> (&[ItemNumber], &[f32]) {
        let entry = usize::from(token.entry);
        let range = match (self.starts.get(entry), self.starts.get(entry + 1)) {
            (Some(&start), Some(&end)) if token.codebook == self.codebook => start..end,
            _ => 0..0,
        };
        (&self.items.numbers[range.clone()], &self.items.scores[range])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CodeShape;

    #[test]
    fn groups_hold_every_candidate_once_and_in_order() {
        for entries in [5u16, 300] {
            let shape = CodeShape { codebooks: 3, entries: usize::from(entries) };
            let codes = (0..300u16).map(|at| (at * 7 + at / 3) % entries).collect();
            let codes = CodeTable::new(shape, codes).unwrap();
            let mut items = Scored::default();
            (0..100).filter(|number| number % 3 != 1).for_each(|number| items.push(number, number as f32 / 8.0));
            let mut groups = Groups::default();
            for codebook in [2, 0] {
                groups.group(&items, &codes, codebook);
                let mut met = 0;
                for entry in 0..entries {
                    let token = Token { codebook, entry };
                    let (numbers, scores) = groups.of(token);
                    let held: Vec<_> = items.numbers.iter().copied().filter(|item| codes.holds(*item, token)).collect();
                    assert_eq!(numbers, held);
                    assert!(numbers.iter().zip(scores).all(|(number, score)| *score == *number as f32 / 8.0));
                    met += numbers.len();
                }
                assert_eq!(met, items.numbers.len());
                assert!(groups.of(Token { codebook: 1, entry: 0 }).0.is_empty());
                assert!(groups.of(Token { codebook, entry: entries }).0.is_empty());
            }
        }
    }
}
