//! A model on held-out users and replayed exposures, by the very search that serving runs.

use burn::backend::Flex;
use serde::{Deserialize, Serialize};

use super::slates::Slate;
use crate::catalog::{Candidates, Index};
use crate::decode::{DecodeJob, DecodeSettings, decode};
use crate::domain::ItemNumber;
use crate::evaluation::{Metrics, Question, Ranker, Search, Tally, Trial};
use crate::model::{CpuScorer, Network, NetworkConfig};

/// Users that are ranked for together.
const BATCH: usize = 256;
/// Items that are asked for: the longest list that a metric looks at.
const LONGEST: usize = 20;

/// How good a model is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// On the held-out users, seen items filtered.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// On replayed exposures: of the pairs of a shown item that was taken and one that was not, the share that the model
    /// ranks in this order; the mean over exposures. None without any.
    pub slate_order: Option<f64>,
}

/// What models are compared on.
#[derive(Debug, Clone, Copy)]
pub struct Exam<'a> {
    /// How both search.
    pub settings: &'a DecodeSettings,
    /// Held-out users.
    pub trials: &'a [Trial],
    /// Replayed exposures.
    pub slates: &'a [Slate],
}

impl Exam<'_> {
    /// What a network over `index` comes to.
    ///
    /// # Errors
    /// When the network does not fit its sizes, or the search fails.
    pub fn sit(&self, network: Network<Flex>, config: &NetworkConfig, index: &Index) -> anyhow::Result<Quality> {
        let mut scorer = CpuScorer::new(&network, config.clone(), index.codes())?;
        let mut search = Search::new(&mut scorer, index, self.settings.clone());
        let mut tally = Tally::default();
        for batch in self.trials.chunks(BATCH) {
            let questions: Vec<Question<'_>> = batch
                .iter()
                .map(|Trial { history, seen, .. }| Question { history, k: LONGEST.min(index.len()), exclude: seen })
                .collect();
            let lists = search.rank(&questions).map_err(|error| anyhow::anyhow!("ranking: {error}"))?;
            for (trial, list) in batch.iter().zip(lists) {
                tally.add(list.iter().position(|&item| item == trial.target));
            }
        }
        let mut order = 0.0;
        for batch in self.slates.chunks(BATCH) {
            let shown = |slate: &Slate| Candidates::of(index.len(), slate.shown.iter().map(|&(item, _)| item));
            let roots: Vec<Candidates> = batch.iter().map(shown).collect();
            let jobs: Vec<DecodeJob<'_>> = batch
                .iter()
                .zip(&roots)
                .map(|(slate, root)| DecodeJob {
                    history: &slate.history,
                    k: slate.shown.len(),
                    root,
                    settings: self.settings,
                    explain: false,
                    bias: None,
                })
                .collect();
            let outcomes = decode(&mut scorer, index, &jobs, &|_| true)?;
            for (slate, outcome) in batch.iter().zip(outcomes) {
                let ranked: Vec<ItemNumber> =
                    outcome.unwrap_or_default().items.into_iter().map(|ranked| ranked.item).collect();
                order += slate.order(&ranked);
            }
        }
        let slates = self.slates.len();
        Ok(Quality { metrics: tally.mean(), slate_order: (slates > 0).then(|| order / slates as f64) })
    }
}
