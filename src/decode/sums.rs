//! Score arithmetic: sums over an item's tokens, and softmax over lists of items.
//!
//! Scores are f32; sums over the catalogue are f64.

use crate::domain::{CodeTable, ItemNumber};

use super::scoring::{ItemQuery, Residuals};

/// No score is further from zero. What is further, infinite or no number at all counts as -LIMIT: the worst.
const LIMIT: f32 = 1e9;

/// Items further than this below the best, in nats, weigh as if they were here: e^-87 is the least normal f32, so
/// every weight stays above zero, every logarithm finite, and at most 1e-38 of probability is misplaced.
const DEEPEST: f32 = -87.0;

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
}

/// s(i) = sum over r of token_scores[r, code_r(i)] + <residual, e_i>, for every item of `numbers`, into `scores`.
/// Answers how many were no finite numbers.
pub(super) fn score_items(
    query: &ItemQuery,
    residuals: Residuals<'_>,
    codes: &CodeTable,
    numbers: &[ItemNumber],
    scores: &mut Vec<f32>,
) -> u32 {
    scores.clear();
    let entries = codes.shape().entries;
    let mut broken = 0;
    scores.extend(numbers.iter().map(|&number| {
        let tokens = token_sum(&query.token_scores, entries, codes.code(number));
        let start = number as usize * residuals.width;
        sane(tokens + dot(&query.residual, &residuals.rows[start..start + residuals.width]), &mut broken)
    }));
    broken
}

/// s_t(i) = s(i) + sum over r of refinements[r, code_r(i)], for every item of `numbers`, into `refined`. The
/// refinements of used codebooks must be zero. Answers how many were no finite numbers.
pub(super) fn refine_items(
    refinements: &[f32],
    codes: &CodeTable,
    numbers: &[ItemNumber],
    scores: &[f32],
    refined: &mut Vec<f32>,
) -> u32 {
    refined.clear();
    let entries = codes.shape().entries;
    let mut broken = 0;
    refined.extend(
        numbers
            .iter()
            .zip(scores)
            .map(|(&number, score)| sane(score + token_sum(refinements, entries, codes.code(number)), &mut broken)),
    );
    broken
}

/// The sum of a `[M, D]` table's numbers at an item's tokens.
fn token_sum(table: &[f32], entries: usize, code: &[u16]) -> f32 {
    // Offsets by hand: cutting the table into rows costs a division an item.
    let mut row = 0;
    let mut sum = 0.0;
    for &entry in code {
        sum += table[row + usize::from(entry)];
        row += entries;
    }
    sum
}

/// Inner product in eight lanes, so that it vectorises; the order of additions is fixed.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a_blocks, b_blocks) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = a_blocks.remainder().iter().zip(b_blocks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_blocks.zip(b_blocks) {
        for lane in 0..8 {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    lanes.iter().sum::<f32>() + tail
}

/// The score, or the worst one where it is no finite number (or out of all proportion).
fn sane(score: f32, broken: &mut u32) -> f32 {
    // Written so that NaN fails the test.
    if score.abs() <= LIMIT {
        score
    } else {
        *broken += 1;
        -LIMIT
    }
}

/// The normaliser of a softmax.
#[derive(Debug, Clone, Copy)]
pub(super) struct Softmax {
    best: f32,
    /// ln of the sum of exp(score - best).
    log_sum: f64,
}

impl Softmax {
    /// Over all of `scores`; `weights` takes exp(score - best), each above zero.
    pub(super) fn over(scores: &[f32], weights: &mut Vec<f32>) -> Self {
        let best = scores.iter().copied().fold(f32::MIN, f32::max);
        weights.clear();
        weights.extend(scores.iter().map(|score| (score - best).max(DEEPEST).exp()));
        let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
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
