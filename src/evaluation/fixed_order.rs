//! TIGER's search: tokens in the codebooks' order, the likeliest `beam` prefixes of real items kept at each step.

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use super::harness::{RankError, Ranker};
use super::trial::Question;
use crate::domain::{CodeTable, HistoryEntry, ItemNumber};
use crate::model::{Network, NetworkConfig, encoder_batch, flat_codes};

/// Ranks by generating token sequences in a fixed order (Rajput et al. 2023), with the prefixes of real items only.
#[derive(Debug)]
pub struct FixedOrder<'a, B: Backend> {
    network: Network<B>,
    config: NetworkConfig,
    codes: &'a CodeTable,
    /// Item numbers in the order of their codes: the items of a prefix are a range of it.
    sorted: Vec<ItemNumber>,
    /// `[items, d]`.
    vectors: Tensor<B, 2>,
    beam: usize,
    device: B::Device,
}

/// A prefix on its way.
#[derive(Debug, Clone, Copy)]
struct Prefix {
    /// Its items, as a range of the sorted ones.
    from: usize,
    to: usize,
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
        let mut sorted: Vec<ItemNumber> = (0..codes.items() as ItemNumber).collect();
        sorted.sort_by_key(|&item| codes.code(item));
        Self { network, config, codes, sorted, vectors, beam, device }
    }

    /// The children of a prefix of `depth` tokens that hold an item which may be named, with their scores.
    fn children(
        &self,
        prefix: Prefix,
        row: usize,
        depth: usize,
        log_p: &[f32],
        question: &Question<'_>,
        out: &mut Vec<Prefix>,
    ) {
        let mut from = prefix.from;
        while from < prefix.to {
            let entry = self.codes.code(self.sorted[from])[depth];
            let within = &self.sorted[from..prefix.to];
            let to = from + within.partition_point(|&item| self.codes.code(item)[depth] <= entry);
            if self.sorted[from..to].iter().any(|&item| question.allows(item)) {
                let score = prefix.score + log_p[usize::from(entry)];
                out.push(Prefix { from, to, score, parent: row, entry });
            }
            from = to;
        }
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
        let history = self.network.history_memory(states, questions.len());
        let hidden: Vec<bool> = histories
            .iter()
            .flat_map(|history| (0..length).map(move |column| column >= history.len().min(length)))
            .collect();
        let hidden: Tensor<B, 4, Bool> =
            Tensor::from_data(TensorData::new(hidden, [questions.len(), 1, 1, length]), &self.device);

        let shape = self.codes.shape();
        let start = Prefix { from: 0, to: self.sorted.len(), score: 0.0, parent: 0, entry: 0 };
        let mut live: Vec<Vec<Prefix>> = vec![vec![start]; questions.len()];
        let (mut past, mut width) = (Vec::new(), 1);
        for depth in 0..shape.codebooks {
            let paths = questions.len() * width;
            let x = if depth == 0 {
                self.network.begin_inputs(paths)
            } else {
                let chosen = live.iter().flat_map(|row| padded(row, width));
                let tokens =
                    chosen.map(|prefix| ((depth - 1) * shape.entries + usize::from(prefix.entry)) as i32).collect();
                self.network.token_inputs(self.network.tokens().select(0, self.ints(tokens)), depth)
            };
            let states = self.network.decode(x, paths, &mut past, &history, hidden.clone());
            let book = self.network.tokens().slice([depth * shape.entries..(depth + 1) * shape.entries]);
            let logits = log_softmax(self.network.refinements(states).matmul(book.transpose()), 1); // [paths, D]
            let log_p = logits.into_data().into_vec::<f32>().map_err(|error| format!("{error:?}"))?;

            let before = width;
            for (at, (row, question)) in live.iter_mut().zip(questions).enumerate() {
                let mut children = Vec::new();
                for (place, prefix) in row.iter().enumerate() {
                    let path = at * before + place;
                    let log_p = &log_p[path * shape.entries..(path + 1) * shape.entries];
                    self.children(*prefix, path, depth, log_p, question, &mut children);
                }
                children.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.from.cmp(&b.from)));
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
                let items = row.iter().flat_map(|prefix| &self.sorted[prefix.from..prefix.to]);
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
    let filler = Prefix { from: 0, to: 0, score: f32::MIN, parent: 0, entry: 0 };
    row.iter().copied().chain(std::iter::repeat(filler)).take(width)
}
