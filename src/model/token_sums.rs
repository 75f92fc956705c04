//! What its tokens say of an item: sums of rows of the token table.

use rayon::prelude::*;

use crate::domain::{CodeTable, ItemNumber};

/// Sum over r of Z_r,j_r(i) of every item: `[M * D, width]` to `[items, width]`.
pub fn token_sums(tokens: &[f32], codes: &CodeTable, width: usize) -> Vec<f32> {
    let mut sums = vec![0.0f32; codes.items() * width];
    sums.par_chunks_mut(width).enumerate().for_each(|(item, sum)| {
        add_rows(tokens, codes.shape().entries, codes.code(item as ItemNumber).iter().copied(), sum);
    });
    sums
}

/// The same of one item, `[width]`.
pub(super) fn token_sum(tokens: &[f32], width: usize, codes: &CodeTable, item: ItemNumber) -> Vec<f32> {
    let mut sum = vec![0.0f32; width];
    add_rows(tokens, codes.shape().entries, codes.code(item).iter().copied(), &mut sum);
    sum
}

/// Adds the row of each token of a code, `[width]` each, to `sum`; `entries` is D.
pub(super) fn add_rows(tokens: &[f32], entries: usize, code: impl Iterator<Item = u16>, sum: &mut [f32]) {
    for (codebook, entry) in code.enumerate() {
        let row = &tokens[(codebook * entries + usize::from(entry)) * sum.len()..][..sum.len()];
        sum.iter_mut().zip(row).for_each(|(sum, number)| *sum += number);
    }
}
