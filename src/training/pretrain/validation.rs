//! How well the scorer ranks the validation targets: the number that training stops by.

use burn::tensor::backend::Backend;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::learner::{PretrainError, read};
use crate::domain::{CodeTable, HistoryEntry};
use crate::evaluation::{TokenOrder, TokenSearch, Trial, evaluate, last_states};
use crate::model::{Network, NetworkConfig, flat_codes};

const BATCH: usize = 256;

/// Paths kept by the search over tokens.
const BEAM: usize = 20;

/// A validation trial.
pub type HeldOut = Trial;

/// Means over the trials, seen items filtered, all unseen items ranked by s(i).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ValidationScores {
    /// Share of targets among the first ten.
    pub recall_at_10: f64,
    /// Normalised discounted cumulative gain of the first ten.
    pub ndcg_at_10: f64,
}

/// Ranks all items for every trial by the scorer.
pub fn validate<B: Backend>(
    network: &Network<B>,
    codes: &CodeTable,
    trials: &[HeldOut],
    max_history: usize,
    device: &B::Device,
) -> Result<ValidationScores, PretrainError> {
    let vectors = network.item_vectors(flat_codes(codes, device)); // [items, d]
    let transposed = vectors.clone().transpose();
    let mut order: Vec<&Trial> = trials.iter().collect();
    order.sort_by_key(|trial| (trial.history.len(), trial.user)); // like lengths together: less padding
    let mut sums = ValidationScores::default();
    for batch in order.chunks(BATCH) {
        let histories: Vec<&[HistoryEntry]> = batch.iter().map(|trial| trial.history.as_slice()).collect();
        let states = last_states(network, &vectors, &histories, max_history, device);
        let scores = states.matmul(transposed.clone());
        let scores = read(scores)?;
        let items = codes.items();
        let ranks: Vec<Option<usize>> = batch
            .par_iter()
            .enumerate()
            .map(|(row, trial)| rank(trial, &scores[row * items..(row + 1) * items]))
            .collect();
        for rank in ranks.into_iter().flatten().filter(|&rank| rank < 10) {
            sums.recall_at_10 += 1.0;
            sums.ndcg_at_10 += 1.0 / (rank as f64 + 2.0).log2();
        }
    }
    let count = trials.len().max(1) as f64;
    Ok(ValidationScores { recall_at_10: sums.recall_at_10 / count, ndcg_at_10: sums.ndcg_at_10 / count })
}

/// [`validate`] for a network that knows tokens only: ranks by beam search.
pub fn validate_tokens<B: Backend>(
    network: &Network<B>,
    codes: &CodeTable,
    trials: &[HeldOut],
    config: &NetworkConfig,
    order: TokenOrder,
    device: &B::Device,
) -> Result<ValidationScores, PretrainError> {
    let mut search = TokenSearch::new(network.clone(), config.clone(), codes, order, BEAM, device.clone());
    let scores = evaluate(&mut search, trials, codes.items(), &mut |_| ())?.filtered;
    Ok(ValidationScores { recall_at_10: scores.recall_at_10, ndcg_at_10: scores.ndcg_at_10 })
}

/// How many unseen items stand before the target; none when the target had been seen. Ties count against it.
fn rank(trial: &Trial, scores: &[f32]) -> Option<usize> {
    if trial.seen.binary_search(&trial.target).is_ok() {
        return None;
    }
    let own = scores[trial.target as usize];
    let above = scores.iter().filter(|&&score| score >= own).count();
    let seen_above = trial.seen.iter().filter(|&&item| scores[item as usize] >= own).count();
    (above - seen_above).checked_sub(1) // NaN is above nothing, so a broken network ranks nothing
}
