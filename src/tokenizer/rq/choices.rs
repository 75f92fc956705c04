//! Where an item of the RQ-VAE may move: to another entry of the last level, and only when all of those are taken, to
//! another of the level before, after which the later levels choose again.

use super::residual::subtract;
use crate::tokenizer::assign::{Choices, ranked};

/// One item's latent and code, beside all codebooks.
pub(in crate::tokenizer) struct ResidualChoices<'a> {
    /// `[L, D, latent]`
    codebooks: &'a [f32],
    entries: usize,
    /// `[latent]`
    encoded: Vec<f32>,
    /// `[L]`
    code: Vec<u16>,
    /// Second-least less least squared distance at the last level.
    cheapest: f32,
}

impl<'a> ResidualChoices<'a> {
    /// `codebooks` is `[L, D, latent]`, `encoded` the item's latent, `code` what its levels chose.
    pub fn new(codebooks: &'a [f32], entries: usize, encoded: &[f32], code: &[u16]) -> Self {
        let mut choices =
            Self { codebooks, entries, encoded: encoded.to_vec(), code: code.to_vec(), cheapest: f32::INFINITY };
        let mut residual = encoded.to_vec();
        for (level, &entry) in code.iter().enumerate() {
            if level + 1 == code.len() {
                let ranked = choices.ranked(level, &residual);
                choices.cheapest = ranked[1].0 - ranked[0].0;
            }
            subtract(&mut residual, choices.level(level), &[entry], encoded.len());
        }
        choices
    }

    /// One level's entries: `[D, latent]`.
    fn level(&self, level: usize) -> &'a [f32] {
        let size = self.entries * self.encoded.len();
        &self.codebooks[level * size..(level + 1) * size]
    }

    /// One level's entries by their distance to what is left.
    fn ranked(&self, level: usize, residual: &[f32]) -> Vec<(f32, u16)> {
        let distance = |entry: &[f32]| {
            entry.iter().zip(residual).map(|(value, left)| (value - left) * (value - left)).sum::<f32>()
        };
        let distances: Vec<f32> = self.level(level).chunks_exact(residual.len()).map(distance).collect();
        ranked(&distances)
    }

    /// Tries every entry after `path`, nearest first, each with all that can follow it; true with the code in `path`.
    fn descend(&self, residual: &[f32], path: &mut Vec<u16>, free: &dyn Fn(&[u16]) -> bool) -> bool {
        let level = path.len();
        if level == self.code.len() {
            return free(path);
        }
        let mut order: Vec<u16> = self.ranked(level, residual).into_iter().map(|(_, entry)| entry).collect();
        // Rounding must not lead a tie away from the code that the item has.
        if *path == self.code[..level] {
            order.retain(|&entry| entry != self.code[level]);
            order.insert(0, self.code[level]);
        }
        for entry in order {
            let mut left = residual.to_vec();
            subtract(&mut left, self.level(level), &[entry], residual.len());
            path.push(entry);
            if self.descend(&left, path, free) {
                return true;
            }
            path.pop();
        }
        false
    }
}

impl Choices for ResidualChoices<'_> {
    fn cheapest_move(&self) -> f32 {
        self.cheapest
    }

    fn first_free(&self, free: &dyn Fn(&[u16]) -> bool) -> Option<Vec<u16>> {
        let mut path = Vec::with_capacity(self.code.len());
        self.descend(&self.encoded, &mut path, free).then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two levels of three entries on a line: 0, 10, 20, then 0, 1, 2.
    const CODEBOOKS: [f32; 6] = [0.0, 10.0, 20.0, 0.0, 1.0, 2.0];

    #[test]
    fn the_last_level_moves_first_and_the_one_before_it_when_all_its_entries_are_taken() {
        let choices = ResidualChoices::new(&CODEBOOKS, 3, &[10.9], &[1, 1]);
        assert!((choices.cheapest_move() - (0.81 - 0.01)).abs() < 1e-4, "{}", choices.cheapest_move());
        let mut taken: Vec<Vec<u16>> = Vec::new();
        while let Some(code) = choices.first_free(&|code| !taken.iter().any(|other| other == code)) {
            taken.push(code);
        }
        // After 20, -9.1 is left, to which 0 is nearest; after 0, 10.9 is, to which 2 is.
        let expected: [[u16; 2]; 9] = [[1, 1], [1, 0], [1, 2], [2, 0], [2, 1], [2, 2], [0, 2], [0, 1], [0, 0]];
        assert_eq!(taken, expected);
    }
}
