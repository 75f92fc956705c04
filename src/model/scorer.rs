//! The network as the search sees it: histories in, queries and path states out, state kept between the steps.

use std::ops::Range;

use burn::tensor::activation::softmax;
use burn::tensor::backend::{Backend, ExecutionError};
use burn::tensor::{Bool, DType, Int, Tensor, TensorData, Transaction};
use thiserror::Error;

use super::attention::KeysValues;
use super::config::NetworkConfig;
use super::network::{EncoderBatch, Network};
use super::placed::{check_growth, drawn_mean};
use super::token_sums::token_sum;
use crate::decode::{Advance, PathModel, PathState, Placement, Shape, TokenVectors};
use crate::domain::{CodeShape, CodeTable, History, HistoryEntry, breathe};

/// A network with everything that does not change between requests computed once.
#[derive(Debug)]
pub struct NetworkScorer<B: Backend> {
    network: Network<B>,
    config: NetworkConfig,
    /// v_i of every item, `[items, d]`.
    item_vectors: Tensor<B, 2>,
    /// Z, `[M * D, d]`.
    tokens: Vec<f32>,
    /// What encoder and decoder compute with. Items are scored, and tokens refined, in fp32.
    precision: DType,
    pub(super) device: B::Device,
    keeps_attention: bool,
    batch: Option<BatchState<B>>,
}

/// What a batch leaves behind between `encode` and `advance`.
#[derive(Debug)]
struct BatchState<B: Backend> {
    requests: usize,
    /// Rows of the tensors, of which the last ones may belong to nobody: see [`rounded`].
    rows_of_requests: usize,
    /// Events of each history.
    lengths: Vec<usize>,
    /// h of each request, `[rows_of_requests, d]`, fp32.
    queries: Tensor<B, 2>,
    /// Keys and values of the histories, one per decoder block.
    history: Vec<KeysValues<B>>,
    /// `[rows_of_requests, 1, 1, events]`, true on padding.
    hidden: Tensor<B, 4, Bool>,
    /// Keys and values of the last step's paths, one per decoder block; rows in grid order.
    past: Vec<KeysValues<B>>,
    /// The grid row of each path of the last `advance`.
    rows: Vec<usize>,
    /// Tokens in the paths of the last `advance`; none before the first.
    steps: Option<usize>,
}

/// What the decoder says of new positions, in the order of a grid that has as many rows for every request.
pub(super) struct Read<B: Backend> {
    /// d_t, `[grid rows, d]`.
    pub(super) states: Tensor<B, 2>,
    /// The grid row that each one extends, of the grid before; none of `<BOS>`.
    #[cfg(any(feature = "gpu", test))]
    pub(super) parents: Option<Tensor<B, 1, Int>>,
    /// How much each one looks at each event, summed over blocks, `[requests, heads, rows, events]`, where that is kept.
    looked: Option<Tensor<B, 4>>,
    /// The grid row of each path that was asked for.
    pub(super) places: Vec<usize>,
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
        check_codes(&config, codes)?;
        let item_vectors = network.item_vectors(flat_codes(codes, &device));
        let tokens = floats(network.tokens())?;
        let precision = DType::F32;
        Ok(Self { network, config, item_vectors, tokens, precision, device, keeps_attention: false, batch: None })
    }

    /// The same with encoder and decoder in another precision: as many numbers, each with fewer digits.
    pub fn with_precision(mut self, precision: DType) -> Self {
        self.network = self.network.cast(precision);
        self.precision = precision;
        self
    }

    /// Events that histories are filled up to, the longest of which has so many.
    fn bucket(&self, longest: usize) -> usize {
        rounded(longest, LEAST).min(self.config.max_history)
    }

    /// Reads one token more of each path, and remembers its keys and values.
    pub(super) fn read_tokens(&mut self, rows: &[Advance]) -> Result<Read<B>, ScorerError> {
        let batch = self.batch.as_mut().ok_or(ScorerError::Sequence("advance before encode"))?;
        let grid = Grid::place(rows, batch.requests)?;
        let paths = grid.rows * batch.rows_of_requests;
        #[cfg(any(feature = "gpu", test))]
        let mut extended = None;
        let x = match batch.steps {
            None => {
                if rows.iter().any(|row| row.extends.is_some()) {
                    return Err(ScorerError::Sequence("the first advance of a batch begins paths"));
                }
                batch.steps = Some(0);
                // Paths are laid out by request, so many rows to each.
                let queries = batch.queries.clone().unsqueeze_dim::<3>(1).repeat_dim(1, grid.rows); // [.., grid.rows, d]
                self.network.begin_inputs(queries.reshape([paths, self.config.width]).cast(self.precision))
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
                #[cfg(any(feature = "gpu", test))]
                extended.replace(parents);
                batch.steps = Some(steps + 1);
                let tokens = Tensor::from_data(TensorData::new(tokens, [paths]), &self.device);
                self.network.token_inputs(self.network.tokens().select(0, tokens), steps + 1)
            }
        };
        let mut looked: Option<Tensor<B, 4>> = None;
        let keeps = self.keeps_attention;
        let look = &mut |block: Tensor<B, 4>| {
            if keeps {
                looked = Some(looked.take().map_or(block.clone(), |before| before + block));
            }
        };
        let (history, hidden) = (&batch.history, batch.hidden.clone());
        let states = self.network.decode_looking(x, paths, &mut batch.past, history, hidden, look); // [paths, d]
        batch.rows.clone_from(&grid.places);
        Ok(Read {
            states,
            #[cfg(any(feature = "gpu", test))]
            parents: extended,
            looked,
            places: grid.places,
        })
    }

    /// c_t of decoder states, `[rows, d]` to `[rows, categories]`, fp32.
    pub(super) fn beliefs(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        softmax(self.network.category_logits(states).cast(DType::F32), 1)
    }
}

/// What a device that goes through candidates itself asks besides.
#[cfg(any(feature = "gpu", test))]
impl<B: Backend> NetworkScorer<B> {
    /// s(i) of every item for the rows that requests are filled up to, `[rows, items]`.
    pub(super) fn all_scores(&self) -> Result<Tensor<B, 2>, ScorerError> {
        let batch = self.batch.as_ref().ok_or(ScorerError::Sequence("items are scored before encode"))?;
        Ok(batch.queries.clone().matmul(self.item_vectors.clone().transpose()))
    }

    /// Requests of the last `encode`.
    pub(super) fn requests(&self) -> usize {
        self.batch.as_ref().map_or(0, |batch| batch.requests)
    }

    /// What they are filled up to.
    pub(super) fn rows_of_requests(&self) -> usize {
        self.batch.as_ref().map_or(0, |batch| batch.rows_of_requests)
    }

    /// g(d_t) of decoder states, `[rows, d]` to `[rows, d]`, fp32.
    pub(super) fn refinements(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        self.network.refinements(states).cast(DType::F32)
    }
}

/// Events, and a request's paths where it has several, are rounded up to so many at least.
const LEAST: usize = 8;

/// Sizes are rounded up to powers of two, so that a device that chooses its kernels by shape sees few shapes. What fills them
/// up is worked out and not read.
fn rounded(count: usize, least: usize) -> usize {
    count.max(least).next_power_of_two()
}

/// Every size that [`rounded`] makes of 1 to `most`.
fn all_rounded(most: usize, least: usize) -> Vec<usize> {
    let sizes = std::iter::successors(Some(rounded(1, least)), |size| Some(size * 2));
    sizes.take_while(|&size| size <= rounded(most, least)).collect()
}

/// Refuses a code table that the network was not made for.
pub(super) fn check_codes(config: &NetworkConfig, codes: &CodeTable) -> Result<(), ScorerError> {
    if codes.items() == config.items && codes.shape() == config.codes {
        return Ok(());
    }
    Err(ScorerError::Codes {
        items: codes.items(),
        codebooks: codes.shape().codebooks,
        entries: codes.shape().entries,
        expected: format!("{} items, {} x {}", config.items, config.codes.codebooks, config.codes.entries),
    })
}

/// Refuses histories that cannot be encoded.
pub(super) fn check_histories(histories: &[&History], items: usize) -> Result<(), ScorerError> {
    for history in histories {
        if history.is_empty() {
            return Err(ScorerError::Sequence("a history without events cannot be encoded"));
        }
        if let Some(event) = history.iter().find(|event| event.item as usize >= items) {
            return Err(ScorerError::Item(event.item, items));
        }
    }
    Ok(())
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

pub(super) fn floats<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<f32>, ScorerError> {
    breathe();
    let data = tensor.try_into_data().map_err(broken)?;
    data.convert::<f32>().into_vec::<f32>().map_err(|error| ScorerError::Device(format!("{error:?}")))
}

impl<B: Backend> PathModel for NetworkScorer<B> {
    type Error = ScorerError;

    fn shape(&self) -> CodeShape {
        self.config.codes
    }

    fn categories(&self) -> usize {
        self.config.categories
    }

    fn token_vectors(&self) -> TokenVectors<'_> {
        TokenVectors { rows: &self.tokens, width: self.config.width, sums: None }
    }

    fn shapes(&self, most: Shape) -> Vec<Shape> {
        let longest = most.events.min(self.config.max_history);
        let mut events: Vec<usize> = all_rounded(longest, LEAST).iter().map(|&events| self.bucket(events)).collect();
        events.dedup();
        let shape = |requests: usize, events: usize, paths: usize| Shape { requests, events, paths };
        let of_paths = |requests, events| {
            all_rounded(most.paths, LEAST).into_iter().map(move |paths| shape(requests, events, paths))
        };
        let requests = all_rounded(most.requests, 1).into_iter();
        requests.flat_map(|requests| events.iter().flat_map(move |&events| of_paths(requests, events))).collect()
    }

    fn keep_attention(&mut self, keep: bool) {
        self.keeps_attention = keep;
    }

    fn encode(&mut self, histories: &[&History]) -> Result<(), ScorerError> {
        check_histories(histories, self.config.items)?;
        let requests = histories.len();
        let rows = if requests == 0 { 0 } else { rounded(requests, 1) };
        let longest = histories.iter().map(|history| history.len()).max().unwrap_or(1);
        let length = self.bucket(longest);
        // The rows of nobody repeat others.
        let slices: Vec<&[HistoryEntry]> =
            histories.iter().cycle().take(rows).map(|history| history.as_slice()).collect();
        let lengths: Vec<usize> = slices.iter().map(|history| history.len().min(length)).collect();
        let batch = encoder_batch(&slices, length, self.config.max_history, &self.device);
        let inputs = self.item_vectors.clone().select(0, batch.items.clone()).cast(self.precision);
        let states = self.network.encode(&batch, inputs); // [rows * length, d]

        let last: Vec<i32> = lengths.iter().enumerate().map(|(row, count)| (row * length + count - 1) as i32).collect();
        let last = Tensor::from_data(TensorData::new(last, [rows]), &self.device);
        let queries = states.clone().select(0, last).cast(DType::F32); // [rows, d]

        let padding: Vec<bool> =
            lengths.iter().flat_map(|&count| (0..length).map(move |column| column >= count)).collect();
        let hidden = Tensor::from_data(TensorData::new(padding, [rows, 1, 1, length]), &self.device);
        self.batch = Some(BatchState {
            requests,
            rows_of_requests: rows,
            lengths,
            queries,
            history: self.network.history_memory(states, rows),
            hidden,
            past: Vec::new(),
            rows: Vec::new(),
            steps: None,
        });

        Ok(())
    }

    fn score_items(&mut self, requests: Range<usize>, scores: &mut [f32]) -> Result<(), ScorerError> {
        let batch = self.batch.as_ref().ok_or(ScorerError::Sequence("items are scored before encode"))?;
        if requests.end > batch.requests || scores.len() != requests.len() * self.config.items {
            return Err(ScorerError::Sequence("items are scored for requests that are not"));
        }
        if requests.is_empty() {
            return Ok(());
        }
        let end = (requests.start + rounded(requests.len(), 1)).min(batch.rows_of_requests);
        let queries = batch.queries.clone().slice(requests.start..end); // [rows, d]
        let found = floats(queries.matmul(self.item_vectors.clone().transpose()))?;
        scores.copy_from_slice(&found[..scores.len()]);
        Ok(())
    }

    fn advance(&mut self, rows: &[Advance], beliefs: bool) -> Result<Vec<PathState>, ScorerError> {
        let Read { states, looked, places, .. } = self.read_tokens(rows)?;
        let batch = self.batch.as_ref().ok_or(ScorerError::Sequence("advance before encode"))?;
        let (most, paths) = (batch.hidden.dims()[3], states.dims()[0]);
        // The mean over heads and blocks, [paths, events].
        let mean = |sum: Tensor<B, 4>| (sum.mean_dim(1) / batch.history.len() as f32).reshape([paths, most]);
        let looked = looked.map(|sum| floats(mean(sum))).transpose()?;

        let refinements = self.network.refinements(states.clone()); // [paths, d]
        let (refinements, found) = if beliefs {
            read_two(refinements, self.beliefs(states))? // [paths, categories]
        } else {
            (floats(refinements)?, Vec::new())
        };
        let rows_of_each = paths / batch.rows_of_requests;
        let state = |&at: &usize| PathState {
            refinement: row_of(&refinements, self.config.width, at),
            beliefs: if beliefs { row_of(&found, self.config.categories, at) } else { Vec::new() },
            attention: match &looked {
                Some(looked) => row_of(looked, most, at)[..batch.lengths[at / rows_of_each]].to_vec(),
                None => Vec::new(),
            },
        };
        Ok(places.iter().map(state).collect())
    }

    fn place(&mut self, codes: &CodeTable, placed: &[Placement]) -> Result<(), ScorerError> {
        check_growth(&self.config, codes, placed)?;
        let (width, before) = (self.config.width, self.config.items);
        if codes.items() > before {
            let room = Tensor::zeros([codes.items() - before, width], &self.device);
            self.item_vectors = Tensor::cat(vec![self.item_vectors.clone(), room], 0);
        }
        for placement in placed {
            let numbers: Vec<i32> = placement.like.iter().map(|&(item, _)| item as i32).collect();
            let vector = if numbers.is_empty() {
                token_sum(&self.tokens, width, codes, placement.item)
            } else {
                let count = numbers.len();
                let numbers = Tensor::<B, 1, Int>::from_data(TensorData::new(numbers, [count]), &self.device);
                let rows = floats(self.item_vectors.clone().select(0, numbers))?;
                let like: Vec<(&[f32], f32)> =
                    rows.chunks_exact(width).zip(&placement.like).map(|(row, &(_, share))| (row, share)).collect();
                drawn_mean(&like).unwrap_or_default()
            };
            let row = Tensor::<B, 2>::from_data(TensorData::new(vector, [1, width]), &self.device);
            let at = placement.item as usize;
            // Taken out, so that the table is not shared while it is written.
            let table = std::mem::replace(&mut self.item_vectors, Tensor::zeros([1, 1], &self.device));
            self.item_vectors = table.slice_assign([at..at + 1, 0..width], row);
        }
        self.config.items = codes.items();
        Ok(())
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
        let rows = match counts.into_iter().max().unwrap_or(0) {
            // The first step has one row, and is worth a shape of its own.
            0 | 1 => 1,
            most => rounded(most, LEAST),
        };
        let places = paths.iter().zip(within).map(|(path, place)| path.request * rows + place).collect();
        Ok(Self { rows, places })
    }
}

/// What a device says when it fails, without the source of a kernel that it could not compile.
pub(super) fn broken(error: ExecutionError) -> ScorerError {
    let said = error.to_string();
    ScorerError::Device(said.split("[Source]").next().unwrap_or_default().trim_end().to_owned())
}

/// Reads two tensors in one transaction with the device.
fn read_two<B: Backend, const D: usize, const E: usize>(
    first: Tensor<B, D>,
    second: Tensor<B, E>,
) -> Result<(Vec<f32>, Vec<f32>), ScorerError> {
    let read = Transaction::default().register(first).register(second).try_execute();
    let mut data = read.map_err(broken)?.into_iter();
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
#[path = "scorer_tests.rs"]
pub(crate) mod tests;
