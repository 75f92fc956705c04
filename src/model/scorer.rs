//! The network as the search sees it: histories in, queries and path states out, state kept between the steps.

use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData, Transaction};
use thiserror::Error;

use super::attention::KeysValues;
use super::config::NetworkConfig;
use super::network::{EncoderBatch, Network};
use crate::decode::{Advance, ItemQuery, PathModel, PathState, Residuals};
use crate::domain::{CodeShape, CodeTable, History, HistoryEntry};

/// A network with everything that does not change between requests computed once.
#[derive(Debug)]
pub struct NetworkScorer<B: Backend> {
    network: Network<B>,
    config: NetworkConfig,
    /// v_i of every item, `[items, d]`.
    item_vectors: Tensor<B, 2>,
    residuals: Vec<f32>,
    device: B::Device,
    batch: Option<BatchState<B>>,
}

/// What a batch leaves behind between `encode` and `advance`.
#[derive(Debug)]
struct BatchState<B: Backend> {
    requests: usize,
    /// h of each request, `[requests, d]`.
    queries: Tensor<B, 2>,
    /// Keys and values of the histories, one per decoder block.
    history: Vec<KeysValues<B>>,
    /// `[requests, 1, 1, events]`, true on padding.
    hidden: Tensor<B, 4, Bool>,
    /// Keys and values of the last step's paths, one per decoder block; rows in grid order.
    past: Vec<KeysValues<B>>,
    /// The grid row of each path of the last `advance`.
    rows: Vec<usize>,
    /// Tokens in the paths of the last `advance`; none before the first.
    steps: Option<usize>,
}

/// Why the network could not answer.
#[derive(Debug, Error)]
pub enum ScorerError {
    /// The code table is not the one the network was made for.
    #[error("code table of {items} items, {codebooks} x {entries}: the network was made for {expected}")]
    Codes {
        /// Items of the table.
        items: usize,
        /// Its M.
        codebooks: usize,
        /// Its D.
        entries: usize,
        /// What the network expects, in words.
        expected: String,
    },
    /// A call that does not follow from the one before.
    #[error("{0}")]
    Sequence(&'static str),
    /// An item number past the table.
    #[error("history names item {0}, past the {1} items of the bundle")]
    Item(u32, usize),
    /// The device did not give its numbers back.
    #[error("reading from the device: {0}")]
    Device(String),
}

impl<B: Backend> NetworkScorer<B> {
    /// Wraps `network` for the items of `codes`.
    pub fn new(
        network: Network<B>,
        config: NetworkConfig,
        codes: &CodeTable,
        device: B::Device,
    ) -> Result<Self, ScorerError> {
        if codes.items() != config.items || codes.shape() != config.codes {
            return Err(ScorerError::Codes {
                items: codes.items(),
                codebooks: codes.shape().codebooks,
                entries: codes.shape().entries,
                expected: format!("{} items, {} x {}", config.items, config.codes.codebooks, config.codes.entries),
            });
        }
        let item_vectors = network.item_vectors(flat_codes(codes, &device));
        let residuals = floats(network.residuals())?;
        Ok(Self { network, config, item_vectors, residuals, device, batch: None })
    }

    /// Lengths are rounded up to a short list, so that a device that compiles kernels per shape sees few shapes.
    fn bucket(&self, longest: usize) -> usize {
        longest.next_power_of_two().max(8).min(self.config.max_history)
    }
}

/// Flat token numbers `r * D + j` of a code table, `[items * M]`.
pub fn flat_codes<B: Backend>(codes: &CodeTable, device: &B::Device) -> Tensor<B, 1, Int> {
    let shape = codes.shape();
    let flat: Vec<i32> = codes
        .entries()
        .iter()
        .enumerate()
        .map(|(at, &entry)| ((at % shape.codebooks) * shape.entries + usize::from(entry)) as i32)
        .collect();
    let length = flat.len();
    Tensor::from_data(TensorData::new(flat, [length]), device)
}

/// Histories as tensors, each cut to its last `length` events and padded at the end. The last event of each has place
/// `max_history - 1`, whatever the history's length.
pub fn encoder_batch<B: Backend>(
    histories: &[&[HistoryEntry]],
    length: usize,
    max_history: usize,
    device: &B::Device,
) -> EncoderBatch<B> {
    let cells = histories.len() * length;
    let (mut items, mut kinds, mut gaps, mut places) = (vec![0; cells], vec![0; cells], vec![0; cells], vec![0; cells]);
    for (row, history) in histories.iter().enumerate() {
        let recent = &history[history.len().saturating_sub(length)..];
        let mut before = recent.first().map_or(0, |event| event.time);
        for (column, event) in recent.iter().enumerate() {
            let at = row * length + column;
            items[at] = event.item as i32;
            kinds[at] = event.kind as i32;
            places[at] = (max_history - recent.len() + column) as i32;
            gaps[at] = NetworkConfig::time_gap(event.time.saturating_sub(before)) as i32;
            before = event.time;
        }
    }
    EncoderBatch::new(histories.len(), length, items, kinds, gaps, places, device)
}

fn floats<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<f32>, ScorerError> {
    tensor.into_data().convert::<f32>().into_vec::<f32>().map_err(|error| ScorerError::Device(format!("{error:?}")))
}

impl<B: Backend> PathModel for NetworkScorer<B> {
    type Error = ScorerError;

    fn shape(&self) -> CodeShape {
        self.config.codes
    }

    fn categories(&self) -> usize {
        self.config.categories
    }

    fn residuals(&self) -> Residuals<'_> {
        Residuals { rows: &self.residuals, width: self.config.width }
    }

    fn encode(&mut self, histories: &[&History]) -> Result<Vec<ItemQuery>, ScorerError> {
        let items = self.config.items;
        for history in histories {
            if history.is_empty() {
                return Err(ScorerError::Sequence("a history without events cannot be encoded"));
            }
            if let Some(event) = history.iter().find(|event| event.item as usize >= items) {
                return Err(ScorerError::Item(event.item, items));
            }
        }
        let requests = histories.len();
        let longest = histories.iter().map(|history| history.len()).max().unwrap_or(1);
        let length = self.bucket(longest);
        let lengths: Vec<usize> = histories.iter().map(|history| history.len().min(length)).collect();
        let slices: Vec<&[HistoryEntry]> = histories.iter().map(|history| history.as_slice()).collect();
        let batch = encoder_batch(&slices, length, self.config.max_history, &self.device);
        let states = self.network.encode(&batch, self.item_vectors.clone().select(0, batch.items.clone())); // [requests * length, d]

        let last: Vec<i32> = lengths.iter().enumerate().map(|(row, count)| (row * length + count - 1) as i32).collect();
        let last = Tensor::from_data(TensorData::new(last, [requests]), &self.device);
        let queries = states.clone().select(0, last); // [requests, d]
        let scores = self.network.token_scores(queries.clone()); // [requests, M * D]

        let padding: Vec<bool> =
            lengths.iter().flat_map(|&count| (0..length).map(move |column| column >= count)).collect();
        let hidden = Tensor::from_data(TensorData::new(padding, [requests, 1, 1, length]), &self.device);
        self.batch = Some(BatchState {
            requests,
            queries: queries.clone(),
            history: self.network.history_memory(states, requests),
            hidden,
            past: Vec::new(),
            rows: Vec::new(),
            steps: None,
        });

        let (scores, residual) = read_two(scores, queries)?;
        Ok((0..requests)
            .map(|row| ItemQuery {
                token_scores: row_of(&scores, self.config.codes.tokens(), row),
                residual: row_of(&residual, self.config.width, row),
            })
            .collect())
    }

    fn advance(&mut self, rows: &[Advance]) -> Result<Vec<PathState>, ScorerError> {
        let batch = self.batch.as_mut().ok_or(ScorerError::Sequence("advance before encode"))?;
        let grid = Grid::place(rows, batch.requests)?;
        let paths = grid.rows * batch.requests;
        let x = match batch.steps {
            None => {
                if rows.iter().any(|row| row.extends.is_some()) {
                    return Err(ScorerError::Sequence("the first advance of a batch begins paths"));
                }
                batch.steps = Some(0);
                // Paths are laid out by request, so many rows to each.
                let queries = batch.queries.clone().unsqueeze_dim::<3>(1).repeat_dim(1, grid.rows); // [requests, rows, d]
                self.network.begin_inputs(queries.reshape([paths, self.config.width]))
            }
            Some(steps) => {
                let (mut parents, mut tokens) = (vec![0i32; paths], vec![0i32; paths]);
                for (row, &at) in rows.iter().zip(&grid.places) {
                    let (parent, token) =
                        row.extends.ok_or(ScorerError::Sequence("a later advance extends the paths before it"))?;
                    let parent =
                        batch.rows.get(parent).ok_or(ScorerError::Sequence("advance extends a path that is not"))?;
                    parents[at] = *parent as i32;
                    tokens[at] = self.config.codes.flat(token) as i32;
                }
                let parents = Tensor::<B, 1, Int>::from_data(TensorData::new(parents, [paths]), &self.device);
                for layer in &mut batch.past {
                    layer.keys = layer.keys.clone().select(0, parents.clone());
                    layer.values = layer.values.clone().select(0, parents.clone());
                }
                batch.steps = Some(steps + 1);
                let tokens = Tensor::from_data(TensorData::new(tokens, [paths]), &self.device);
                self.network.token_inputs(self.network.tokens().select(0, tokens), steps + 1)
            }
        };
        let states = self.network.decode(x, paths, &mut batch.past, &batch.history, batch.hidden.clone()); // [paths, d]
        batch.rows = grid.places;

        let refinements = self.network.token_scores(self.network.refinements(states.clone())); // [paths, M * D]
        let beliefs = softmax(self.network.category_logits(states), 1); // [paths, categories]
        let (refinements, beliefs) = read_two(refinements, beliefs)?;
        Ok(batch
            .rows
            .iter()
            .map(|&at| PathState {
                token_refinements: row_of(&refinements, self.config.codes.tokens(), at),
                beliefs: row_of(&beliefs, self.config.categories, at),
            })
            .collect())
    }
}

/// Paths laid out so that every request has the same number of rows: its paths read its history as one block.
struct Grid {
    /// Rows of each request.
    rows: usize,
    /// The grid row of each path.
    places: Vec<usize>,
}

impl Grid {
    fn place(paths: &[Advance], requests: usize) -> Result<Self, ScorerError> {
        let mut counts = vec![0; requests];
        let mut within = Vec::with_capacity(paths.len());
        for path in paths {
            let count =
                counts.get_mut(path.request).ok_or(ScorerError::Sequence("advance names a request that is not"))?;
            within.push(*count);
            *count += 1;
        }
        let rows = counts.into_iter().max().unwrap_or(0).max(1);
        let places = paths.iter().zip(within).map(|(path, place)| path.request * rows + place).collect();
        Ok(Self { rows, places })
    }
}

/// Reads two tensors in one transaction with the device.
fn read_two<B: Backend, const D: usize, const E: usize>(
    first: Tensor<B, D>,
    second: Tensor<B, E>,
) -> Result<(Vec<f32>, Vec<f32>), ScorerError> {
    let mut data = Transaction::default().register(first).register(second).execute().into_iter();
    let mut next = || {
        data.next()
            .ok_or_else(|| ScorerError::Device("a tensor is missing from the transaction".into()))?
            .convert::<f32>()
            .into_vec::<f32>()
            .map_err(|error| ScorerError::Device(format!("{error:?}")))
    };
    Ok((next()?, next()?))
}

fn row_of(table: &[f32], width: usize, row: usize) -> Vec<f32> {
    table[row * width..(row + 1) * width].to_vec()
}

#[cfg(test)]
pub(crate) mod tests {
    use burn::backend::Flex;
    use burn::tensor::{Distribution, ElementConversion};

    use super::*;
    use crate::domain::{EventKind, Token};

    /// A network small enough to test with: 30 items, 4 codebooks of 8 entries.
    pub fn tiny() -> NetworkConfig {
        NetworkConfig {
            items: 30,
            categories: 5,
            codes: CodeShape { codebooks: 4, entries: 8 },
            reads_codes: true,
            own_residuals: true,
            feature_width: 3,
            width: 16,
            heads: 2,
            encoder_layers: 2,
            decoder_layers: 2,
            feed_forward: 32,
            max_history: 20,
            dropout: 0.0,
        }
    }

    fn codes() -> CodeTable {
        let entries = (0..30 * 4u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 20) as u16 % 8).collect();
        CodeTable::new(tiny().codes, entries).unwrap()
    }

    /// A scorer whose path heads and residuals are not zero, so that every part takes part.
    fn scorer() -> NetworkScorer<Flex> {
        let (config, device) = (tiny(), Default::default());
        let mut network = config.init::<Flex>(&device);
        network.residuals = network.residuals.map(|x| x.random_like(Distribution::Normal(0.0, 0.3)));
        network.refinement_head.weight =
            network.refinement_head.weight.map(|x| x.random_like(Distribution::Normal(0.0, 0.3)));
        NetworkScorer::new(network, config, &codes(), device).unwrap()
    }

    fn history(items: &[u32]) -> History {
        let entry = |(at, &item): (usize, &u32)| HistoryEntry { item, kind: EventKind::View, time: at as i64 * 1000 };
        items.iter().enumerate().map(entry).collect()
    }

    fn close(a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len());
        for (x, y) in a.iter().zip(b) {
            assert!((x - y).abs() < 1e-4 * (1.0 + x.abs()), "{x} and {y} differ");
        }
    }

    #[test]
    fn batched_histories_equal_single_ones() {
        let mut scorer = scorer();
        let histories = [history(&[3]), history(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]), history(&[29, 0])];
        let begin = |request| Advance { request, extends: None };
        let next = |request, parent, token| Advance { request, extends: Some((parent, token)) };
        let token = |codebook, entry| Token { codebook, entry };

        let together = scorer.encode(&histories.iter().collect::<Vec<_>>()).unwrap();
        let roots = scorer.advance(&[begin(0), begin(1), begin(2)]).unwrap();
        let first = scorer
            .advance(&[
                next(0, 0, token(1, 2)),
                next(2, 2, token(0, 7)),
                next(2, 2, token(3, 1)),
                next(1, 1, token(2, 0)),
            ])
            .unwrap();
        let second = scorer.advance(&[next(2, 2, token(0, 5)), next(2, 1, token(1, 1))]).unwrap();

        let alone = scorer.encode(&[&histories[2]]).unwrap();
        let root = scorer.advance(&[begin(0)]).unwrap();
        let step = scorer.advance(&[next(0, 0, token(3, 1))]).unwrap();
        let last = scorer.advance(&[next(0, 0, token(0, 5))]).unwrap();

        close(&together[2].token_scores, &alone[0].token_scores);
        close(&together[2].residual, &alone[0].residual);
        close(&roots[2].beliefs, &root[0].beliefs);
        close(&first[2].token_refinements, &step[0].token_refinements);
        close(&second[0].token_refinements, &last[0].token_refinements);
        close(&second[0].beliefs, &last[0].beliefs);
        assert!(first[1].token_refinements != first[2].token_refinements, "siblings must not share a state");
    }

    #[test]
    fn stepping_equals_one_pass_over_the_whole_path() {
        let mut scorer = scorer();
        let user = history(&[4, 9, 2]);
        let path = [Token { codebook: 2, entry: 3 }, Token { codebook: 0, entry: 6 }, Token { codebook: 1, entry: 1 }];
        scorer.encode(&[&user]).unwrap();
        let mut stepped = scorer.advance(&[Advance { request: 0, extends: None }]).unwrap();
        for token in path {
            stepped.extend(scorer.advance(&[Advance { request: 0, extends: Some((0, token)) }]).unwrap());
        }

        scorer.encode(&[&user]).unwrap();
        let state = scorer.batch.take().unwrap();
        let network = &scorer.network;
        let inputs: Vec<_> = std::iter::once(network.begin_inputs(state.queries))
            .chain(path.iter().enumerate().map(|(at, &token)| {
                let flat = scorer.config.codes.flat(token) as i32;
                let flat = Tensor::<Flex, 1, Int>::from_data(TensorData::new(vec![flat], [1]), &scorer.device);
                network.token_inputs(network.tokens().select(0, flat), at + 1)
            }))
            .collect();
        let x = Tensor::cat(inputs, 0); // [steps, d]
        let states = network.decode(x, 1, &mut Vec::new(), &state.history, state.hidden);
        let beliefs = floats(softmax(network.category_logits(states), 1)).unwrap();
        for (step, stepped) in stepped.iter().enumerate() {
            close(&stepped.beliefs, &row_of(&beliefs, 5, step));
        }
    }

    #[test]
    fn a_query_times_the_item_vectors_is_its_token_scores_plus_residual() {
        let mut scorer = scorer();
        let query = scorer.encode(&[&history(&[7, 8])]).unwrap().remove(0);
        let (codes, device) = (codes(), scorer.device);
        let vectors = scorer.network.item_vectors(flat_codes(&codes, &device));
        let batch = encoder_batch(&[&history(&[7, 8])], 2, scorer.config.max_history, &device);
        let states = scorer.network.encode(&batch, vectors.clone().select(0, batch.items.clone()));
        let product = floats(states.slice(1..2).matmul(vectors.transpose())).unwrap();
        let residuals = scorer.residuals();
        let sums: Vec<f32> = (0..30u32)
            .map(|item| {
                let tokens: f32 =
                    codes.code(item).iter().enumerate().map(|(r, &j)| query.token_scores[r * 8 + usize::from(j)]).sum();
                let row = row_of(residuals.rows, residuals.width, item as usize);
                tokens + row.iter().zip(&query.residual).map(|(e, u)| e * u).sum::<f32>()
            })
            .collect();
        close(&sums, &product);
    }

    #[test]
    fn calls_out_of_turn_and_foreign_items_are_errors() {
        let mut scorer = scorer();
        assert!(matches!(scorer.advance(&[Advance { request: 0, extends: None }]), Err(ScorerError::Sequence(_))));
        assert!(matches!(scorer.encode(&[&history(&[30])]), Err(ScorerError::Item(30, 30))));
        scorer.encode(&[&history(&[1])]).unwrap();
        assert!(scorer.advance(&[Advance { request: 1, extends: None }]).is_err());
    }

    #[test]
    fn fresh_path_heads_refine_nothing() {
        let (config, device) = (tiny(), Default::default());
        let mut scorer = NetworkScorer::new(config.init::<Flex>(&device), config, &codes(), device).unwrap();
        scorer.encode(&[&history(&[1, 2])]).unwrap();
        let state = scorer.advance(&[Advance { request: 0, extends: None }]).unwrap().remove(0);
        assert!(state.token_refinements.iter().all(|x| x.elem::<f32>() == 0.0));
        assert!((state.beliefs.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }
}
