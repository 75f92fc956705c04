//! Keys and values of one history, laid out so that all queries read them by two products a head.

use pulp::{Arch, Simd, WithSimd};

use super::attention::Heads;
use super::gemm::{Packed, Put};
use super::layers::sized;
use crate::decode::{best_of, weigh};

/// Queries that are read at once: of a long history, the later events are spared the earlier ones.
const QUERIES: usize = 64;

/// Keys and values of a history's events.
#[derive(Debug, Clone, Default)]
pub struct EventMemory {
    events: usize,
    /// For each head the transpose of its keys, `[head width, events]`.
    keys: Vec<Packed>,
    /// For each head its values, `[events, head width]`.
    values: Vec<Packed>,
}

/// Memory for the products of a head; one to a thread.
#[derive(Debug, Default)]
pub struct HeadRoom {
    queries: Vec<f32>,
    weights: Vec<f32>,
    /// For each query what its weights are to be multiplied by.
    scales: Vec<f32>,
    read: Vec<f32>,
    /// What the weights of all heads are added to, `[queries, events]`; empty: they are not told.
    pub looked: Vec<f32>,
}

impl EventMemory {
    /// How many there are.
    pub fn events(&self) -> usize {
        self.events
    }

    /// Takes in the keys and values of some events, which end each row of `rows`, `[events, stride]`.
    pub fn fill(&mut self, rows: &[f32], stride: usize, heads: Heads) {
        let per = heads.width / heads.count;
        self.events = rows.len() / stride;
        self.keys.resize_with(heads.count, Packed::default);
        self.values.resize_with(heads.count, Packed::default);
        self.keys.iter_mut().for_each(|keys| keys.reshape(per, self.events));
        self.values.iter_mut().for_each(|values| values.reshape(self.events, per));
        let first = stride - 2 * heads.width;
        for (head, (keys, values)) in self.keys.iter_mut().zip(&mut self.values).enumerate() {
            let part = first + head * per..first + (head + 1) * per;
            keys.fill_columns(rows, stride, part.clone());
            for (event, row) in rows.chunks_exact(stride).enumerate() {
                values.fill_row(event, &row[part.start + heads.width..part.end + heads.width]);
            }
        }
    }

    /// What the queries read, `[queries, width of all heads]`: for each head, the values weighed by
    /// softmax(<query, key> / sqrt(head width)). The queries begin each row of `rows`, `[queries, stride]`. `first`: the event
    /// of the first query, the next query's is the next one, and none sees an event later than its own; none: all see all.
    pub fn read(
        &self,
        rows: &[f32],
        stride: usize,
        heads: Heads,
        first: Option<usize>,
        room: &mut HeadRoom,
        out: &mut [f32],
    ) {
        let per = heads.width / heads.count;
        let scale = 1.0 / (per as f32).sqrt();
        let blocks = rows.chunks(QUERIES * stride).zip(out.chunks_mut(QUERIES * heads.width));
        for (block, (rows, out)) in blocks.enumerate() {
            let count = rows.len() / stride;
            let first = first.map(|first| first + block * QUERIES);
            // Events after the block's last query are not looked at.
            let events = first.map_or(self.events, |first| self.events.min(first + count));
            let queries = sized(&mut room.queries, count * per);
            let weights = sized(&mut room.weights, count * events);
            let scales = sized(&mut room.scales, count);
            let read = sized(&mut room.read, count * per);
            for (head, (keys, values)) in self.keys.iter().zip(&self.values).enumerate() {
                let part = head * per..(head + 1) * per;
                for (query, row) in queries.chunks_exact_mut(per).zip(rows.chunks_exact(stride)) {
                    query.iter_mut().zip(&row[part.clone()]).for_each(|(query, value)| *query = value * scale);
                }
                keys.corner_product((per, events), queries, &[], weights, Put::Set);
                Arch::new().dispatch(Weigh { weights, events, first, scales });
                let looked = room.looked.chunks_exact_mut(events).skip(block * QUERIES);
                for (looked, (weights, scale)) in looked.zip(weights.chunks_exact(events).zip(&*scales)) {
                    looked.iter_mut().zip(weights).for_each(|(looked, weight)| *looked += weight * scale);
                }
                values.corner_product((events, per), weights, &[], read, Put::Set);
                let out = out.chunks_exact_mut(heads.width).map(|out| &mut out[part.clone()]);
                for ((out, read), scale) in out.zip(read.chunks_exact(per)).zip(&*scales) {
                    out.iter_mut().zip(read).for_each(|(out, read)| *out = read * scale);
                }
            }
        }
    }
}

/// Turns each row of scores into weights and tells what to multiply them by, so that they become its softmax.
struct Weigh<'a> {
    weights: &'a mut [f32],
    events: usize,
    /// The event that the first row belongs to, the next row to the next, where a row sees no later one than its own.
    first: Option<usize>,
    scales: &'a mut [f32],
}

impl WithSimd for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { weights, events, first, scales } = self;
        for (at, (row, scale)) in weights.chunks_exact_mut(events).zip(scales).enumerate() {
            let (seen, hidden) = row.split_at_mut(first.map_or(events, |first| first + at + 1));
            hidden.fill(0.0);
            let best = best_of(simd, seen);
            *scale = 1.0 / weigh(simd, seen, best);
        }
    }
}
