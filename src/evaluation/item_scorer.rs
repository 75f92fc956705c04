//! Rankers that score every item by one dot product: SASRec, and a network without its search.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use rayon::prelude::*;

use super::harness::{RankError, Ranker};
use super::trial::Question;
use crate::domain::{CodeTable, HistoryEntry, ItemNumber};
use crate::model::{Network, NetworkConfig, encoder_batch, flat_codes};

/// Ranks all items by s(i) = <h, v_i>.
#[derive(Debug)]
pub struct ItemScorer<B: Backend> {
    name: String,
    network: Network<B>,
    /// `[items, d]`.
    vectors: Tensor<B, 2>,
    max_history: usize,
    device: B::Device,
}

impl<B: Backend> ItemScorer<B> {
    /// A ranker of the items of `codes` by a network whose residuals are whole.
    pub fn new(
        name: impl Into<String>,
        network: Network<B>,
        config: &NetworkConfig,
        codes: &CodeTable,
        device: B::Device,
    ) -> Self {
        let vectors = network.item_vectors(flat_codes(codes, &device));
        Self { name: name.into(), network, vectors, max_history: config.max_history, device }
    }
}

impl<B: Backend> Ranker for ItemScorer<B> {
    fn name(&self) -> &str {
        &self.name
    }

    fn rank(&mut self, questions: &[Question<'_>]) -> Result<Vec<Vec<ItemNumber>>, RankError> {
        let histories: Vec<&[HistoryEntry]> = questions.iter().map(|question| question.history.as_slice()).collect();
        let states = last_states(&self.network, &self.vectors, &histories, self.max_history, &self.device);
        let scores = states.matmul(self.vectors.clone().transpose()); // [questions, items]
        let items = scores.dims()[1];
        let scores = scores.into_data().into_vec::<f32>().map_err(|error| format!("{error:?}"))?;
        Ok(questions
            .par_iter()
            .zip(scores.par_chunks(items))
            .map(|(question, scores)| best(scores, question))
            .collect())
    }

    fn excluding_is_striking_out(&self) -> bool {
        true
    }
}

/// h of each history: the encoder's states at the last events, `[histories, d]`.
pub fn last_states<B: Backend>(
    network: &Network<B>,
    vectors: &Tensor<B, 2>,
    histories: &[&[HistoryEntry]],
    max_history: usize,
    device: &B::Device,
) -> Tensor<B, 2> {
    let length = histories.iter().map(|history| history.len()).max().unwrap_or(1).clamp(1, max_history);
    let encoded = encoder_batch::<B>(histories, length, max_history, device);
    let states = network.encode(&encoded, vectors.clone().select(0, encoded.items.clone()));
    latest(states, histories, length)
}

/// The states at the histories' last events: `[histories * length, d]` to `[histories, d]`.
pub(super) fn latest<B: Backend>(states: Tensor<B, 2>, histories: &[&[HistoryEntry]], length: usize) -> Tensor<B, 2> {
    let last = histories.iter().enumerate();
    let last: Vec<i32> = last.map(|(row, history)| (row * length + history.len().min(length) - 1) as i32).collect();
    let last: Tensor<B, 1, Int> = Tensor::from_data(TensorData::new(last, [histories.len()]), &states.device());
    states.select(0, last)
}

/// The `k` best allowed items; ties: the lower number first.
fn best(scores: &[f32], question: &Question<'_>) -> Vec<ItemNumber> {
    let mut order: Vec<ItemNumber> = (0..scores.len() as ItemNumber).filter(|&item| question.allows(item)).collect();
    let better = |a: &ItemNumber, b: &ItemNumber| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b));
    if question.k < order.len() {
        order.select_nth_unstable_by(question.k, better);
        order.truncate(question.k);
    }
    order.sort_unstable_by(better);
    order
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::domain::{CodeShape, EventKind, History};

    #[test]
    fn the_best_allowed_items_come_in_order_of_their_scores() {
        let history: History = [1, 2].map(|item| HistoryEntry { item, kind: EventKind::View, time: 0 }).into();
        let question = Question { history: &history, k: 3, exclude: &[4] };
        assert_eq!(best(&[0.1, 0.5, 0.5, -1.0, 9.0, 0.2], &question), [1, 2, 5]);
    }

    #[test]
    fn batched_questions_are_answered_as_single_ones() {
        let (config, device) = (
            NetworkConfig {
                items: 20,
                codes: CodeShape { codebooks: 1, entries: 2 },
                reads_codes: false,
                max_history: 4,
                ..NetworkConfig::tiny()
            },
            Default::default(),
        );
        let codes = CodeTable::new(config.codes, vec![0; 20]).unwrap();
        let mut ranker = ItemScorer::<Flex>::new("sasrec", config.init(&device), &config, &codes, device);
        let entry = |item: u32| HistoryEntry { item, kind: EventKind::View, time: 0 };
        let histories: Vec<History> = [vec![3], vec![1, 2, 3, 4, 5, 6], vec![9, 8]]
            .map(|items: Vec<u32>| items.into_iter().map(entry).collect())
            .into();
        let questions: Vec<Question<'_>> =
            histories.iter().map(|history| Question { history, k: 20, exclude: &[7] }).collect();
        let together = ranker.rank(&questions).unwrap();
        for (question, list) in questions.iter().zip(&together) {
            assert_eq!(ranker.rank(&[*question]).unwrap()[0], *list);
            assert_eq!(list.len(), 19);
        }
    }
}
