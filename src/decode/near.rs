//! From scores that are only near to those that matter, exact.

use crate::catalog::{Candidates, Index};
use crate::domain::{ItemNumber, share_out};

use super::bias::Bias;
use super::greatest::each_from;
use super::job::{DecodeError, DecodeJob};
use super::scoring::{Margins, PathModel};
use super::scratch::{OUT, Scratch};

/// The best of a job's candidates by s(i): as many as its engine looks at, and each that may be one of them. `scores` holds
/// s of every item of the index nearly; those of the items that are answered become s itself.
///
/// What is left is near: s summed over the catalogue, which is what shares are of, is off by no more than the margins.
///
/// # Errors
/// What the network says.
pub(super) fn sharpen<M: PathModel>(
    model: &mut M,
    index: &Index,
    job: &DecodeJob<'_>,
    request: usize,
    scores: &mut [f32],
    scratch: &mut Scratch,
) -> Result<(), DecodeError<M::Error>> {
    let margins = model.margins(request);
    DecodeError::unless_equal("the margins of scores", margins.items.len(), scores.len())?;
    let numbers = contenders(scores, margins, job.looked_at(), job.root, job.bias.map(|bias| (bias, index)), scratch);
    model.score_these(request, &numbers, scores).map_err(DecodeError::Model)
}

/// Every item of `root` that may be among its `most` best, lowest number first.
fn contenders(
    scores: &[f32],
    margins: Margins<'_>,
    most: usize,
    root: &Candidates,
    bias: Option<(&Bias, &Index)>,
    scratch: &mut Scratch,
) -> Vec<ItemNumber> {
    let threads = scratch.walkers(scores.len());
    let Scratch { floors, greatest, .. } = scratch;
    floors.clear();
    floors.extend_from_slice(scores);
    if let Some((bias, index)) = bias {
        bias.add_to(index, floors);
    }
    let share = floors.len().div_ceil(threads).max(1);
    share_out(floors.chunks_mut(share).zip(margins.items.chunks(share)), |(floors, items)| {
        let items = floors.iter_mut().zip(items);
        items.for_each(|(score, margin)| *score -= margins.factor * margin + slack(*score));
    });
    root.keep_of(floors, OUT);
    let off = |at: usize, score: f32| margins.factor * margins.items[at] + slack(score);
    let least = greatest.kth(floors, most).unwrap_or(f32::NEG_INFINITY);
    let widest = margins.widest * margins.factor;
    let mut numbers = Vec::new();
    let floor = least - 2.0 * widest - 4.0 * slack(least) - 4.0 * slack(widest);
    each_from(floors, floor, |at, score| {
        if score > OUT && score + 2.0 * off(at, score) + slack(least) >= least {
            numbers.push(at as ItemNumber);
        }
    });
    numbers
}

/// Rounding is relative to the scores themselves.
fn slack(score: f32) -> f32 {
    4.0 * f32::EPSILON * score.abs()
}
