//! CRSS: from P(i | h, path) to the path's children.

use crate::domain::{CodeTable, ItemNumber, Token};

use super::settings::Expansion;

/// Sums of item weights by token, `[M, D]`, with a list of the tokens that are not zero: a path of few candidates is
/// read and cleared in as many steps as it has tokens.
#[derive(Debug, Default)]
pub(super) struct Marginals {
    weights: Vec<f64>,
    touched: Vec<Token>,
    /// `[M, D]`: the tokens of the items that a draft looks for.
    looked_for: Vec<bool>,
}

impl Marginals {
    /// Adds every item's weight (above zero) to each of its tokens. What was there before is forgotten.
    pub(super) fn fill(&mut self, codes: &CodeTable, numbers: &[ItemNumber], weights: &[f32]) {
        let shape = codes.shape();
        for token in self.touched.drain(..) {
            self.weights[shape.flat(token)] = 0.0;
        }
        self.weights.resize(shape.tokens(), 0.0);
        if numbers.len() < shape.entries {
            self.fill_few(codes, numbers, weights);
        } else {
            self.fill_many(codes, numbers, weights);
        }
    }

    /// Notes each token as it is first met.
    fn fill_few(&mut self, codes: &CodeTable, numbers: &[ItemNumber], weights: &[f32]) {
        let entries = codes.shape().entries;
        let (sums, touched) = (&mut self.weights[..], &mut self.touched);
        for (&number, &weight) in numbers.iter().zip(weights) {
            let weight = f64::from(weight);
            // Offsets by hand: cutting the table into rows costs a division an item.
            let mut row = 0;
            for (codebook, &entry) in codes.code(number).iter().enumerate() {
                let sum = &mut sums[row + usize::from(entry)];
                if *sum == 0.0 {
                    touched.push(Token { codebook: codebook as u8, entry });
                }
                *sum += weight;
                row += entries;
            }
        }
    }

    /// Looks for the tokens that were met in the end.
    fn fill_many(&mut self, codes: &CodeTable, numbers: &[ItemNumber], weights: &[f32]) {
        let entries = codes.shape().entries;
        let sums = &mut self.weights[..];
        for (&number, &weight) in numbers.iter().zip(weights) {
            let weight = f64::from(weight);
            let mut row = 0;
            for &entry in codes.code(number) {
                sums[row + usize::from(entry)] += weight;
                row += entries;
            }
        }
        for (codebook, sums) in sums.chunks_exact(entries).enumerate() {
            let met = sums.iter().enumerate().filter(|(_, sum)| **sum != 0.0);
            self.touched.extend(met.map(|(entry, _)| Token { codebook: codebook as u8, entry: entry as u16 }));
        }
    }

    /// The unused codebook whose likeliest token is likeliest; ties: the lowest. None when all are used.
    fn surest(&self, codes: &CodeTable, used: u64) -> Option<u8> {
        let shape = codes.shape();
        let mut confidence = [0.0f64; 64];
        for &token in &self.touched {
            let most = &mut confidence[usize::from(token.codebook)];
            *most = most.max(self.weights[shape.flat(token)]);
        }
        let unused = (0..shape.codebooks).filter(|r| used >> r & 1 == 0);
        let best = unused.reduce(|best, r| if confidence[r] > confidence[best] { r } else { best });
        best.map(|r| r as u8)
    }

    /// Every child of a path that used the codebooks of `used`: its token and the weight of its items. `salt` is the path's
    /// own number, which a random order is drawn by.
    pub(super) fn children(
        &self,
        codes: &CodeTable,
        used: u64,
        expansion: Expansion,
        salt: u64,
    ) -> impl Iterator<Item = (Token, f64)> + '_ {
        let shape = codes.shape();
        let unused: Vec<u8> = (0..shape.codebooks as u8).filter(|r| used >> r & 1 == 0).collect();
        let one = match expansion {
            Expansion::Crss => self.surest(codes, used),
            Expansion::Flat => None,
            Expansion::Fixed => unused.first().copied(),
            Expansion::Random => unused.get((salt % unused.len().max(1) as u64) as usize).copied(),
        };
        let expanded = match (expansion, one) {
            (Expansion::Flat, _) => !used,
            (_, Some(r)) => 1 << r,
            (_, None) => 0,
        };
        self.touched
            .iter()
            .filter(move |token| expanded >> token.codebook & 1u64 == 1)
            .map(move |&token| (token, self.weights[shape.flat(token)]))
    }

    /// Remembers which tokens these items hold.
    pub(super) fn keep_tokens_of(&mut self, codes: &CodeTable, items: impl Iterator<Item = ItemNumber>) {
        let shape = codes.shape();
        self.looked_for.clear();
        self.looked_for.resize(shape.tokens(), false);
        for item in items {
            for (codebook, &entry) in codes.code(item).iter().enumerate() {
                self.looked_for[codebook * shape.entries + usize::from(entry)] = true;
            }
        }
    }

    /// Whether one of the items remembered holds the token.
    pub(super) fn keeps(&self, codes: &CodeTable, token: Token) -> bool {
        self.looked_for[codes.shape().flat(token)]
    }
}
