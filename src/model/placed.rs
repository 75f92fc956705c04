//! Vectors of items that come after the network learnt.

use super::NetworkConfig;
use super::scorer::ScorerError;
use crate::decode::Placement;
use crate::domain::{CodeTable, ItemNumber};

/// The mean of vectors by their shares, drawn out to the mean of their lengths: a mean is shorter than what it is the mean
/// of, and would lose to every item that was learnt. None of no vectors.
pub(super) fn drawn_mean(like: &[(&[f32], f32)]) -> Option<Vec<f32>> {
    let (first, _) = like.first()?;
    let (mut mean, mut lengths) = (vec![0.0f32; first.len()], 0.0);
    for (vector, share) in like {
        lengths += share * length(vector);
        mean.iter_mut().zip(*vector).for_each(|(sum, value)| *sum += share * value);
    }
    let scale = lengths / length(&mean).max(f32::MIN_POSITIVE);
    mean.iter_mut().for_each(|value| *value *= scale);
    Some(mean)
}

/// Refuses codes of another shape or of fewer items than before, and placements that name items which are not there.
pub(super) fn check_growth(config: &NetworkConfig, codes: &CodeTable, placed: &[Placement]) -> Result<(), ScorerError> {
    if codes.shape() != config.codes || codes.items() < config.items {
        let (items, shape) = (codes.items(), codes.shape());
        let expected = format!("{} items or more, {} x {}", config.items, config.codes.codebooks, config.codes.entries);
        return Err(ScorerError::Codes { items, codebooks: shape.codebooks, entries: shape.entries, expected });
    }
    let past = |item: &ItemNumber| *item as usize >= codes.items();
    let named = placed.iter().flat_map(|one| std::iter::once(one.item).chain(one.like.iter().map(|(item, _)| *item)));
    named.clone().find(past).map_or(Ok(()), |item| Err(ScorerError::Item(item, codes.items())))
}

fn length(row: &[f32]) -> f32 {
    row.iter().map(|value| value * value).sum::<f32>().sqrt()
}
