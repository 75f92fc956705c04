//! Softmax over rows of numbers.

use pulp::{Arch, Simd, WithSimd};

use crate::decode::{best_of, weigh};

/// Softmax of each row, `width` numbers, in its place.
pub fn soften_rows(rows: &mut [f32], width: usize) {
    Arch::new().dispatch(Soften { rows, width });
}

struct Soften<'a> {
    rows: &'a mut [f32],
    width: usize,
}

impl WithSimd for Soften<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.rows.chunks_exact_mut(self.width).for_each(|row| soften(simd, row));
    }
}

/// Softmax in its place.
#[inline(always)]
pub fn soften<S: Simd>(simd: S, row: &mut [f32]) {
    let best = best_of(simd, row);
    let scale = 1.0 / weigh(simd, row, best);
    row.iter_mut().for_each(|weight| *weight *= scale);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_every_length_are_softened() {
        for len in 1..70 {
            let scores: Vec<f32> = (0..len).map(|at| ((at * 37) % 23) as f32 - 11.0).collect();
            let sum: f64 = scores.iter().map(|&score| f64::from(score).exp()).sum();
            let mut row = scores.clone();
            soften_rows(&mut row, len);
            for (score, weight) in scores.iter().zip(row) {
                let wanted = f64::from(*score).exp() / sum;
                assert!((f64::from(weight) - wanted).abs() < 1e-6, "of {len}: {weight} for {wanted}");
            }
        }
    }
}
