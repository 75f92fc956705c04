//! The CPU's network as the search sees it.

use std::ops::Range;

use burn::tensor::backend::Backend;
use rayon::prelude::*;

use super::encoder::events;
use super::layers::Room;
use super::memory::EventMemory;
use super::network::{CpuNetwork, PathRow, Read, Said};
use crate::decode::{Advance, Margins, PathModel, PathState, Placement, TokenVectors, alone, threads_to_use};
use crate::domain::{CodeShape, CodeTable, History, HistoryEntry, ItemNumber, share_out};
use crate::model::placed::check_growth;
use crate::model::scorer::{ScorerError, check_codes, check_histories};
use crate::model::{Network, NetworkConfig};

/// Multiplications in the products of one thread's share, at least: some thirty microseconds.
const WORTH_A_THREAD: usize = 1 << 22;

/// Multiplications in the time of one by a number that is fetched from memory for it.
const AFAR: usize = 8;

/// A network in the CPU's own form, with what a batch leaves behind between `encode` and `advance`.
#[derive(Debug)]
pub struct CpuScorer {
    network: CpuNetwork,
    config: NetworkConfig,
    batch: Batch,
    /// One to a thread.
    rooms: Vec<Room>,
    keeps_attention: bool,
}

/// A batch on its way. Buffers stay as large as the largest batch needed.
#[derive(Debug, Default)]
struct Batch {
    requests: usize,
    /// h, `[requests, d]`.
    queries: Vec<f32>,
    /// For each request, for each block, its history; there may be more, of larger batches before.
    history: Vec<Vec<EventMemory>>,
    /// Whether it is of this batch: items are scored without it.
    has_history: bool,
    /// For each block the keys and values of all positions of all paths, `[positions, 2 * width of all heads]`.
    past: Vec<Vec<f32>>,
    /// The position before each position; none for `<BOS>`.
    parents: Vec<Option<usize>>,
    /// The positions of the last `advance`.
    last: Range<usize>,
    /// Tokens in the paths of the last `advance`; none before the first.
    steps: Option<usize>,
}

impl CpuScorer {
    /// `network` in the CPU's form, for the items of `codes`.
    ///
    /// # Errors
    /// A code table that the network was not made for, or a device that does not give its numbers back.
    pub fn new<B: Backend>(
        network: &Network<B>,
        config: NetworkConfig,
        codes: &CodeTable,
    ) -> Result<Self, ScorerError> {
        check_codes(&config, codes)?;
        let network = CpuNetwork::of(network, &config, codes)?;
        let batch = Batch { past: vec![Vec::new(); network.blocks()], ..Batch::default() };
        Ok(Self { network, config, batch, rooms: Vec::new(), keeps_attention: false })
    }

    /// How many threads share so many multiplications for some requests: more than one to a request only if nobody else is
    /// served meanwhile.
    fn threads(&mut self, work: usize, requests: usize) -> usize {
        let all = threads_to_use();
        let most = if alone() { all } else { requests.clamp(1, all) };
        let threads = (work / WORTH_A_THREAD).clamp(1, most);
        self.rooms.resize_with(threads.max(self.rooms.len()), Room::default);
        threads
    }

    /// Reads histories; `for_paths`: with what paths read of them.
    fn read(&mut self, histories: &[&History], for_paths: bool) -> Result<(), ScorerError> {
        check_histories(histories, self.config.items)?;
        let most = self.config.max_history;
        let recent: Vec<&[HistoryEntry]> =
            histories.iter().map(|history| &history[history.len().saturating_sub(most)..]).collect();
        let work = events(&recent) * self.network.event_work(for_paths);
        let (width, threads) = (self.config.width, self.threads(work, recent.len()));
        let Self { network, batch, rooms, .. } = self;
        batch.begin(recent.len(), width, for_paths);

        let shares = threads.min(recent.len().max(1));
        let (share, team) = (recent.len().div_ceil(shares).max(1), threads / shares);
        let queries = batch.queries.chunks_mut(share * width);
        let memory = batch.history[..recent.len()].chunks_mut(share);
        let work = recent.chunks(share).zip(rooms.chunks_mut(team)).zip(queries).zip(memory).collect();
        by_pool(work, |(((histories, rooms), queries), memory)| {
            network.encode(histories, rooms, queries, for_paths.then_some(memory));
        });
        Ok(())
    }
}

impl PathModel for CpuScorer {
    type Error = ScorerError;

    fn shape(&self) -> CodeShape {
        self.config.codes
    }

    fn categories(&self) -> usize {
        self.config.categories
    }

    fn token_vectors(&self) -> TokenVectors<'_> {
        let sums = self.network.token_sums.as_deref();
        TokenVectors { rows: &self.network.tokens, width: self.config.width, sums }
    }

    fn keep_attention(&mut self, keep: bool) {
        self.keeps_attention = keep;
    }

    fn encode(&mut self, histories: &[&History]) -> Result<(), ScorerError> {
        self.read(histories, true)
    }

    fn encode_for_scores(&mut self, histories: &[&History]) -> Result<(), ScorerError> {
        self.read(histories, false)
    }

    fn score_items(&mut self, requests: Range<usize>, scores: &mut [f32]) -> Result<(), ScorerError> {
        let threads = self.threads(requests.len() * self.network.items.work(), requests.len());
        let queries = self.batch.queries_of(requests, scores.len(), &self.config)?;
        self.network.items.score(&self.network.tokens, queries, self.config.width, scores, threads);
        Ok(())
    }

    fn score_items_nearly(&mut self, requests: Range<usize>, scores: &mut [f32]) -> Result<bool, ScorerError> {
        let threads = self.threads(requests.len() * self.network.items.work(), requests.len());
        let queries = self.batch.queries_of(requests, scores.len(), &self.config)?;
        let CpuNetwork { items, tokens, .. } = &mut self.network;
        Ok(items.score_nearly(tokens, queries, self.config.width, scores, threads))
    }

    fn margins(&self, request: usize) -> Margins<'_> {
        let query = &self.batch.queries[request * self.config.width..][..self.config.width];
        let length = query.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
        let (items, widest) = self.network.items.margins();
        // Rounded up.
        Margins { factor: (length * 1.000_1) as f32, items, widest }
    }

    fn score_these(&mut self, request: usize, numbers: &[ItemNumber], scores: &mut [f32]) -> Result<(), ScorerError> {
        let threads = self.threads(numbers.len() * self.config.width * AFAR, 1);
        let queries = self.batch.queries_of(request..request + 1, scores.len(), &self.config)?;
        self.network.items.score_these(queries, numbers, scores, threads);
        Ok(())
    }

    fn advance(&mut self, rows: &[Advance], beliefs: bool) -> Result<Vec<PathState>, ScorerError> {
        let rows = self.batch.rows(rows, self.config.codes)?;
        let (width, categories) = (self.config.width, if beliefs { self.config.categories } else { 0 });
        let most = if self.keeps_attention { self.config.max_history } else { 0 };
        let threads = self.threads(rows.len() * self.network.path_work(), self.batch.requests);
        let Self { network, batch, rooms, .. } = self;
        let inner = self.config.attention_width();
        let step = batch.extend(&rows, inner);

        let mut refinements = vec![0.0; rows.len() * width];
        let mut found = vec![0.0; rows.len() * categories];
        let mut looked = vec![0.0; rows.len() * most];
        let (mut past, mut new) = (Vec::new(), Vec::new());
        for block in &mut batch.past {
            let (before, here) = block.split_at_mut(batch.last.start * 2 * inner);
            past.push(&*before);
            new.push(here);
        }
        let read = Read { step, queries: &batch.queries, history: &batch.history, past, parents: &batch.parents };
        let share = rows.len().div_ceil(threads).max(1);
        let (mut refined, mut believed, mut attended) = (&mut refinements[..], &mut found[..], &mut looked[..]);
        let mut work = Vec::with_capacity(threads);
        for (rows, room) in rows.chunks(share).zip(rooms) {
            let new: Vec<_> = new.iter_mut().map(|block| take(block, rows.len() * 2 * inner)).collect();
            let said = Said {
                refinements: take(&mut refined, rows.len() * width),
                beliefs: take(&mut believed, rows.len() * categories),
                attention: take(&mut attended, rows.len() * most),
            };
            work.push((rows, room, new, said));
        }
        let decode = |(rows, room, mut new, said): (_, _, Vec<_>, _)| network.decode(rows, &read, room, &mut new, said);
        if batch.requests == 1 {
            share_out(work, decode)
        } else {
            by_pool(work, decode)
        }
        let events = |row: usize| batch.history[rows[row].request].first().map_or(0, EventMemory::events).min(most);
        let state = |row: usize| PathState {
            refinement: refinements[row * width..(row + 1) * width].to_vec(),
            beliefs: found[row * categories..(row + 1) * categories].to_vec(),
            attention: looked[row * most..][..events(row)].to_vec(),
        };
        Ok((0..rows.len()).map(state).collect())
    }

    fn place(&mut self, codes: &CodeTable, placed: &[Placement]) -> Result<(), ScorerError> {
        check_growth(&self.config, codes, placed)?;
        self.config.items = codes.items();
        self.network.place(codes, placed);
        Ok(())
    }
}

impl Batch {
    /// Forgets the batch before and makes room for another.
    fn begin(&mut self, requests: usize, width: usize, has_history: bool) {
        (self.requests, self.has_history) = (requests, has_history);
        self.queries.resize(requests * width, 0.0);
        self.history.resize_with(requests.max(self.history.len()), Vec::new);
        self.past.iter_mut().for_each(Vec::clear);
        self.parents.clear();
        (self.last, self.steps) = (0..0, None);
    }

    /// h of some requests, `[requests, d]`, which `scores` numbers are asked for.
    fn queries_of(&self, requests: Range<usize>, scores: usize, config: &NetworkConfig) -> Result<&[f32], ScorerError> {
        if requests.end > self.requests || scores != requests.len() * config.items {
            return Err(ScorerError::Sequence("items are scored for requests that are not"));
        }
        Ok(&self.queries[requests.start * config.width..requests.end * config.width])
    }

    /// The rows of an advance, checked against what came before.
    fn rows(&self, rows: &[Advance], codes: CodeShape) -> Result<Vec<PathRow>, ScorerError> {
        if !self.has_history {
            return Err(ScorerError::Sequence("advance after histories were read for scores alone"));
        }
        let row = |row: &Advance| {
            if row.request >= self.requests {
                return Err(ScorerError::Sequence("advance names a request that is not"));
            }
            let (token, parent) = match (self.steps, row.extends) {
                (None, None) => (None, None),
                (None, Some(_)) => return Err(ScorerError::Sequence("the first advance of a batch begins paths")),
                (Some(_), None) => return Err(ScorerError::Sequence("a later advance extends the paths before it")),
                (Some(_), Some((parent, token))) => {
                    let parent = self.last.clone().nth(parent);
                    let parent = parent.ok_or(ScorerError::Sequence("advance extends a path that is not"))?;
                    (Some(codes.flat(token)), Some(parent))
                }
            };
            if token.is_some_and(|token| token >= codes.tokens()) || self.steps >= Some(codes.codebooks) {
                return Err(ScorerError::Sequence("advance names a token that is not, or one too many"));
            }
            Ok(PathRow { token, request: row.request, parent })
        };
        rows.iter().map(row).collect()
    }

    /// Makes room for one position more of each row, its keys `width` wide; answers the tokens in each path then.
    fn extend(&mut self, rows: &[PathRow], width: usize) -> usize {
        self.last = self.parents.len()..self.parents.len() + rows.len();
        self.parents.extend(rows.iter().map(|row| row.parent));
        self.past.iter_mut().for_each(|block| block.resize(self.last.end * 2 * width, 0.0));
        let step = self.steps.map_or(0, |steps| steps + 1);
        self.steps = Some(step);
        step
    }
}

/// Cuts the first `len` numbers off.
fn take<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (first, others) = std::mem::take(rest).split_at_mut(len);
    *rest = others;
    first
}

/// Each share by a thread of the pool, for long ones; a single share by this thread.
fn by_pool<T: Send>(shares: Vec<T>, run: impl Fn(T) + Send + Sync) {
    if shares.len() == 1 {
        shares.into_iter().for_each(run);
    } else {
        shares.into_par_iter().for_each(run);
    }
}
