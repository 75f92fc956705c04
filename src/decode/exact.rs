//! The exact scorer: s(i) of every candidate, no decoder.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::catalog::Index;

use super::answers::Standing;
use super::job::{DecodeJob, Outcome, Ranked};
use super::scoring::{ItemQuery, Residuals};
use super::sums::{Scored, Softmax, score_items};

/// Ranks every candidate of the job by s(i), to which the tokens' part of its bias has been added with the query; the
/// scores are ln softmax of s over the candidates. Answers the best min(k, candidates) items in the order of
/// [`Outcome::items`].
///
/// # Shapes
/// `query.token_scores` `[M, D]`, `query.residual` `[width]`, `residuals` `[items, width]`, of the index's M, D, items.
///
/// # Panics
/// When the shapes are others, or the candidates are another index's; [`decode`](super::decode) checks them.
pub fn exact(query: &ItemQuery, residuals: Residuals<'_>, index: &Index, job: &DecodeJob<'_>) -> Outcome {
    let (root, k) = (job.root, job.k);
    let mut items = Scored { numbers: root.iter().collect(), scores: Vec::new() };
    let non_finite = score_items(query, residuals, index.codes(), &items.numbers, &mut items.scores);
    if let Some(bias) = job.bias {
        bias.add_to_scores(&items.numbers, &mut items.scores);
    }
    let softmax = Softmax::over(&items.scores, &mut Vec::new());

    // The best k so far, the worst of them on top.
    let wanted = k.min(items.numbers.len());
    let mut best: BinaryHeap<Reverse<Standing>> = BinaryHeap::with_capacity(wanted + 1);
    for (&item, &score) in items.numbers.iter().zip(&items.scores) {
        let score = softmax.log_share(score);
        let full = best.len() == wanted;
        // Nearly every item ends here, before its prior is fetched.
        if full && best.peek().is_none_or(|worst| (score as f32) < worst.0.score) {
            continue;
        }
        best.push(Reverse(Standing::new(index, item, score)));
        if full {
            best.pop();
        }
    }
    let ranked = best.into_sorted_vec().into_iter();
    let items = ranked.map(|Reverse(at)| Ranked { item: at.item, score: at.score, path: None }).collect();
    Outcome { items, short: root.len() < k, non_finite, ..Outcome::default() }
}
