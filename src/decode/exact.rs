//! The exact scorer: s(i) of every candidate, no decoder.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::catalog::Index;
use crate::domain::ItemNumber;

use super::answers::Standing;
use super::job::{DecodeJob, Outcome, Ranked};
use super::scratch::Scratch;
use super::sums::Softmax;

/// Ranks every candidate of the job by s(i); the scores are ln softmax of s over the candidates. `scores` holds s of every
/// item of the index, the job's bias not yet in it. Answers the best min(k, candidates) items in the order of
/// [`Outcome::items`].
pub(super) fn exact(scores: &mut [f32], index: &Index, job: &DecodeJob<'_>, scratch: &mut Scratch) -> Outcome {
    let non_finite = scratch.open(scores, index, job);
    let (numbers, scores) = (&scratch.root.numbers, &scratch.root.scores);
    let softmax = Softmax::over(scores, &mut scratch.weights);
    let ranked = best(job.k, numbers, scores, index, &softmax).into_iter();
    let items = ranked.map(|at| Ranked { item: at.item, score: at.score, path: None }).collect();
    Outcome { items, short: job.root.len() < job.k, non_finite, ..Outcome::default() }
}

/// The best k of `numbers` by ln P, best first.
pub(super) fn best(
    k: usize,
    numbers: &[ItemNumber],
    scores: &[f32],
    index: &Index,
    softmax: &Softmax,
) -> Vec<Standing> {
    // The best k so far, the worst of them on top.
    let wanted = k.min(numbers.len());
    let mut best: BinaryHeap<Reverse<Standing>> = BinaryHeap::with_capacity(wanted + 1);
    let mut least = f32::MIN;
    for (&item, &score) in numbers.iter().zip(scores) {
        // Nearly every item ends here, before its prior is fetched.
        if score < least {
            continue;
        }
        best.push(Reverse(Standing::new(index, item, softmax.log_share(score))));
        if best.len() > wanted {
            best.pop();
        }
        if let Some(worst) = best.peek().filter(|_| best.len() == wanted) {
            least = beaten(f64::from(worst.0.score), softmax);
        }
    }
    best.into_sorted_vec().into_iter().map(|Reverse(standing)| standing).collect()
}

/// A score that is surely below the k-th best, whose ln P is `log_p`: ties of the rounded ln P must still be compared.
fn beaten(log_p: f64, softmax: &Softmax) -> f32 {
    let best = f64::from(softmax.best);
    let slack = 1e-6 + 1e-5 * (log_p.abs() + softmax.log_sum.abs() + best.abs());
    (log_p + softmax.log_sum + best - slack) as f32
}
