//! CORP: paths whose category belief jumps are ended, and their places taken by the next best.

use std::f64::consts::LN_2;

/// The Jensen-Shannon divergence of two distributions, in nats: 0 (equal) to ln 2 (disjoint).
///
/// JS(p, q) = KL(p, m) / 2 + KL(q, m) / 2 with m = (p + q) / 2. What is no distribution (another length, a value that
/// is negative or no finite number) is as far from everything as can be: ln 2.
pub fn divergence(p: &[f32], q: &[f32]) -> f32 {
    let mut sum = 0.0;
    for (&p, &q) in p.iter().zip(q) {
        let (p, q) = (f64::from(p), f64::from(q));
        let middle = 0.5 * (p + q);
        // 0 ln 0 = 0; NaN and negative values go into the sum and make it NaN.
        if p != 0.0 {
            sum += 0.5 * p * (p / middle).ln();
        }
        if q != 0.0 {
            sum += 0.5 * q * (q / middle).ln();
        }
    }
    if p.len() != q.len() || !sum.is_finite() {
        return LN_2 as f32;
    }
    sum.clamp(0.0, LN_2) as f32
}

/// One read path in the eyes of CORP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verdict {
    /// JS to its parent's belief, where that is compared.
    pub(super) divergence: Option<f32>,
    /// JS > theta.
    pub(super) inconsistent: bool,
    /// It goes on: it is among the best, or needed.
    pub(super) kept: bool,
}

impl Verdict {
    /// Whether CORP ended the path.
    pub(super) fn pruned(&self) -> bool {
        self.inconsistent && !self.kept
    }
}

/// Which of the paths read in one step go on. `verdicts` come best path first, none kept yet.
///
/// The best `beam` consistent ones are kept, then further ones while `covered` says that too few items are held:
/// consistent ones first, best first, then inconsistent ones, least inconsistent first. `covered(None)` asks;
/// `covered(Some(n))` counts in the items of path n, then asks.
pub(super) fn judge(verdicts: &mut [Verdict], beam: usize, mut covered: impl FnMut(Option<usize>) -> bool) {
    let (mut consistent, mut rest): (Vec<usize>, Vec<usize>) =
        (0..verdicts.len()).partition(|&path| !verdicts[path].inconsistent);
    rest.sort_by(|&a, &b| {
        let of = |path: usize| verdicts[path].divergence.unwrap_or(0.0);
        of(a).total_cmp(&of(b))
    });
    let best = beam.min(consistent.len());
    rest.splice(0..0, consistent.drain(best..));
    let mut enough = covered(None);
    for path in consistent {
        verdicts[path].kept = true;
        enough = covered(Some(path));
    }
    for path in rest {
        if enough {
            break;
        }
        verdicts[path].kept = true;
        enough = covered(Some(path));
    }
}
