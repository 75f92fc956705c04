//! What scores weigh in a softmax: the exponential function in a form that a loop over a slice vectorises, one for
//! registers, and rows of them.

use pulp::Simd;

// Adding 1.5 * 2^23 rounds to a whole number, which then stands in the lowest bits; no conversion is needed, and the
// checked one would not vectorise.
const ROUND: f32 = 12_582_912.0;
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
const LEAST: f32 = -87.0;
/// Of the Taylor polynomial, the highest power first.
const FACTORS: [f32; 7] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// e^x for x at most zero, to within 3e-7 of its value; below e^-87 it stays there.
///
/// x = n ln 2 + r with |r| at most ln 2 / 2; e^r by its Taylor polynomial of degree six, times 2^n by the exponent's bits.
#[cfg(any(feature = "train", test))]
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.max(LEAST);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let [first, rest @ ..] = FACTORS;
    let p = rest.into_iter().fold(first, |p, factor| p * r + factor);
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    p * f32::from_bits(exponent << 23)
}

/// [`exp`] of each number of a register, in fewer steps where the machine multiplies and adds in one.
#[inline(always)]
fn exp_each<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let x = simd.max_f32s(x, simd.splat_f32s(LEAST));
    let round = simd.splat_f32s(ROUND);
    let rounded = simd.mul_add_e_f32s(x, simd.splat_f32s(std::f32::consts::LOG2_E), round);
    let n = simd.sub_f32s(rounded, round);
    let r = simd.mul_add_e_f32s(n, simd.splat_f32s(-LN_2_HIGH), x);
    let r = simd.mul_add_e_f32s(n, simd.splat_f32s(-LN_2_LOW), r);
    let [first, rest @ ..] = FACTORS;
    let mut p = simd.splat_f32s(first);
    for factor in rest {
        p = simd.mul_add_e_f32s(p, r, simd.splat_f32s(factor));
    }
    let exponent = simd.sub_u32s(simd.transmute_u32s_f32s(rounded), simd.splat_u32s(ROUND.to_bits() - 127));
    let power = simd.wrapping_dyn_shl_u32s(exponent, simd.splat_u32s(23));
    simd.mul_f32s(p, simd.transmute_f32s_u32s(power))
}

/// Turns scores, none above `best`, into weights, exp(score - best); answers their sum.
#[inline(always)]
pub(crate) fn weigh<S: Simd>(simd: S, row: &mut [f32], best: f32) -> f32 {
    let best = simd.splat_f32s(best);
    let (blocks, rest) = S::as_mut_simd_f32s(row);
    let mut sum = simd.splat_f32s(0.0);
    for block in blocks {
        *block = exp_each(simd, simd.sub_f32s(*block, best));
        sum = simd.add_f32s(sum, *block);
    }
    if !rest.is_empty() {
        let scores = simd.partial_load_f32s(rest);
        simd.partial_store_f32s(rest, exp_each(simd, simd.sub_f32s(scores, best)));
        // Read anew: zero where there is nothing more.
        sum = simd.add_f32s(sum, simd.partial_load_f32s(rest));
    }
    simd.reduce_sum_f32s(sum)
}

/// The greatest of some numbers; f32::MIN if none is above that.
#[inline(always)]
pub(crate) fn best_of<S: Simd>(simd: S, row: &[f32]) -> f32 {
    let Some(start) = row.len().checked_sub(S::F32_LANES) else {
        return row.iter().copied().fold(f32::MIN, f32::max);
    };
    let lowest = simd.splat_f32s(f32::MIN);
    // The last register's numbers, some of which the last block has too. What is greatest so far comes second: of a
    // pair with NaN an x86 gives the second.
    let mut best = [simd.max_f32s(S::as_simd_f32s(&row[start..]).0[0], lowest), lowest];
    let (pairs, odd) = S::as_simd_f32s(row).0.as_chunks::<2>();
    for pair in pairs {
        (0..2).for_each(|at| best[at] = simd.max_f32s(pair[at], best[at]));
    }
    odd.iter().for_each(|&block| best[0] = simd.max_f32s(block, best[0]));
    simd.reduce_max_f32s(simd.max_f32s(best[0], best[1]))
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, Scalar, WithSimd};

    use super::*;

    /// By this machine's registers, and one number after another.
    fn each_way<W: WithSimd>(mut work: impl FnMut() -> W) -> [W::Output; 2] {
        [Arch::new().dispatch(work()), Scalar::new().vectorize(work())]
    }

    /// [`exp_each`] of one number.
    struct One(f32);

    impl WithSimd for One {
        type Output = f32;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> f32 {
            let mut out = [0.0];
            simd.partial_store_f32s(&mut out, exp_each(simd, simd.splat_f32s(self.0)));
            out[0]
        }
    }

    /// The weights of some scores, the best score, and the sum of the weights.
    struct Row(Vec<f32>);

    impl WithSimd for Row {
        type Output = (Vec<f32>, f32, f32);

        #[inline(always)]
        fn with_simd<S: Simd>(mut self, simd: S) -> Self::Output {
            let best = best_of(simd, &self.0);
            let sum = weigh(simd, &mut self.0, best);
            (self.0, best, sum)
        }
    }

    #[test]
    fn rows_of_every_length_are_weighed() {
        for len in 1..70 {
            // The greatest number stands everywhere in turn.
            let scores: Vec<f32> = (0..len).map(|at| ((at * 37 + len * 5) % 71) as f32 / 4.0 - 11.0).collect();
            let wanted_best = scores.iter().copied().fold(f32::MIN, f32::max);
            let wanted: Vec<f64> = scores.iter().map(|&score| f64::from(score - wanted_best).exp()).collect();
            for (row, best, sum) in each_way(|| Row(scores.clone())) {
                assert_eq!(best, wanted_best, "of {len}");
                assert!((f64::from(sum) / wanted.iter().sum::<f64>() - 1.0).abs() < 1e-6, "of {len}: {sum}");
                for (weight, wanted) in row.iter().zip(&wanted) {
                    assert!((f64::from(*weight) / wanted - 1.0).abs() < 1e-6, "of {len}: {weight} for {wanted}");
                }
            }
        }
        for (_, best, sum) in each_way(|| Row(vec![f32::NEG_INFINITY; 40])) {
            assert!(best == f32::MIN && sum > 0.0 && sum < 1e-30);
        }
    }

    #[test]
    fn the_fast_exponentials_are_the_exponential() {
        for exp in [exp, |x| each_way(|| One(x))[0], |x| each_way(|| One(x))[1]] {
            for at in 0..200_000 {
                let x = -86.9 * at as f32 / 200_000.0;
                let (ours, true_value) = (f64::from(exp(x)), f64::from(x).exp());
                assert!((ours / true_value - 1.0).abs() < 3.0e-7, "at {x}: {ours} and {true_value}");
            }
            assert_eq!(exp(0.0), 1.0);
            assert!(exp(-1.0e9) < 2.0e-38 && exp(-1.0e9) > 0.0);
        }
    }
}
