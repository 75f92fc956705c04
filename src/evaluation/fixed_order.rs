//! TIGER's search: tokens in the codebooks' order, the likeliest `beam` prefixes of real items kept at each step.

use std::ops::Range;

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use super::harness::{RankError, Ranker};
use super::item_scorer::latest;
use super::prefixes::Prefixes;
use super::trial::Question;
use crate::domain::{CodeTable, HistoryEntry, ItemNumber};
use crate::model::{Network, NetworkConfig, encoder_batch, flat_codes};

/// Ranks by generating token sequences in a fixed order (Rajput et al. 2023), with the prefixes of real items only: a token's
/// probability is a softmax over those that continue its prefix.
#[derive(Debug)]
pub struct FixedOrder<'a, B: Backend> {
    network: Network<B>,
    config: NetworkConfig,
    prefixes: Prefixes<'a>,
    /// `[items, d]`.
    vectors: Tensor<B, 2>,
    beam: usize,
    device: B::Device,
}

/// A prefix on its way.
#[derive(Debug, Clone)]
struct Prefix {
    items: Range<usize>,
    /// ln P of its tokens.
    score: f32,
    /// Its row among the prefixes before, and its last token.
    parent: usize,
    entry: u16,
}

impl<'a, B: Backend> FixedOrder<'a, B> {
    /// A search over the items of `codes` that keeps `beam` prefixes.
    pub fn new(
        network: Network<B>,
        config: NetworkConfig,
        codes: &'a CodeTable,
        beam: usize,
        device: B::Device,
    ) -> Self {
        let vectors = network.item_vectors(flat_codes(codes, &device));
        Self { network, config, prefixes: Prefixes::of(codes), vectors, beam, device }
    }

    /// The children of a prefix of `depth` tokens that hold an item which may be named; `logits` are of its next tokens.
    fn children(
        &self,
        prefix: &Prefix,
        row: usize,
        depth: usize,
        logits: &[f32],
        question: &Question<'_>,
        out: &mut Vec<Prefix>,
    ) {
        let children = || self.prefixes.children(prefix.items.clone(), depth);
        let most = children().map(|(entry, _)| logits[usize::from(entry)]).fold(f32::MIN, f32::max);
        let sum: f32 = children().map(|(entry, _)| (logits[usize::from(entry)] - most).exp()).sum();
        out.extend(
            children()
                .filter(|(_, items)| self.prefixes.items(items.clone()).iter().any(|&item| question.allows(item)))
                .map(|(entry, items)| {
                    let score = prefix.score + logits[usize::from(entry)] - most - sum.ln();
                    Prefix { items, score, parent: row, entry }
                }),
        );
    }

    fn ints(&self, values: Vec<i32>) -> Tensor<B, 1, Int> {
        let count = values.len();
        Tensor::from_data(TensorData::new(values, [count]), &self.device)
    }
}

impl<B: Backend> Ranker for FixedOrder<'_, B> {
    fn name(&self) -> &str {
        "tiger"
    }

    fn rank(&mut self, questions: &[Question<'_>]) -> Result<Vec<Vec<ItemNumber>>, RankError> {
        let histories: Vec<&[HistoryEntry]> = questions.iter().map(|question| question.history.as_slice()).collect();
        let max_history = self.config.max_history;
        let length = histories.iter().map(|history| history.len()).max().unwrap_or(1).clamp(1, max_history);
        let encoded = encoder_batch::<B>(&histories, length, max_history, &self.device);
        let states = self.network.encode(&encoded, self.vectors.clone().select(0, encoded.items.clone()));
        let queries = latest(states.clone(), &histories, length);
        let history = self.network.history_memory(states, questions.len());
        let hidden: Vec<bool> = histories
            .iter()
            .flat_map(|history| (0..length).map(move |column| column >= history.len().min(length)))
            .collect();
        let hidden: Tensor<B, 4, Bool> =
            Tensor::from_data(TensorData::new(hidden, [questions.len(), 1, 1, length]), &self.device);

        let shape = self.prefixes.codes().shape();
        let start = Prefix { items: self.prefixes.all(), score: 0.0, parent: 0, entry: 0 };
        let mut live: Vec<Vec<Prefix>> = vec![vec![start]; questions.len()];
        let (mut past, mut width) = (Vec::new(), 1);
        for depth in 0..shape.codebooks {
            let paths = questions.len() * width;
            let x = if depth == 0 {
                self.network.begin_inputs(queries.clone())
            } else {
                let chosen = live.iter().flat_map(|row| padded(row, width));
                let tokens =
                    chosen.map(|prefix| ((depth - 1) * shape.entries + usize::from(prefix.entry)) as i32).collect();
                self.network.token_inputs(self.network.tokens().select(0, self.ints(tokens)), depth)
            };
            let states = self.network.decode(x, paths, &mut past, &history, hidden.clone());
            let book = self.network.tokens().slice(depth * shape.entries..(depth + 1) * shape.entries);
            let logits = self.network.refinements(states).matmul(book.transpose()); // [paths, D]
            let logits = logits.into_data().into_vec::<f32>().map_err(|error| format!("{error:?}"))?;

            let before = width;
            for (at, (row, question)) in live.iter_mut().zip(questions).enumerate() {
                let mut children = Vec::new();
                for (place, prefix) in row.iter().enumerate() {
                    let path = at * before + place;
                    let logits = &logits[path * shape.entries..(path + 1) * shape.entries];
                    self.children(prefix, path, depth, logits, question, &mut children);
                }
                children.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.items.start.cmp(&b.items.start)));
                children.truncate(self.beam.max(question.k));
                *row = children;
            }
            width = live.iter().map(Vec::len).max().unwrap_or(1).max(1);
            let parents: Vec<i32> =
                live.iter().flat_map(|row| padded(row, width)).map(|prefix| prefix.parent as i32).collect();
            let parents = self.ints(parents);
            for layer in &mut past {
                layer.keys = layer.keys.clone().select(0, parents.clone());
                layer.values = layer.values.clone().select(0, parents.clone());
            }
        }
        Ok(live
            .iter()
            .zip(questions)
            .map(|(row, question)| {
                let items = row.iter().flat_map(|prefix| self.prefixes.items(prefix.items.clone()));
                items.copied().filter(|&item| question.allows(item)).take(question.k).collect()
            })
            .collect())
    }

    fn excluding_is_striking_out(&self) -> bool {
        false
    }
}

/// The prefixes of one request, filled up to `width` with copies that nobody reads.
fn padded(row: &[Prefix], width: usize) -> impl Iterator<Item = Prefix> + '_ {
    let filler = Prefix { items: 0..0, score: f32::MIN, parent: 0, entry: 0 };
    row.iter().cloned().chain(std::iter::repeat(filler)).take(width)
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::Distribution;

    use super::*;
    use crate::domain::{CodeShape, EventKind, History};
    use crate::model::{load_weights, save_weights};

    const ITEMS: usize = 40;

    fn config() -> NetworkConfig {
        NetworkConfig {
            items: ITEMS,
            categories: 2,
            codes: CodeShape { codebooks: 3, entries: 5 },
            reads_codes: true,
            own_residuals: false,
            feature_width: 0,
            width: 8,
            heads: 2,
            head_width: None,
            encoder_layers: 1,
            decoder_layers: 1,
            feed_forward: 8,
            max_history: 6,
            dropout: 0.0,
        }
    }

    /// Codes of which some are shared by two items.
    fn codes() -> CodeTable {
        let code = |item: u16| [item % 5, item / 5 % 4, item % 3];
        let entries = (0..ITEMS as u16).flat_map(|item| code(if item == 39 { 3 } else { item })).collect();
        CodeTable::new(config().codes, entries).unwrap()
    }

    fn network() -> Network<Flex> {
        let mut network = config().init::<Flex>(&Default::default());
        network.refinement_head.weight =
            network.refinement_head.weight.map(|x| x.random_like(Distribution::Normal(0.0, 1.0)));
        // Fresh parameters are drawn when first read, so that copies would differ.
        load_weights(&config(), save_weights(&network).unwrap(), &Default::default()).unwrap()
    }

    /// ln P of an item's tokens one after another, each decoded from its whole prefix.
    fn log_p(network: &Network<Flex>, history: &History, codes: &CodeTable, item: ItemNumber) -> f32 {
        let device = Default::default();
        let vectors = network.item_vectors(flat_codes(codes, &device));
        let encoded = encoder_batch::<Flex>(&[history.as_slice()], history.len(), 6, &device);
        let states = network.encode(&encoded, vectors.select(0, encoded.items.clone()));
        let query = states.clone().slice(history.len() - 1..history.len());
        let memory = network.history_memory(states, 1);
        let code = codes.code(item);
        let mut inputs = vec![network.begin_inputs(query)];
        for (step, &entry) in code.iter().enumerate().take(2) {
            let row = step as i32 * 5 + i32::from(entry);
            let row = Tensor::<Flex, 1, Int>::from_data(TensorData::new(vec![row], [1]), &device);
            inputs.push(network.token_inputs(network.tokens().select(0, row), step + 1));
        }
        let hidden = Tensor::<Flex, 4, Bool>::from_data(
            TensorData::new(vec![false; history.len()], [1, 1, 1, history.len()]),
            &device,
        );
        let states = network.decode(Tensor::cat(inputs, 0), 1, &mut Vec::new(), &memory, hidden);
        let scores: Vec<f32> = network.token_scores(network.refinements(states)).into_data().into_vec().unwrap();
        code.iter()
            .enumerate()
            .map(|(step, &entry)| {
                let row = &scores[step * 15 + step * 5..][..5];
                let follows = |token: &usize| {
                    let fits = |other: u32| codes.code(other).head(step) == code.head(step);
                    (0..ITEMS as u32).any(|other| fits(other) && usize::from(codes.code(other)[step]) == *token)
                };
                let sum: f32 = (0..5).filter(follows).map(|token| row[token].exp()).sum();
                row[usize::from(entry)] - sum.ln()
            })
            .sum()
    }

    #[test]
    fn a_beam_as_wide_as_the_catalogue_ranks_all_items_by_the_probability_of_their_tokens() {
        let (codes, network) = (codes(), network());
        let entry = |item: u32| HistoryEntry { item, kind: EventKind::View, time: 0 };
        let histories: [History; 2] = [vec![entry(3), entry(9)], vec![entry(20), entry(1), entry(7)]];
        let mut search = FixedOrder::new(network.clone(), config(), &codes, ITEMS, Default::default());
        let questions: Vec<Question<'_>> =
            histories.iter().map(|history| Question { history, k: ITEMS, exclude: &[5, 6] }).collect();
        let lists = search.rank(&questions).unwrap();
        for (history, list) in histories.iter().zip(&lists) {
            let scores: Vec<f32> = list.iter().map(|&item| log_p(&network, history, &codes, item)).collect();
            assert_eq!(list.len(), ITEMS - 2);
            assert!(scores.windows(2).all(|pair| pair[0] >= pair[1] - 1.0e-4), "{scores:?}");
        }
        assert_eq!(search.rank(&questions[1..]).unwrap()[0], lists[1]);
    }
}
