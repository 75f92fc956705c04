//! What the CPU's network knows of each item: a vector of its own, or its tokens alone.

use burn::tensor::backend::Backend;
use pulp::{Arch, Simd, WithSimd};

use super::coarse::Coarse;
use super::items;
use crate::decode::{BYTE, Dot, Placement, TokenVectors, tabulate};
use crate::domain::{CodeShape, CodeTable, ItemNumber, share_out};
use crate::model::placed::drawn_mean;
use crate::model::scorer::{ScorerError, floats};
use crate::model::token_sums::{add_rows, token_sum, token_sums};
use crate::model::{Network, NetworkConfig};

/// Items from which on a lone request reads bytes first. Below, the vectors fit a cache, or nearly.
const COARSE_FROM: usize = 1 << 16;

/// So many requests at once are swept over bytes; more share the reading of the vectors, as a product of matrices.
const COARSE_REQUESTS: usize = 3;

/// Multiplications in the time of a number looked up in a table.
const LOOK_UP: usize = 16;

/// v_i, in the form that is cheapest to read.
#[derive(Debug)]
pub enum Items {
    /// `[items, d]`, and in large catalogues the same in bytes.
    Vectors { rows: Vec<f32>, coarse: Option<Coarse> },
    /// The codes, `[items, M]`, of a network whose residuals are all zero: v_i is the sum of its tokens' vectors, so a
    /// score is a sum of M numbers from a table, and an item takes M bytes.
    Tokens { codes: Vec<u8>, codebooks: usize },
}

impl Items {
    /// The items of `codes` as `network` knows them; `tokens` is Z, `[M * D, d]`.
    pub fn of<B: Backend>(
        network: &Network<B>,
        config: &NetworkConfig,
        codes: &CodeTable,
        tokens: &[f32],
    ) -> Result<Self, ScorerError> {
        let mut rows = floats(network.residuals())?;
        if network.reads_codes {
            if let Some(bytes) = codes.bytes()
                && rows.iter().all(|number| *number == 0.0)
            {
                return Ok(Self::Tokens { codes: bytes.to_vec(), codebooks: config.codes.codebooks });
            }
            let sums = token_sums(tokens, codes, config.width);
            rows.iter_mut().zip(sums).for_each(|(own, sum)| *own += sum);
        }
        let coarse = if config.items >= COARSE_FROM { Coarse::of(&rows, config.width) } else { None };
        Ok(Self::Vectors { rows, coarse })
    }

    /// Takes in the items of `codes` that are new or have another code. Where items are tokens alone they stay that.
    pub fn place(&mut self, codes: &CodeTable, tokens: &[f32], width: usize, placed: &[Placement]) {
        match self {
            Self::Tokens { codes: known, codebooks } => {
                known.resize(codes.items() * *codebooks, 0);
                for placement in placed {
                    let code = codes.code(placement.item).iter().map(|&entry| entry as u8);
                    let place = &mut known[placement.item as usize * *codebooks..][..*codebooks];
                    place.iter_mut().zip(code).for_each(|(place, entry)| *place = entry);
                }
            }
            Self::Vectors { rows, coarse } => {
                resized(rows, codes.items() * width);
                if let Some(coarse) = coarse {
                    coarse.grow(codes.items());
                }
                for placement in placed {
                    let row = |item: ItemNumber| &rows[item as usize * width..][..width];
                    let like: Vec<_> = placement.like.iter().map(|&(item, share)| (row(item), share)).collect();
                    let vector = drawn_mean(&like).unwrap_or_else(|| token_sum(tokens, width, codes, placement.item));
                    let at = placement.item as usize;
                    if let Some(coarse) = coarse {
                        coarse.set(at, &vector);
                    }
                    rows[at * width..][..width].copy_from_slice(&vector);
                }
            }
        }
    }

    /// v_i of one item, `[d]`, where need be in `room`.
    pub fn vector<'a>(&'a self, item: ItemNumber, tokens: &[f32], width: usize, room: &'a mut Vec<f32>) -> &'a [f32] {
        match self {
            Self::Vectors { rows, .. } => &rows[item as usize * width..][..width],
            Self::Tokens { codes, codebooks } => {
                room.clear();
                room.resize(width, 0.0);
                let entries = tokens.len() / width / codebooks;
                let code = &codes[item as usize * codebooks..][..*codebooks];
                add_rows(tokens, entries, code.iter().map(|&entry| u16::from(entry)), room);
                room
            }
        }
    }

    /// In the time of how many multiplications one request is scored, about.
    pub fn work(&self) -> usize {
        match self {
            // Read from memory, most of them.
            Self::Vectors { rows, .. } => 2 * rows.len(),
            Self::Tokens { codes, .. } => codes.len() * LOOK_UP,
        }
    }

    /// The products of some queries, `[queries, d]`, with every item, into `scores`, `[queries, items]`, by so many threads.
    pub fn score(&self, tokens: &[f32], queries: &[f32], width: usize, scores: &mut [f32], threads: usize) {
        match self {
            Self::Vectors { rows, .. } => items::score(rows, queries, width, scores, threads),
            Self::Tokens { codes, codebooks } => {
                let items = codes.len() / codebooks;
                let shape = CodeShape { codebooks: *codebooks, entries: tokens.len() / width / codebooks };
                let tokens = TokenVectors { rows: tokens, width, sums: None };
                // Requests to each thread, or items of each request.
                let by_request = (queries.len() / width).div_ceil(threads).max(1);
                let threads = if by_request > 1 { 1 } else { threads };
                let share = items.div_ceil(threads).max(1);
                let score = |(queries, scores): (&[f32], &mut [f32])| {
                    let mut table = Vec::new();
                    for (query, scores) in queries.chunks_exact(width).zip(scores.chunks_exact_mut(items)) {
                        tabulate(query, tokens, shape, 0, &mut table);
                        let shares = codes.chunks(share * codebooks).zip(scores.chunks_mut(share));
                        share_out(shares, |(codes, scores)| sum_codes(codes, *codebooks, &table, scores));
                    }
                };
                let shares = queries.chunks(by_request * width).zip(scores.chunks_mut(by_request * items));
                if by_request > 1 { share_out(shares, score) } else { shares.for_each(score) }
            }
        }
    }

    /// As [`Self::score`], but only nearly where that is sooner done. Answers whether it was.
    pub fn score_nearly(
        &mut self,
        tokens: &[f32],
        queries: &[f32],
        width: usize,
        scores: &mut [f32],
        threads: usize,
    ) -> bool {
        if let Self::Vectors { rows, coarse: Some(coarse) } = self
            && queries.len() <= COARSE_REQUESTS * width
            // A broken network is to be seen.
            && queries.iter().all(|number| number.is_finite())
        {
            let items = rows.len() / width;
            for (query, scores) in queries.chunks_exact(width).zip(scores.chunks_exact_mut(items)) {
                coarse.sweep(query, scores, threads);
            }
            return true;
        }
        self.score(tokens, queries, width, scores, threads);
        false
    }

    /// How far scores that are only near may be off, for a query of length one: `[items]`, and any of them; none where none
    /// are.
    pub fn margins(&self) -> (&[f32], f32) {
        match self {
            Self::Vectors { coarse: Some(coarse), .. } => (coarse.margins(), coarse.widest()),
            _ => (&[], 0.0),
        }
    }

    /// The products of one query with some items, each into its place among the scores of all, `[items]`, by so many threads.
    pub fn score_these(&self, query: &[f32], numbers: &[ItemNumber], scores: &mut [f32], threads: usize) {
        let Self::Vectors { rows, .. } = self else { return };
        let mut found = vec![0.0; numbers.len()];
        let share = numbers.len().div_ceil(threads).max(1);
        share_out(numbers.chunks(share).zip(found.chunks_mut(share)), |(numbers, scores)| {
            Arch::new().dispatch(These { rows, query, numbers, scores });
        });
        numbers.iter().zip(found).for_each(|(&number, score)| scores[number as usize] = score);
    }
}

/// Makes a table larger by zeros, not doubled, as one that grows by itself would be: it may be most of the process's memory.
pub fn resized(table: &mut Vec<f32>, size: usize) {
    if size > table.capacity() {
        table.reserve_exact(size + size / 16 - table.len());
    }
    table.resize(size, 0.0);
}

struct These<'a> {
    rows: &'a [f32],
    query: &'a [f32],
    numbers: &'a [ItemNumber],
    scores: &'a mut [f32],
}

impl WithSimd for These<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.query.len();
        for (&number, score) in self.numbers.iter().zip(self.scores) {
            let mut dot = Dot::<S>::zero(simd);
            dot.add(simd, self.query, &self.rows[number as usize * width..][..width]);
            *score = dot.total(simd);
        }
    }
}

/// For each item the sum of the table's numbers at its tokens.
fn sum_codes(codes: &[u8], codebooks: usize, table: &[f32], scores: &mut [f32]) {
    let (table, _) = table.as_chunks::<BYTE>();
    match codebooks {
        4 => sum_rows::<4>(codes, table, scores),
        8 => sum_rows::<8>(codes, table, scores),
        16 => sum_rows::<16>(codes, table, scores),
        32 => sum_rows::<32>(codes, table, scores),
        _ => {
            for (code, score) in codes.chunks_exact(codebooks).zip(scores) {
                *score = code.iter().zip(table).map(|(&entry, row)| row[usize::from(entry)]).sum();
            }
        }
    }
}

/// As many codebooks as a loop can be unrolled for.
fn sum_rows<const M: usize>(codes: &[u8], table: &[[f32; BYTE]], scores: &mut [f32]) {
    let (codes, _) = codes.as_chunks::<M>();
    let Some(table) = table.first_chunk::<M>() else { return };
    for (code, score) in codes.iter().zip(scores) {
        *score = (0..M).map(|r| table[r][usize::from(code[r])]).sum();
    }
}
