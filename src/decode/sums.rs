//! Score arithmetic: sums over an item's tokens, and softmax over lists of items.
//!
//! Scores are f32; sums over the catalogue are f64.

use pulp::{Arch, Simd, WithSimd};

use crate::domain::{CodeShape, CodeTable, ItemNumber, share_out};

use super::dot::Dot;
use super::scoring::TokenVectors;
use super::weights::{best_of, weigh};

/// No score is further from zero. What is further, infinite or no number at all counts as -LIMIT: the worst.
const LIMIT: f32 = 1e9;

/// Weights that are summed as f32; such sums are summed as f64.
const SUMMED: usize = 256;

/// Scores that are looked at together.
const BLOCK: usize = 64;

/// Scores that are summed by one thread, and their sum kept until it is added to the others'.
const PART: usize = 1 << 16;

/// Items and their scores, side by side.
#[derive(Debug, Clone, Default)]
pub(super) struct Scored {
    /// Lowest number first.
    pub(super) numbers: Vec<ItemNumber>,
    /// s(i): the scorer's, without refinements.
    pub(super) scores: Vec<f32>,
}

impl Scored {
    /// Forgets all, keeps the memory.
    pub(super) fn clear(&mut self) {
        self.numbers.clear();
        self.scores.clear();
    }

    pub(super) fn push(&mut self, number: ItemNumber, score: f32) {
        self.numbers.push(number);
        self.scores.push(score);
    }

    /// Leaves `most` of the items, which are all those of the greatest scores down to `least`: of those with just that score
    /// the lowest numbers.
    pub(super) fn truncate_ties(&mut self, least: f32, most: usize) {
        let mut excess = self.numbers.len().saturating_sub(most);
        if excess == 0 {
            return;
        }
        let mut ties = self.scores.iter().filter(|score| **score == least).count();
        let mut kept = 0;
        for at in 0..self.numbers.len() {
            let tie = self.scores[at] == least;
            if tie && ties <= excess {
                (ties, excess) = (ties - 1, excess - 1);
                continue;
            }
            ties -= usize::from(tie);
            (self.numbers[kept], self.scores[kept]) = (self.numbers[at], self.scores[at]);
            kept += 1;
        }
        self.numbers.truncate(kept);
        self.scores.truncate(kept);
    }

    /// Appends of the items that `scores` has one for each those whose score is to be kept: as a rule nearly all, so that
    /// they are copied block by block.
    pub(super) fn extend_all(&mut self, scores: &[f32], keep: impl Fn(f32) -> bool) {
        for (block, scores) in scores.chunks(BLOCK).enumerate() {
            let first = (block * BLOCK) as ItemNumber;
            if scores.iter().fold(true, |all, score| all & keep(*score)) {
                self.numbers.extend(first..first + scores.len() as ItemNumber);
                self.scores.extend_from_slice(scores);
            } else {
                let kept = (first..).zip(scores).filter(|(_, score)| keep(**score));
                kept.for_each(|(number, score)| self.push(number, *score));
            }
        }
    }
}

/// Puts the worst score in the place of every score that is no finite number. Answers how many there were.
pub(super) fn mend(scores: &mut [f32]) -> u32 {
    Arch::new().dispatch(Mend(scores))
}

// A struct and no closure, here and below: so it is sure to be inlined where the wide registers are known.
struct Mend<'a>(&'a mut [f32]);

impl WithSimd for Mend<'_> {
    type Output = u32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> u32 {
        let mut broken = 0;
        for score in self.0 {
            let found = *score;
            *score = sane(found, &mut broken);
        }
        broken
    }
}

/// The score, or the worst one where it is no finite number (or out of all proportion).
#[inline(always)]
fn sane(score: f32, broken: &mut u32) -> f32 {
    // Written so that NaN fails the test.
    let sound = score.abs() <= LIMIT;
    *broken += u32::from(!sound);
    if sound { score } else { -LIMIT }
}

/// What a path says of items: s_t(i) = s(i) + sum over unused r of <g(d_t), Z_r,j_r(i)>, up to a number that is the same
/// for all candidates of the path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refinement<'a> {
    /// g(d_t), `[width]`.
    pub(super) query: &'a [f32],
    /// Z.
    pub(super) tokens: TokenVectors<'a>,
    /// The items' codes.
    pub(super) codes: &'a CodeTable,
    /// The codebooks that the path used, one bit each.
    pub(super) used: u64,
}

impl Refinement<'_> {
    /// s_t of every item of `numbers` into `refined`. `table` is room for a product with every token, which pays when
    /// there are more items than tokens to a codebook. Answers how many were no finite numbers.
    pub(super) fn refine(
        &self,
        numbers: &[ItemNumber],
        scores: &[f32],
        table: &mut Vec<f32>,
        refined: &mut Vec<f32>,
    ) -> u32 {
        let entries = self.codes.shape().entries;
        refined.clear();
        refined.extend_from_slice(scores);
        if let Some(sums) = self.tokens.sums.filter(|_| numbers.len() < entries) {
            Arch::new().dispatch(AddWhole { refinement: *self, sums, numbers, refined });
        } else if numbers.len() < entries {
            Arch::new().dispatch(AddGathered { refinement: *self, numbers, refined });
        } else {
            tabulate(self.query, self.tokens, self.codes.shape(), self.used, table);
            add_from_table(table, self.codes, numbers, refined);
        }
        mend(refined)
    }
}

/// Entries of a codebook that bytes can name: tables of so many need no check of an index.
pub(crate) const BYTE: usize = 256;

/// From one codebook to the next in a table with a number for every token.
pub(super) fn stride(shape: CodeShape) -> usize {
    shape.entries.max(BYTE)
}

/// Adds the numbers of a `[M, stride]` table at an item's tokens to each score.
fn add_from_table(table: &[f32], codes: &CodeTable, numbers: &[ItemNumber], scores: &mut [f32]) {
    let stride = stride(codes.shape());
    if let Some(bytes) = codes.bytes() {
        let (rows, _) = table.as_chunks::<BYTE>();
        match codes.shape().codebooks {
            4 => add_of_codes::<4>(rows, bytes, numbers, scores),
            8 => add_of_codes::<8>(rows, bytes, numbers, scores),
            16 => add_of_codes::<16>(rows, bytes, numbers, scores),
            width => {
                for (&number, score) in numbers.iter().zip(scores) {
                    let code = &bytes[number as usize * width..][..width];
                    *score += rows.iter().zip(code).map(|(row, &entry)| row[usize::from(entry)]).sum::<f32>();
                }
            }
        }
    } else {
        for (&number, score) in numbers.iter().zip(scores) {
            let code = codes.code(number).iter().enumerate();
            *score += code.map(|(r, &entry)| table[r * stride + usize::from(entry)]).sum::<f32>();
        }
    }
}

/// Adds the numbers of M tokens, as many as are usual: with their number known, nothing is checked in the loop.
fn add_of_codes<const M: usize>(rows: &[[f32; BYTE]], bytes: &[u8], numbers: &[ItemNumber], scores: &mut [f32]) {
    let (codes, _) = bytes.as_chunks::<M>();
    // There is a row for every codebook.
    let Some(rows) = rows.first_chunk::<M>() else { return };
    for (&number, score) in numbers.iter().zip(scores) {
        let code = codes[number as usize];
        *score += (0..M).map(|r| rows[r][usize::from(code[r])]).sum::<f32>();
    }
}

/// <query, Z_r,j> for every token of a codebook that is not `used`, and zero for the others: `[M, stride]`.
pub(crate) fn tabulate(query: &[f32], tokens: TokenVectors<'_>, shape: CodeShape, used: u64, table: &mut Vec<f32>) {
    table.resize(shape.codebooks * stride(shape), 0.0);
    Arch::new().dispatch(Tabulate { query, tokens, shape, used, table });
}

struct Tabulate<'a> {
    query: &'a [f32],
    tokens: TokenVectors<'a>,
    shape: CodeShape,
    used: u64,
    table: &'a mut [f32],
}

impl WithSimd for Tabulate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { query, tokens, shape, used, table } = self;
        for (r, table) in table.chunks_exact_mut(stride(shape)).enumerate() {
            if used >> r & 1 == 1 {
                table.fill(0.0);
                continue;
            }
            for (entry, place) in table[..shape.entries].iter_mut().enumerate() {
                let mut sum = Dot::<S>::zero(simd);
                sum.add(simd, query, tokens.row(r * shape.entries + entry));
                *place = sum.total(simd);
            }
        }
    }
}

/// Adds to each score what g says of all tokens of the item. Those of used codebooks are the same for all candidates of a
/// path, and so change no share of its probability.
struct AddWhole<'a> {
    refinement: Refinement<'a>,
    sums: &'a [f32],
    numbers: &'a [ItemNumber],
    refined: &'a mut [f32],
}

impl WithSimd for AddWhole<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Refinement { query, tokens, .. } = self.refinement;
        for (&number, refined) in self.numbers.iter().zip(self.refined) {
            let mut sum = Dot::<S>::zero(simd);
            sum.add(simd, query, &self.sums[number as usize * tokens.width..][..tokens.width]);
            *refined += sum.total(simd);
        }
    }
}

/// Adds to each score what g says of the item, token by token.
struct AddGathered<'a> {
    refinement: Refinement<'a>,
    numbers: &'a [ItemNumber],
    refined: &'a mut [f32],
}

impl WithSimd for AddGathered<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Refinement { query, tokens, codes, used } = self.refinement;
        let entries = codes.shape().entries;
        for (&number, refined) in self.numbers.iter().zip(self.refined) {
            let mut sum = Dot::<S>::zero(simd);
            for (r, &entry) in codes.code(number).iter().enumerate().filter(|(r, _)| used >> r & 1 == 0) {
                sum.add(simd, query, tokens.row(r * entries + usize::from(entry)));
            }
            *refined += sum.total(simd);
        }
    }
}

/// The normaliser of a softmax.
#[derive(Debug, Clone, Copy)]
pub(super) struct Softmax {
    pub(super) best: f32,
    /// ln of the sum of exp(score - best).
    pub(super) log_sum: f64,
}

impl Softmax {
    /// Over all of `scores`; `weights` takes exp(score - best), each above zero: items further than 87 nats below the
    /// best weigh as if they were there, which misplaces at most 1e-38 of probability.
    pub(super) fn over(scores: &[f32], weights: &mut Vec<f32>) -> Self {
        weights.clear();
        weights.extend_from_slice(scores);
        let (best, sum) = Arch::new().dispatch(Weigh(weights));
        Self { best, log_sum: sum.ln() }
    }

    /// Over all of `scores`, as [`over`](Self::over); for those who want no weights. -infinity weighs nothing that counts. By so
    /// many threads: how many changes nothing.
    pub(super) fn of(scores: &[f32], threads: usize) -> Self {
        if scores.len() <= PART {
            let (best, sum) = Arch::new().dispatch(Sum(scores));
            return Self { best, log_sum: sum.ln() };
        }
        let mut parts = vec![(f32::MIN, 0.0); scores.len().div_ceil(PART)];
        let share = parts.len().div_ceil(threads).max(1);
        share_out(scores.chunks(share * PART).zip(parts.chunks_mut(share)), |(scores, parts)| {
            let sums = scores.chunks(PART).map(|scores| Arch::new().dispatch(Sum(scores)));
            parts.iter_mut().zip(sums).for_each(|(part, sum)| *part = sum);
        });
        let best = parts.iter().fold(f32::MIN, |best, part| best.max(part.0));
        let sum: f64 = parts.iter().map(|part| part.1 * f64::from(part.0 - best).exp()).sum();
        Self { best, log_sum: sum.ln() }
    }

    /// ln P of a score among those it was made over.
    pub(super) fn log_share(&self, score: f32) -> f64 {
        f64::from(score - self.best) - self.log_sum
    }

    /// ln P of a sum of weights.
    pub(super) fn log_share_of_weight(&self, weight: f64) -> f64 {
        weight.ln() - self.log_sum
    }
}

/// Turns scores into weights; answers the best score and the sum of the weights.
struct Weigh<'a>(&'a mut [f32]);

impl WithSimd for Weigh<'_> {
    type Output = (f32, f64);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f32, f64) {
        let best = best_of(simd, self.0);
        (best, self.0.chunks_mut(SUMMED).map(|scores| f64::from(weigh(simd, scores, best))).sum())
    }
}

/// The best score and the sum of the weights.
struct Sum<'a>(&'a [f32]);

impl WithSimd for Sum<'_> {
    type Output = (f32, f64);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f32, f64) {
        let best = best_of(simd, self.0);
        let (mut room, mut sum) = ([0.0; SUMMED], 0.0);
        for scores in self.0.chunks(SUMMED) {
            let room = &mut room[..scores.len()];
            room.copy_from_slice(scores);
            sum += f64::from(weigh(simd, room, best));
        }
        (best, sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_softmax_in_parts_is_that_of_the_whole_whoever_sums_them() {
        let mut scores: Vec<f32> = (0..3 * PART + 77).map(|at| ((at * 7919) % 4001) as f32 / 100.0 - 30.0).collect();
        // The best of all in the last part, some that are no candidates in the first.
        scores[3 * PART + 5] = 31.5;
        scores[..40].fill(f32::NEG_INFINITY);
        let alone = Softmax::of(&scores, 1);
        let sum: f64 = scores.iter().map(|score| f64::from(score - 31.5).exp()).sum();
        assert_eq!(alone.best, 31.5);
        assert!((alone.log_sum - sum.ln()).abs() < 1e-6, "{} for {}", alone.log_sum, sum.ln());
        for threads in [2, 3, 9] {
            let shared = Softmax::of(&scores, threads);
            assert_eq!((shared.best, shared.log_sum), (alone.best, alone.log_sum), "{threads} threads");
        }
    }
}
