//! The exact scorer: s(i) of every candidate, no decoder.

use crate::catalog::Index;
use crate::domain::ItemNumber;

use super::answers::Standing;
use super::greatest::{Greatest, each_from};
use super::job::{DecodeJob, Outcome, Ranked};
use super::limits::Room;
use super::scratch::Scratch;
use super::sums::Softmax;
use super::watch::Part;

/// Ranks every candidate of the job by s(i); the scores are ln softmax of s over the candidates. `scores` holds s of every
/// item of the index, the job's bias not yet in it. Answers the best min(k, candidates) items in the order of
/// [`Outcome::items`].
pub(super) fn exact(scores: &mut [f32], index: &Index, job: &DecodeJob<'_>, scratch: &mut Scratch) -> Outcome {
    let non_finite = scratch.ready(scores, index, job);
    scratch.watch.turns_to(Part::Marginals);
    let softmax = Softmax::of(scores, scratch.walkers(scores.len()));
    let standing = |at: usize, log_p: f64| Standing::new(index, at as ItemNumber, log_p);
    let ranked = match job.room(index) {
        None => best(job.k, scores, &softmax, &mut scratch.greatest, standing),
        Some(room) => best_within(&room, job.k, scores, &softmax, &mut scratch.greatest, standing),
    };
    let ranked = ranked.into_iter().map(|at| Ranked { item: at.item, score: at.score, path: None });
    let items: Vec<Ranked> = ranked.collect();
    Outcome { short: items.len() < job.k, items, non_finite, ..Outcome::default() }
}

/// The best k that there is room for, best first: of longer and longer lists, until one has them.
pub(super) fn best_within(
    room: &Room<'_>,
    k: usize,
    scores: &[f32],
    softmax: &Softmax,
    greatest: &mut Greatest,
    standing: impl Fn(usize, f64) -> Standing,
) -> Vec<Standing> {
    let mut listed = k.saturating_mul(4).max(64);
    loop {
        let list = best(listed, scores, softmax, greatest, &standing);
        let all = list.len() < listed;
        let mut room = room.clone();
        let passing: Vec<Standing> = list.into_iter().filter(|one| room.take(one.item)).take(k).collect();
        if passing.len() == k || all {
            return passing;
        }
        listed = listed.saturating_mul(8);
    }
}

/// The best k of the scores that are not OUT, best first; `standing` gives the rank of a place by its ln P.
pub(super) fn best(
    k: usize,
    scores: &[f32],
    softmax: &Softmax,
    greatest: &mut Greatest,
    standing: impl Fn(usize, f64) -> Standing,
) -> Vec<Standing> {
    let kth = greatest.kth(scores, k).filter(|kth| *kth >= f32::MIN);
    let floor = kth.map_or(f32::MIN, |kth| beaten(softmax.log_share(kth), softmax).min(kth));
    let mut best = Vec::new();
    each_from(scores, floor, |at, score| best.push(standing(at, softmax.log_share(score))));
    best.sort_unstable_by(|a, b| b.cmp(a));
    best.truncate(k);
    best
}

/// A score that is surely below the k-th best, whose ln P is `log_p`: ties of the rounded ln P must still be compared.
fn beaten(log_p: f64, softmax: &Softmax) -> f32 {
    let best = f64::from(softmax.best);
    let slack = 1e-6 + 1e-5 * (log_p.abs() + softmax.log_sum.abs() + best.abs());
    (log_p + softmax.log_sum + best - slack) as f32
}
