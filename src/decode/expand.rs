//! CRSS: from P(i | h, path) to the path's children.

use crate::domain::{CodeShape, CodeTable, ItemNumber, Token};

use super::settings::Expansion;
use super::sums::{BYTE, stride};

/// Sums of item weights by token, of few items with a list of the tokens that are not zero: so they are read and cleared in as
/// many steps as there are tokens.
#[derive(Debug, Default)]
pub(super) struct Marginals {
    /// `[M, stride]`
    weights: Vec<f64>,
    /// Tokens that are not zero: all of them after few items, after many those that are expanded.
    touched: Vec<Token>,
    many: bool,
    /// `[M, stride]`: the tokens of the items that a draft looks for.
    looked_for: Vec<bool>,
}

/// The place of a token in a table of [`stride`] numbers a codebook.
fn place(shape: CodeShape, token: Token) -> usize {
    usize::from(token.codebook) * stride(shape) + usize::from(token.entry)
}

/// Adds every item's weight to its M tokens, as many as are usual: with their number known, nothing is checked in the loop.
fn add_codes<const M: usize>(rows: &mut [[f64; BYTE]], bytes: &[u8], numbers: &[ItemNumber], weights: &[f32]) {
    let (codes, _) = bytes.as_chunks::<M>();
    // There is a row for every codebook.
    let Some(rows) = rows.first_chunk_mut::<M>() else { return };
    for (&number, &weight) in numbers.iter().zip(weights) {
        let code = codes[number as usize];
        for r in 0..M {
            rows[r][usize::from(code[r])] += f64::from(weight);
        }
    }
}

/// The greatest of some weights, none below zero.
fn greatest(weights: &[f64]) -> f64 {
    let (blocks, rest) = weights.as_chunks::<8>();
    let mut most = [0.0f64; 8];
    blocks.iter().for_each(|block| (0..8).for_each(|lane| most[lane] = most[lane].max(block[lane])));
    most.iter().chain(rest).fold(0.0, |most, weight| most.max(*weight))
}

impl Marginals {
    /// Adds every item's weight (above zero) to each of its tokens of unused codebooks. What was there before is
    /// forgotten.
    pub(super) fn fill(&mut self, codes: &CodeTable, used: u64, numbers: &[ItemNumber], weights: &[f32]) {
        let shape = codes.shape();
        let size = shape.codebooks * stride(shape);
        if self.weights.len() == size && !self.many {
            self.touched.drain(..).for_each(|token| self.weights[place(shape, token)] = 0.0);
        } else {
            self.touched.clear();
            self.weights.clear();
            self.weights.resize(size, 0.0);
        }
        self.many = numbers.len() >= shape.entries;
        if self.many {
            self.fill_many(codes, used, numbers, weights);
        } else {
            self.fill_few(codes, used, numbers, weights);
        }
    }

    /// Notes each token as it is first met.
    fn fill_few(&mut self, codes: &CodeTable, used: u64, numbers: &[ItemNumber], weights: &[f32]) {
        let stride = stride(codes.shape());
        let width = codes.shape().codebooks;
        for (r, sums) in self.weights.chunks_exact_mut(stride).enumerate().filter(|(r, _)| used >> r & 1 == 0) {
            let items = numbers.iter().zip(weights);
            let touched = &mut self.touched;
            let mut add = |entry: u16, weight: f32| {
                let sum = &mut sums[usize::from(entry)];
                if *sum == 0.0 {
                    touched.push(Token { codebook: r as u8, entry });
                }
                *sum += f64::from(weight);
            };
            match codes.bytes() {
                Some(bytes) => items.for_each(|(&n, &weight)| add(u16::from(bytes[n as usize * width + r]), weight)),
                None => items.for_each(|(&number, &weight)| add(codes.code(number)[r], weight)),
            }
        }
    }

    /// Lists no tokens: most are met.
    fn fill_many(&mut self, codes: &CodeTable, used: u64, numbers: &[ItemNumber], weights: &[f32]) {
        let stride = stride(codes.shape());
        if let Some(bytes) = codes.bytes() {
            let (rows, _) = self.weights.as_chunks_mut::<BYTE>();
            match codes.shape().codebooks {
                4 => add_codes::<4>(rows, bytes, numbers, weights),
                8 => add_codes::<8>(rows, bytes, numbers, weights),
                16 => add_codes::<16>(rows, bytes, numbers, weights),
                width => {
                    for (&number, &weight) in numbers.iter().zip(weights) {
                        let sums = rows.iter_mut().zip(&bytes[number as usize * width..][..width]);
                        sums.for_each(|(row, &entry)| row[usize::from(entry)] += f64::from(weight));
                    }
                }
            }
        } else {
            for (&number, &weight) in numbers.iter().zip(weights) {
                let entries = codes.code(number).iter().enumerate();
                entries.for_each(|(r, &entry)| self.weights[r * stride + usize::from(entry)] += f64::from(weight));
            }
        }
        let rows = self.weights.chunks_exact_mut(stride).enumerate();
        rows.filter(|(r, _)| used >> r & 1 == 1).for_each(|(_, sums)| sums.fill(0.0));
    }

    /// The unused codebook whose likeliest token is likeliest; ties: the lowest. None when all are used.
    fn surest(&self, codes: &CodeTable, used: u64) -> Option<u8> {
        let shape = codes.shape();
        let mut confidence = [0.0f64; 64];
        if self.many {
            let rows = confidence.iter_mut().zip(self.weights.chunks_exact(stride(shape)));
            rows.for_each(|(most, sums)| *most = greatest(sums));
        } else {
            for &token in &self.touched {
                let most = &mut confidence[usize::from(token.codebook)];
                *most = most.max(self.weights[place(shape, token)]);
            }
        }
        let unused = (0..shape.codebooks).filter(|r| used >> r & 1 == 0);
        let best = unused.reduce(|best, r| if confidence[r] > confidence[best] { r } else { best });
        best.map(|r| r as u8)
    }

    /// Every child of a path that used the codebooks of `used`: its token and the weight of its items. `salt` is the path's
    /// own number, which a random order is drawn by.
    pub(super) fn children(
        &mut self,
        codes: &CodeTable,
        used: u64,
        expansion: Expansion,
        salt: u64,
    ) -> impl Iterator<Item = (Token, f64)> + '_ {
        let shape = codes.shape();
        let mut unused = (0..shape.codebooks as u8).filter(|r| used >> r & 1 == 0);
        let one = match expansion {
            Expansion::Crss => self.surest(codes, used),
            Expansion::Flat => None,
            Expansion::Fixed => unused.next(),
            Expansion::Random => {
                let left = unused.clone().count().max(1) as u64;
                unused.nth((salt % left) as usize)
            }
        };
        let expanded = match (expansion, one) {
            (Expansion::Flat, _) => !used,
            (_, Some(r)) => 1 << r,
            (_, None) => 0,
        };
        if self.many {
            self.touched.clear();
            for r in (0..shape.codebooks).filter(|r| expanded >> r & 1u64 == 1) {
                let sums = self.weights[r * stride(shape)..][..shape.entries].iter().enumerate();
                let met = sums.filter(|(_, sum)| **sum != 0.0);
                self.touched.extend(met.map(|(entry, _)| Token { codebook: r as u8, entry: entry as u16 }));
            }
        }
        let Self { weights, touched, .. } = &*self;
        let tokens = touched.iter().filter(move |token| expanded >> token.codebook & 1u64 == 1);
        tokens.map(move |&token| (token, weights[place(shape, token)]))
    }

    /// Remembers which tokens these items hold.
    pub(super) fn keep_tokens_of(&mut self, codes: &CodeTable, items: impl Iterator<Item = ItemNumber>) {
        let stride = stride(codes.shape());
        self.looked_for.clear();
        self.looked_for.resize(codes.shape().codebooks * stride, false);
        for item in items {
            let entries = codes.code(item).iter().enumerate();
            entries.for_each(|(r, &entry)| self.looked_for[r * stride + usize::from(entry)] = true);
        }
    }

    /// Whether one of the items remembered holds the token.
    pub(super) fn keeps(&self, codes: &CodeTable, token: Token) -> bool {
        self.looked_for[place(codes.shape(), token)]
    }
}
