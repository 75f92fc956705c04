//! A trained network as a ranker: the very search that serving runs.

use super::harness::{RankError, Ranker};
use super::trial::Question;
use crate::catalog::{Candidates, Index};
use crate::decode::{DecodeJob, DecodeSettings, Decoder, Engine, Outcome, PathModel, Ranked};
use crate::domain::{Filter, ItemNumber};

/// Ranks by decoding.
#[derive(Debug)]
pub struct Search<'a, M> {
    network: &'a mut M,
    decoder: Decoder,
    index: &'a Index,
    settings: DecodeSettings,
}

impl<'a, M: PathModel> Search<'a, M> {
    /// A ranker that decodes with `settings`.
    pub fn new(network: &'a mut M, index: &'a Index, settings: DecodeSettings) -> Self {
        Self { network, decoder: Decoder::default(), index, settings }
    }

    /// The answers to `questions`, scores included.
    pub fn answer(&mut self, questions: &[Question<'_>]) -> Result<Vec<Vec<Ranked>>, RankError> {
        Ok(self.outcomes(questions, false)?.into_iter().map(|outcome| outcome.items).collect())
    }

    /// Everything that the search says of `questions`; with `explain`, the paths too.
    pub fn outcomes(&mut self, questions: &[Question<'_>], explain: bool) -> Result<Vec<Outcome>, RankError> {
        let roots: Vec<Candidates> =
            questions.iter().map(|question| self.index.root(&Filter::default(), question.exclude)).collect();
        let jobs: Vec<DecodeJob<'_>> = questions
            .iter()
            .zip(&roots)
            .map(|(question, root)| DecodeJob {
                history: question.history,
                k: question.k,
                root,
                settings: &self.settings,
                explain,
                bias: None,
            })
            .collect();
        let outcomes = self.decoder.decode(self.network, self.index, &jobs, &|_| true);
        let outcomes = outcomes.map_err(|error| error.to_string())?;
        Ok(outcomes.into_iter().map(Option::unwrap_or_default).collect())
    }
}

impl<M: PathModel> Ranker for Search<'_, M> {
    fn name(&self) -> &str {
        "reg4rec"
    }

    fn rank(&mut self, questions: &[Question<'_>]) -> Result<Vec<Vec<ItemNumber>>, RankError> {
        let answers = self.answer(questions)?;
        Ok(answers.into_iter().map(|items| items.into_iter().map(|ranked| ranked.item).collect()).collect())
    }

    fn excluding_is_striking_out(&self) -> bool {
        self.settings.engine == Engine::Exact
    }
}
