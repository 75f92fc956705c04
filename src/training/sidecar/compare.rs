//! Two models on the same held-out users, by the very search that serving runs.

use burn::backend::Flex;

use crate::catalog::Index;
use crate::decode::DecodeSettings;
use crate::evaluation::{Metrics, Question, Ranker, Search, Tally, Trial};
use crate::model::{Network, NetworkConfig, NetworkScorer};

/// Users that are ranked for together.
const BATCH: usize = 256;
/// Items that are asked for: the longest list that a metric looks at.
const LONGEST: usize = 20;

/// Metrics of a network over `index`, seen items left out.
///
/// # Errors
/// When the network does not fit its sizes, or the search fails.
pub fn measure(
    network: Network<Flex>,
    config: &NetworkConfig,
    index: &Index,
    settings: &DecodeSettings,
    trials: &[Trial],
) -> anyhow::Result<Metrics> {
    let mut scorer = NetworkScorer::new(network, config.clone(), index.codes(), Default::default())?;
    let mut search = Search::new(&mut scorer, index, settings.clone());
    let mut tally = Tally::default();
    for batch in trials.chunks(BATCH) {
        let questions: Vec<Question<'_>> = batch
            .iter()
            .map(|Trial { history, seen, .. }| Question { history, k: LONGEST.min(index.len()), exclude: seen })
            .collect();
        let lists = search.rank(&questions).map_err(|error| anyhow::anyhow!("ranking: {error}"))?;
        for (trial, list) in batch.iter().zip(lists) {
            tally.add(list.iter().position(|&item| item == trial.target));
        }
    }
    Ok(tally.mean())
}
