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

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::{Distribution, Tensor};

    use super::*;
    use crate::catalog::CatalogItem;
    use crate::domain::{CodeShape, CodeTable, EventKind, History, HistoryEntry, Item};
    use crate::model::{CpuScorer, NetworkConfig, NetworkScorer};

    fn config() -> NetworkConfig {
        NetworkConfig {
            items: 203,
            categories: 5,
            codes: CodeShape { codebooks: 4, entries: 8 },
            width: 16,
            encoder_layers: 2,
            decoder_layers: 2,
            feed_forward: 32,
            max_history: 20,
            ..NetworkConfig::tiny()
        }
    }

    fn index(codes: &CodeTable) -> Index {
        let item = |n: usize| CatalogItem {
            item: Item {
                id: n.to_string(),
                title: None,
                brand: None,
                categories: vec!["all".into()],
                price: None,
                eligible: true,
            },
            category: 0,
            prior: -(n as f32),
        };
        let items = (0..codes.items()).map(item).collect();
        Index::build(items, codes.clone(), vec!["all".into()], "1".into()).unwrap()
    }

    #[test]
    fn the_cpus_own_form_answers_as_burn_does_with_every_engine() {
        let (config, device) = (config(), Default::default());
        let entry = |at: u32| (at.wrapping_mul(2_654_435_761) >> 20) as u16 % 8;
        let codes = CodeTable::new(config.codes, (0..203 * 4).map(entry).collect()).unwrap();
        let index = index(&codes);
        let mut network = config.init::<Flex>(&device);
        let drawn = |x: Tensor<Flex, 2>| x.random_like(Distribution::Normal(0.0, 0.3));
        network.residuals = network.residuals.map(drawn);
        network.refinement_head.weight = network.refinement_head.weight.map(drawn);
        let mut ours = CpuScorer::new(&network, config.clone(), &codes).unwrap();
        let mut theirs = NetworkScorer::new(network, config, &codes, device).unwrap();

        let event = |item: u32| HistoryEntry { item, kind: EventKind::View, time: i64::from(item) * 1000 };
        let histories: Vec<History> = (0..6).map(|user| [user, 3 * user + 1, 11].map(event).into()).collect();
        let questions: Vec<Question<'_>> =
            histories.iter().map(|history| Question { history, k: 10, exclude: &[11] }).collect();
        for engine in [Engine::Beam, Engine::Exact, Engine::Draft] {
            let settings = DecodeSettings { engine, beam: 6, finish_at: 2, ..DecodeSettings::default() };
            let one = Search::new(&mut ours, &index, settings.clone()).answer(&questions).unwrap();
            let other = Search::new(&mut theirs, &index, settings).answer(&questions).unwrap();
            for (one, other) in one.iter().flatten().zip(other.iter().flatten()) {
                assert_eq!(one.item, other.item, "{engine:?}");
                assert!((one.score - other.score).abs() < 1e-4, "{one:?} and {other:?}");
            }
            assert_eq!(one.iter().map(Vec::len).sum::<usize>(), 60);
        }
    }
}
