//! Which hand takes the sums over the whole catalogue, and the loops for the host's.

use burn::tensor::TensorData;
use rayon::prelude::*;

use super::learner::PretrainError;
use crate::decode::exp;
use crate::domain::CodeTable;

/// Where sums over the whole catalogue are computed: by loops over the host's memory, or by the backend's own kernels.
/// Both give the same numbers but for rounding; on a CPU the loops spare the backend's copies and serial passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// Loops on the host, over all its cores.
    Host,
    /// The backend's tensor operations.
    Device,
}

/// The gradient by the token table of sums whose gradient is `by_items`: `[items, width]` to `[M * D, width]`. A codebook's
/// rows are added up by one thread in the order of items, so that the result does not depend on the number of threads.
pub(super) fn token_gradients(by_items: &[f32], codes: &CodeTable, width: usize) -> Vec<f32> {
    let shape = codes.shape();
    let all = codes.entries();
    let mut gradients = vec![0.0f32; shape.tokens() * width];
    gradients.par_chunks_mut(shape.entries * width).enumerate().for_each(|(codebook, table)| {
        let entries = all.iter().skip(codebook).step_by(shape.codebooks);
        for (&entry, gradient) in entries.zip(by_items.chunks_exact(width)) {
            let row = usize::from(entry) * width;
            table[row..row + width].iter_mut().zip(gradient).for_each(|(sum, value)| *sum += value);
        }
    });
    gradients
}

/// Turns rows of scores over `items` items into gradients of the label-smoothed cross-entropy by the scores, softmax minus
/// smoothed target, and answers the sum of the cross-entropies in nats. Rows in `keep` (ascending) have their softmax put
/// by first, one after another.
pub(super) fn softmax_gradients(
    scores: &mut [f32],
    items: usize,
    targets: &[u32],
    smoothing: f32,
    keep: &[usize],
) -> (f64, Vec<f32>) {
    let arch = pulp::Arch::new();
    let share = smoothing / items as f32;
    let rows: Vec<(f64, Option<Vec<f32>>)> = scores
        .par_chunks_mut(items)
        .zip(targets)
        .enumerate()
        .map(|(at, (row, &target))| {
            let target = target as usize;
            let own = row[target];
            let mean =
                if smoothing > 0.0 { row.iter().map(|&s| f64::from(s)).sum::<f64>() / items as f64 } else { 0.0 };
            let log_sum = arch.dispatch(|| softmax_in_place(row));
            let kept = keep.binary_search(&at).is_ok().then(|| row.to_vec());
            if smoothing > 0.0 {
                arch.dispatch(|| row.iter_mut().for_each(|p| *p -= share));
            }
            row[target] -= 1.0 - smoothing;
            let (smoothing, own) = (f64::from(smoothing), f64::from(own));
            (log_sum - (1.0 - smoothing) * own - smoothing * mean, kept)
        })
        .collect();
    let loss = rows.iter().map(|(loss, _)| loss).sum();
    (loss, rows.into_iter().filter_map(|(_, kept)| kept).flatten().collect())
}

/// Softmax of each row of scores over `items` items, in its place.
pub(in crate::training) fn softmax_rows(scores: &mut [f32], items: usize) {
    let arch = pulp::Arch::new();
    scores.par_chunks_mut(items.max(1)).for_each(|row| {
        arch.dispatch(|| softmax_in_place(row));
    });
}

/// Independent sums that one vector register may hold, so that the loop vectorises with a fixed order of additions.
const LANES: usize = 16;

/// Softmax of a row in its place; answers ln of the sum of exponentials.
#[inline(always)]
fn softmax_in_place(row: &mut [f32]) -> f64 {
    let mut best = [f32::MIN; LANES];
    let blocks = row.chunks_exact(LANES);
    let tail = blocks.remainder().iter().copied().fold(f32::MIN, f32::max);
    for block in blocks {
        (0..LANES).for_each(|lane| best[lane] = best[lane].max(block[lane]));
    }
    let best = best.iter().copied().fold(tail, f32::max);
    let mut sums = [0.0f32; LANES];
    let mut blocks = row.chunks_exact_mut(LANES);
    for block in &mut blocks {
        for lane in 0..LANES {
            block[lane] = exp(block[lane] - best);
            sums[lane] += block[lane];
        }
    }
    let mut sum = 0.0f64;
    for value in blocks.into_remainder() {
        *value = exp(*value - best);
        sum += f64::from(*value);
    }
    sum += sums.iter().map(|&sum| f64::from(sum)).sum::<f64>();
    let scale = (1.0 / sum) as f32;
    row.iter_mut().for_each(|value| *value *= scale);
    f64::from(best) + sum.ln()
}

/// The numbers of a tensor as they lie in memory.
pub(super) fn floats(data: TensorData) -> Result<Vec<f32>, PretrainError> {
    data.into_vec::<f32>().map_err(|error| PretrainError::Device(format!("{error:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_gradients_are_softmax_minus_the_smoothed_target() {
        let scores: Vec<f32> = (0..3 * 37).map(|at| ((at * 7919) % 100) as f32 / 13.0).collect();
        let targets = [3, 36, 0];
        for smoothing in [0.0f32, 0.1] {
            let mut found = scores.clone();
            let (loss, kept) = softmax_gradients(&mut found, 37, &targets, smoothing, &[1]);
            let mut expected = 0.0;
            for (row, &target) in targets.iter().enumerate() {
                let scores: Vec<f64> = scores[row * 37..(row + 1) * 37].iter().map(|&score| f64::from(score)).collect();
                let sum: f64 = scores.iter().map(|score| score.exp()).sum();
                for (item, score) in scores.iter().enumerate() {
                    let p = score.exp() / sum;
                    let own = if item == target as usize { 1.0 - f64::from(smoothing) } else { 0.0 };
                    let wanted = own + f64::from(smoothing) / 37.0;
                    expected -= wanted * p.ln();
                    assert!((f64::from(found[row * 37 + item]) - (p - wanted)).abs() < 1e-6);
                    if row == 1 {
                        assert!((f64::from(kept[item]) - p).abs() < 1e-6);
                    }
                }
            }
            assert!((loss - expected).abs() < 1e-4, "{loss} and {expected}");
            assert_eq!(kept.len(), 37);
        }
    }
}
