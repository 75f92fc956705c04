//! The network as the search sees it where candidates are on the device.

use std::f32::consts::LN_2;
use std::ops::Range;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData, Transaction};

use super::tables::{Tables, numbers};
use super::told::{make_out, stride};
use super::{ABOUT, Kernels, NONE, Opened, Paths, Roots};
use crate::decode::{
    Advance, Ask, Depth, Opening, PathModel, PathState, Placement, ResidentModel, Shape, Step, TokenVectors,
};
use crate::domain::{CodeShape, CodeTable, History, breathe};
use crate::model::scorer::{NetworkScorer, Read, ScorerError, broken};

/// Most entries of a codebook whose tokens one cube of a device weighs side by side.
const MOST_ENTRIES: usize = 1024;

/// Most products of path states with tokens that are held at once: 64 MiB. Wider steps are read a part at a time; in tests all
/// but the narrowest are.
const MOST_PRODUCTS: usize = if cfg!(test) { 1 << 10 } else { 1 << 24 };

/// A network, and the catalogue beside it.
#[derive(Debug)]
pub struct DeviceScorer<B: Backend> {
    scorer: NetworkScorer<B>,
    tables: Tables<B>,
    /// Z, `[d, M * D]`, fp32.
    tokens: Tensor<B, 2>,
    /// What the requests of the last `open` may be answered.
    allowed: Option<Allowed<B>>,
    last: Option<Last<B>>,
}

/// Until `<BOS>` is read.
#[derive(Debug)]
struct Allowed<B: Backend> {
    eligible: Tensor<B, 1, Int>,
    bias: Tensor<B, 1>,
    rows_of_bias: Tensor<B, 1, Int>,
    shortlists: Option<Tensor<B, 1, Int>>,
}

/// What a step leaves for the next.
#[derive(Debug)]
struct Last<B: Backend> {
    /// s(i) as [`Opened::scores`].
    scores: Tensor<B, 2>,
    /// d_t, in the order of the grid.
    states: Tensor<B, 2>,
    /// c_t, where it was asked for.
    beliefs: Option<Tensor<B, 2>>,
    /// The entries of every path, `[paths * M]`.
    entries: Vec<u32>,
}

impl<B: Kernels> DeviceScorer<B> {
    /// Puts the catalogue of `codes` beside a network that was made for it.
    pub fn new(scorer: NetworkScorer<B>, codes: &CodeTable) -> Self {
        let (rows, width) = (scorer.token_vectors().rows.to_vec(), scorer.token_vectors().width);
        let tokens = Tensor::from_data(TensorData::new(rows, [codes.shape().tokens(), width]), &scorer.device);
        let tables = Tables::new(codes, &scorer.device);
        Self { scorer, tables, tokens: tokens.transpose(), allowed: None, last: None }
    }

    /// Children told of each path, of which `wanted` are looked at.
    fn most(&self, wanted: usize) -> usize {
        wanted.min(self.tables.shape.entries)
    }

    /// The entries of every path, and how the device is told of it. `first` is the grid row that its table begins with, `told`
    /// the numbers that are told of paths before candidates.
    fn lay_out(
        &self,
        asks: &[Ask],
        before: &[u32],
        places: &[usize],
        first: usize,
        told: usize,
    ) -> Result<Laid, ScorerError> {
        let codebooks = self.tables.shape.codebooks;
        let mut laid = Laid { entries: vec![NONE; asks.len() * codebooks], paths: Vec::new(), told };
        laid.paths.reserve(asks.len() * (ABOUT + codebooks));
        let rows = laid.entries.chunks_exact_mut(codebooks);
        for ((ask, &place), entries) in asks.iter().zip(places).zip(rows) {
            let Some((parent, token)) = ask.path.extends else {
                return Err(ScorerError::Sequence("a later read extends the paths before it"));
            };
            let parent = before.chunks_exact(codebooks).nth(parent);
            entries.copy_from_slice(parent.ok_or(ScorerError::Sequence("read extends a path that is not"))?);
            let entry = entries.get_mut(usize::from(token.codebook));
            *entry.ok_or(ScorerError::Sequence("read extends a path by a codebook that is not"))? =
                u32::from(token.entry);
            let flat = |(r, &entry): (usize, &u32)| (entry != NONE).then(|| self.flat(r, entry));
            let held = entries.iter().enumerate().filter_map(flat);
            // The token that the fewest hold, so that few are gone through.
            let lead = held.min_by_key(|&token| self.tables.holders_of(token)).unwrap_or(0);
            let listed = match ask.listed {
                Some(count) => {
                    laid.told += 2 * count;
                    (laid.told - 2 * count) as u32
                }
                None => NONE,
            };
            laid.paths.extend([ask.path.request as u32, (place - first) as u32, lead as u32, listed]);
            laid.paths.extend_from_slice(entries);
        }
        Ok(laid)
    }

    /// `<BOS>` of every request of the last `open`.
    fn read_roots(&mut self, asks: &[Ask], refinements: Tensor<B, 2>, most: usize) -> Result<Opened<B>, ScorerError> {
        let Allowed { eligible, bias, rows_of_bias, shortlists } =
            self.allowed.take().ok_or(ScorerError::Sequence("read before open"))?;
        let in_order = asks.iter().enumerate().all(|(at, ask)| ask.path.request == at && ask.listed.is_none());
        if !in_order || asks.len() != self.scorer.requests() {
            return Err(ScorerError::Sequence("the first read begins every request, and lists none"));
        }
        let (tables, scores) = (&self.tables, self.scorer.all_scores()?);
        let table = refinements.matmul(self.tokens.clone()); // [requests, M * D]
        Ok(B::open(Roots { tables, scores, table, eligible, bias, rows_of_bias, shortlists, most }))
    }

    fn flat(&self, codebook: usize, entry: u32) -> usize {
        codebook * self.tables.shape.entries + (entry as usize).min(self.tables.shape.entries - 1)
    }

    /// JS of each belief to the one that its path extends, in nats; by rows of the grid.
    fn divergences(&self, now: Tensor<B, 2>, last: &Last<B>, parents: Tensor<B, 1, Int>) -> Tensor<B, 1> {
        let before = last.beliefs.clone().unwrap_or_else(|| self.scorer.beliefs(last.states.clone()));
        let before = before.select(0, parents);
        let rows = now.dims()[0];
        let log = |x: Tensor<B, 2>| x.clamp_min(1e-30).log();
        let middle = log((now.clone() + before.clone()) * 0.5);
        let of = |p: Tensor<B, 2>| p.clone() * (log(p) - middle.clone());
        ((of(now.clone()) + of(before)) * 0.5).sum_dim(1).reshape([rows])
    }
}

/// Paths as the device is told of them.
struct Laid {
    entries: Vec<u32>,
    paths: Vec<u32>,
    /// Numbers told in all.
    told: usize,
}

impl<B: Kernels> ResidentModel for DeviceScorer<B> {
    type Error = ScorerError;

    fn open(&mut self, requests: &[Opening<'_>]) -> Result<(), ScorerError> {
        if requests.len() != self.scorer.requests() {
            return Err(ScorerError::Sequence("other requests are opened than were encoded"));
        }
        let (items, device) = (self.tables.items, &self.scorer.device);
        let rows = self.scorer.rows_of_requests();
        let words = items.div_ceil(32);
        let mut eligible = vec![0u32; rows * words];
        let (mut bias, mut rows_of_bias) = (Vec::new(), vec![NONE; rows]);
        for (at, (opening, bits)) in requests.iter().zip(eligible.chunks_exact_mut(words.max(1))).enumerate() {
            let halves = opening.eligible.iter().flat_map(|&word| [word as u32, (word >> 32) as u32]);
            bits.iter_mut().zip(halves).for_each(|(place, half)| *place = half);
            if let Some(nats) = &opening.bias {
                if nats.len() != items {
                    return Err(ScorerError::Sequence("a bias has not one number for each item"));
                }
                rows_of_bias[at] = (bias.len() / items) as u32;
                bias.extend_from_slice(nats);
            }
        }
        bias.resize(bias.len().max(1), 0.0);
        let count = bias.len();
        let shortlist = |at: usize| requests.get(at).and_then(|opening| opening.shortlist).unwrap_or(items) as u32;
        let shortened = requests.iter().any(|opening| opening.shortlist.is_some());
        self.allowed = Some(Allowed {
            eligible: numbers(eligible, device),
            bias: Tensor::from_data(TensorData::new(bias, [count]), device),
            rows_of_bias: numbers(rows_of_bias, device),
            shortlists: shortened.then(|| numbers((0..rows).flat_map(|at| [0, shortlist(at)]), device)),
        });
        self.last = None;
        Ok(())
    }

    fn read(&mut self, asks: &[Ask], depth: Depth) -> Result<Step, ScorerError> {
        if !asks.is_sorted_by_key(|ask| ask.path.request) {
            return Err(ScorerError::Sequence("paths are read in another order than their requests"));
        }
        let rows: Vec<Advance> = asks.iter().map(|ask| ask.path).collect();
        let most = self.most(depth.children);
        let Read { states, parents, places, .. } = self.scorer.read_tokens(&rows)?;
        let refinements = self.scorer.refinements(states.clone()); // [grid rows, d]
        let (mut beliefs, mut divergences) = (None, None);
        // Of so many asks each.
        let mut told: Vec<(usize, Tensor<B, 1, Int>)> = Vec::new();
        let mut entries = Vec::with_capacity(asks.len() * self.tables.shape.codebooks);
        let scores = match (self.last.take(), parents) {
            (None, None) => {
                let opened = self.read_roots(asks, refinements, most)?;
                entries.resize(asks.len() * self.tables.shape.codebooks, NONE);
                told.push((asks.len(), opened.told.slice(0..asks.len() * stride(most))));
                opened.scores
            }
            (Some(last), Some(parents)) => {
                if depth.divergences {
                    let now = self.scorer.beliefs(states.clone());
                    divergences = Some(self.divergences(now.clone(), &last, parents));
                    beliefs = Some(now);
                }
                // So few rows at a time that a table of them is of no size.
                let (grid, tokens) = (states.dims()[0], self.tables.shape.tokens());
                let at_once = (MOST_PRODUCTS / tokens).max(1);
                let (mut asked, mut placed) = (asks, places.as_slice());
                for first in (0..grid).step_by(at_once) {
                    let end = (first + at_once).min(grid);
                    let count = placed.partition_point(|&place| place < end);
                    let (asks_here, places_here);
                    (asks_here, asked) = asked.split_at(count);
                    (places_here, placed) = placed.split_at(count);
                    if asks_here.is_empty() {
                        continue;
                    }
                    let laid = self.lay_out(asks_here, &last.entries, places_here, first, count * stride(most))?;
                    let table = refinements.clone().slice(first..end).matmul(self.tokens.clone()); // [rows, M * D]
                    let (tables, scores) = (&self.tables, last.scores.clone());
                    let paths = numbers(laid.paths, &self.scorer.device);
                    told.push((count, B::read(Paths { tables, scores, table, paths, count, told: laid.told, most })));
                    entries.extend(laid.entries);
                }
                last.scores
            }
            _ => return Err(ScorerError::Sequence("read before open")),
        };
        self.last = Some(Last { scores, states, beliefs, entries });
        let (counts, told): (Vec<usize>, Vec<_>) = told.into_iter().unzip();
        let (told, divergences) = fetched(told, divergences)?;
        let of_path = |&place: &usize| match divergences.get(place) {
            Some(js) if js.is_finite() => js.clamp(0.0, LN_2),
            _ => LN_2,
        };
        let divergences: Vec<f32> =
            if divergences.is_empty() { vec![0.0; asks.len()] } else { places.iter().map(of_path).collect() };
        let (mut step, mut first) = (Step::default(), 0);
        let catalogue = (self.tables.items, self.tables.shape);
        for (told, count) in told.iter().zip(counts) {
            let here = first..first + count;
            first = here.end;
            make_out(&mut step, told, &asks[here.clone()], most, depth, &divergences[here], catalogue)?;
        }
        Ok(step)
    }
}

/// Reads all in one transaction with the device: the numbers by their bits.
fn fetched<B: Backend>(
    told: Vec<Tensor<B, 1, Int>>,
    divergences: Option<Tensor<B, 1>>,
) -> Result<(Vec<Vec<u32>>, Vec<f32>), ScorerError> {
    breathe();
    let parts = told.len();
    let mut transaction = told.into_iter().fold(Transaction::default(), Transaction::register);
    if let Some(divergences) = divergences {
        transaction = transaction.register(divergences);
    }
    let data = transaction.try_execute().map_err(broken)?;
    if data.len() < parts {
        return Err(ScorerError::Device("a tensor is missing from the transaction".into()));
    }
    let mut data = data.into_iter();
    let misread = |error| ScorerError::Device(format!("{error:?}"));
    let bits = |data: TensorData| -> Result<Vec<u32>, ScorerError> {
        let numbers = data.convert::<i32>().into_vec::<i32>().map_err(misread)?;
        Ok(numbers.into_iter().map(i32::cast_unsigned).collect())
    };
    let told = data.by_ref().take(parts).map(bits).collect::<Result<_, _>>()?;
    let divergences = data.next().map(|data| data.convert::<f32>().into_vec::<f32>()).transpose().map_err(misread)?;
    Ok((told, divergences.unwrap_or_default()))
}

impl<B: Kernels> PathModel for DeviceScorer<B> {
    type Error = ScorerError;

    fn shape(&self) -> CodeShape {
        self.scorer.shape()
    }

    fn categories(&self) -> usize {
        self.scorer.categories()
    }

    fn token_vectors(&self) -> TokenVectors<'_> {
        self.scorer.token_vectors()
    }

    fn shapes(&self, most: Shape) -> Vec<Shape> {
        self.scorer.shapes(most)
    }

    fn keep_attention(&mut self, keep: bool) {
        self.scorer.keep_attention(keep);
    }

    fn resident(&mut self) -> Option<&mut dyn ResidentModel<Error = ScorerError>> {
        if self.tables.shape.entries > MOST_ENTRIES { None } else { Some(self) }
    }

    fn encode(&mut self, histories: &[&History]) -> Result<(), ScorerError> {
        (self.allowed, self.last) = (None, None);
        self.scorer.encode(histories)
    }

    fn score_items(&mut self, requests: Range<usize>, scores: &mut [f32]) -> Result<(), ScorerError> {
        self.scorer.score_items(requests, scores)
    }

    fn advance(&mut self, rows: &[Advance], beliefs: bool) -> Result<Vec<PathState>, ScorerError> {
        self.scorer.advance(rows, beliefs)
    }

    fn place(&mut self, codes: &CodeTable, placed: &[Placement]) -> Result<(), ScorerError> {
        self.scorer.place(codes, placed)?;
        self.tables = Tables::new(codes, &self.scorer.device);
        Ok(())
    }
}
