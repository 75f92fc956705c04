//! The forward pass of the network by loops over the host's memory, for serving.

use std::ops::Range;

use burn::tensor::backend::Backend;

use super::attention::{Heads, Memory, attend};
use super::gemm::Put;
use super::layers::{FeedForward, Linear, Norm, Room, sized};
use super::memory::EventMemory;
use super::vectors::{Items, resized};
use crate::decode::{Placement, exp};
use crate::domain::{CodeTable, HistoryEntry};
use crate::model::block;
use crate::model::scorer::{ScorerError, floats};
use crate::model::token_sums::{token_sum, token_sums};
use crate::model::{Network, NetworkConfig};

/// Events that are encoded at once, if no history has more: so many that the weights are not read too often, and so few that
/// what is between the layers stays in a core's cache.
const AT_ONCE: usize = 256;

/// The weights of a [`Network`], packed for products of few rows. Gives what the network gives, but for rounding.
#[derive(Debug)]
pub struct CpuNetwork {
    width: usize,
    heads: Heads,
    max_history: usize,
    input_scale: f32,
    /// v_i.
    pub items: Items,
    /// Z, `[M * D, d]`.
    pub tokens: Vec<f32>,
    /// Sum over r of Z_r,j_r(i), `[items, d]`, in catalogues so small that a path of one token has fewer candidates than a
    /// codebook has entries; beyond, a product with all tokens is cheaper.
    pub token_sums: Option<Vec<f32>>,
    kinds: Vec<f32>,
    gaps: Vec<f32>,
    positions: Vec<f32>,
    encoder: Vec<EncoderBlock>,
    /// The queries, and the keys and values of the encoder's last block, apart; none without a block.
    encoder_last: Option<(Linear, Linear)>,
    encoder_norm: Norm,
    /// What a path begins with beside h, `[d]`.
    begin: Vec<f32>,
    /// What the decoder reads of each token, before the step is added, `[M * D, d]`.
    token_inputs: Vec<f32>,
    steps: Vec<f32>,
    decoder: Vec<DecoderBlock>,
    decoder_norm: Norm,
    refinement_head: Linear,
    category_head: Linear,
}

#[derive(Debug)]
struct EncoderBlock {
    norm: Norm,
    /// Queries, keys and values side by side.
    attention: Linear,
    output: Linear,
    feed_forward: FeedForward,
}

#[derive(Debug)]
struct DecoderBlock {
    path_norm: Norm,
    path_attention: Linear,
    path_output: Linear,
    history_norm: Norm,
    history_query: Linear,
    /// Keys and values side by side.
    history_memory: Linear,
    history_output: Linear,
    feed_forward: FeedForward,
}

/// One path to be read: what the decoder reads last, what came before, and whose history it is about.
#[derive(Debug, Clone)]
pub struct PathRow {
    /// The token's row in the token table; none for `<BOS>`.
    pub token: Option<usize>,
    /// The request, whose h and history are read.
    pub request: usize,
    /// The place of the path's last position among the positions read before; none for `<BOS>`.
    pub parent: Option<usize>,
}

/// What the paths of a pass are read against.
#[derive(Debug)]
pub struct Read<'a> {
    /// Tokens in each path, the last one included.
    pub step: usize,
    /// h of each request, `[requests, d]`.
    pub queries: &'a [f32],
    /// For each request, for each block, its history.
    pub history: &'a [Vec<EventMemory>],
    /// For each block the keys and values of the positions read before, `[positions, 2 * width of all heads]`.
    pub past: Vec<&'a [f32]>,
    /// The position before each of them.
    pub parents: &'a [Option<usize>],
}

/// What is read of new positions.
#[derive(Debug)]
pub struct Said<'a> {
    /// g(d_t), `[rows, d]`.
    pub refinements: &'a mut [f32],
    /// c_t, `[rows, categories]`, or empty where they are not asked for.
    pub beliefs: &'a mut [f32],
    /// How much each position looked at each event, averaged over blocks and heads, `[rows, max_history]`, behind a history's
    /// events zeros; or empty where it is not asked for. Zeros before.
    pub attention: &'a mut [f32],
}

impl CpuNetwork {
    /// Takes in the items of `codes` that are new or have another code.
    pub fn place(&mut self, codes: &CodeTable, placed: &[Placement]) {
        let width = self.width;
        if let Some(sums) = &mut self.token_sums {
            resized(sums, codes.items() * width);
            for placement in placed {
                let sum = token_sum(&self.tokens, width, codes, placement.item);
                sums[placement.item as usize * width..][..width].copy_from_slice(&sum);
            }
        }
        self.items.place(codes, &self.tokens, width, placed);
    }

    /// The weights of `network`, for the items of `codes`.
    pub fn of<B: Backend>(
        network: &Network<B>,
        config: &NetworkConfig,
        codes: &CodeTable,
    ) -> Result<Self, ScorerError> {
        let tokens = network.tokens();
        let token_inputs = floats(network.token_input.forward(tokens.clone() * network.input_scale))?;
        let tokens = floats(tokens)?;
        let small = config.items <= config.codes.entries * config.codes.entries;
        let sums = small.then(|| token_sums(&tokens, codes, config.width));
        let begin = network.begin.val() + network.steps.weight.val().slice(0..1);
        Ok(Self {
            width: config.width,
            heads: Heads { width: config.attention_width(), count: config.heads },
            max_history: config.max_history,
            input_scale: network.input_scale,
            items: Items::of(network, config, codes, &tokens)?,
            token_inputs,
            tokens,
            token_sums: sums,
            kinds: floats(network.kinds.weight.val())?,
            gaps: floats(network.gaps.weight.val())?,
            positions: floats(network.positions.weight.val())?,
            encoder: network.encoder.iter().map(EncoderBlock::of).collect::<Result<_, _>>()?,
            encoder_last: network.encoder.last().map(last_attention).transpose()?,
            encoder_norm: Norm::of(&network.encoder_norm)?,
            begin: floats(begin)?,
            steps: floats(network.steps.weight.val())?,
            decoder: network.decoder.iter().map(DecoderBlock::of).collect::<Result<_, _>>()?,
            decoder_norm: Norm::of(&network.decoder_norm)?,
            refinement_head: Linear::of(&network.refinement_head)?,
            category_head: Linear::of(&network.category_head)?,
        })
    }

    /// Decoder blocks.
    pub fn blocks(&self) -> usize {
        self.decoder.len()
    }

    /// Reads histories, their events one after another. A history is cut to its last `max_history` events before.
    ///
    /// # Shapes
    ///
    /// - queries: h, `[histories, d]`
    /// - memory: for each history, for each decoder block, what the decoder reads of the states. None: no path will be read,
    ///   so that of the last block only the last event of each history is needed.
    pub fn encode(
        &self,
        histories: &[&[HistoryEntry]],
        room: &mut Room,
        queries: &mut [f32],
        memory: Option<&mut [Vec<EventMemory>]>,
    ) {
        let mut rest = (histories, queries, memory);
        while !rest.0.is_empty() {
            let mut events = 0;
            let within = rest.0.iter().take_while(|history| {
                events += history.len();
                events <= AT_ONCE
            });
            let count = within.count().max(1);
            let (histories, others) = rest.0.split_at(count);
            let (queries, other_queries) = rest.1.split_at_mut(count * self.width);
            let (memory, other_memory) = rest.2.map(|memory| memory.split_at_mut(count)).unzip();
            self.encode_some(histories, room, queries, memory);
            rest = (others, other_queries, other_memory);
        }
    }

    /// As [`Self::encode`], all at once.
    fn encode_some(
        &self,
        histories: &[&[HistoryEntry]],
        room: &mut Room,
        queries: &mut [f32],
        memory: Option<&mut [Vec<EventMemory>]>,
    ) {
        let width = self.width;
        let events: usize = histories.iter().map(|history| history.len()).sum();
        let x = sized(&mut room.x, events * width);
        let normed = sized(&mut room.normed, events * width);
        let inner = self.heads.width;
        let wide = sized(&mut room.wide, events * 3 * inner);
        let read = sized(&mut room.read, events * inner);
        self.embed(histories, x);
        let last = self.encoder_last.as_ref().filter(|_| memory.is_none());
        for (at, block) in self.encoder.iter().enumerate() {
            block.norm.forward(x, normed);
            if let Some(last) = last.filter(|_| at + 1 == self.encoder.len()) {
                self.end_encoding(block, last, histories, room, queries);
                return;
            }
            block.attention.forward(normed, wide, Put::Set);
            let mut first = 0;
            for history in histories {
                let rows = first..first + history.len();
                let wide = &wide[rows.start * 3 * inner..rows.end * 3 * inner];
                let read = &mut read[rows.start * inner..rows.end * inner];
                room.memory.fill(wide, 3 * inner, self.heads);
                room.memory.read(wide, 3 * inner, self.heads, true, &mut room.heads, read);
                first = rows.end;
            }
            block.output.forward(read, x, Put::Add);
            block.feed_forward.add_to(x, normed, &mut room.inner);
        }
        self.encoder_norm.forward(x, normed);
        if let Some(memory) = memory {
            for (at, block) in self.decoder.iter().enumerate() {
                let wide = &mut wide[..2 * events * inner];
                block.history_memory.forward(normed, wide, Put::Set);
                let mut rest = &wide[..];
                for (history, memory) in histories.iter().zip(memory.iter_mut()) {
                    let (here, others) = rest.split_at(history.len() * 2 * inner);
                    memory.resize_with(self.decoder.len(), EventMemory::default);
                    memory[at].fill(here, 2 * inner, self.heads);
                    rest = others;
                }
            }
        }
        let mut end = 0;
        for (history, query) in histories.iter().zip(queries.chunks_exact_mut(width)) {
            end += history.len();
            query.copy_from_slice(&normed[(end - 1) * width..end * width]);
        }
    }

    /// The encoder's last block, whose input and its norm are in `room`, for the last event of each history only.
    fn end_encoding(
        &self,
        block: &EncoderBlock,
        (query, memory): &(Linear, Linear),
        histories: &[&[HistoryEntry]],
        room: &mut Room,
        queries: &mut [f32],
    ) {
        let (width, inner) = (self.width, self.heads.width);
        let events: usize = histories.iter().map(|history| history.len()).sum();
        let (remembered, rest) = room.wide.split_at_mut(events * 2 * inner);
        memory.forward(&room.normed[..events * width], remembered, Put::Set);
        // The last rows come to the front: no row before them is read again.
        let mut end = 0;
        for (at, history) in histories.iter().enumerate() {
            end += history.len();
            for rows in [&mut room.x, &mut room.normed] {
                rows.copy_within((end - 1) * width..end * width, at * width);
            }
        }
        let x = &mut room.x[..histories.len() * width];
        let normed = &mut room.normed[..histories.len() * width];
        let asked = &mut rest[..histories.len() * inner];
        query.forward(normed, asked, Put::Set);
        let read = &mut room.read[..histories.len() * inner];
        let mut remembered = &*remembered;
        for (history, (asked, read)) in
            histories.iter().zip(asked.chunks_exact(inner).zip(read.chunks_exact_mut(inner)))
        {
            let (here, others) = remembered.split_at(history.len() * 2 * inner);
            room.memory.fill(here, 2 * inner, self.heads);
            room.memory.read(asked, inner, self.heads, false, &mut room.heads, read);
            remembered = others;
        }
        block.output.forward(read, x, Put::Add);
        block.feed_forward.add_to(x, normed, &mut room.inner);
        self.encoder_norm.forward(x, queries);
    }

    /// The encoder's inputs, `[events, d]`.
    fn embed(&self, histories: &[&[HistoryEntry]], x: &mut [f32]) {
        let width = self.width;
        let row = |table: &'_ [f32], at: usize| -> Range<usize> {
            debug_assert!((at + 1) * width <= table.len());
            at * width..(at + 1) * width
        };
        let mut rows = x.chunks_exact_mut(width);
        let mut sum = Vec::new();
        for history in histories {
            let mut before = history.first().map_or(0, |event| event.time);
            for ((column, event), x) in history.iter().enumerate().zip(&mut rows) {
                let gap = NetworkConfig::time_gap(event.time.saturating_sub(before));
                before = event.time;
                let item = self.items.vector(event.item, &self.tokens, width, &mut sum);
                let kind = &self.kinds[row(&self.kinds, event.kind as usize)];
                let gap = &self.gaps[row(&self.gaps, gap)];
                // The last event of each has the last place, whatever the history's length.
                let place = &self.positions[row(&self.positions, self.max_history - history.len() + column)];
                for at in 0..width {
                    x[at] = item[at] * self.input_scale + (kind[at] + gap[at] + place[at]);
                }
            }
        }
    }

    /// Reads one position more of each path.
    ///
    /// # Shapes
    ///
    /// - new: for each block the keys and values of the new positions, `[rows, 2 * width of all heads]`
    pub fn decode(&self, rows: &[PathRow], read: &Read<'_>, room: &mut Room, new: &mut [&mut [f32]], said: Said<'_>) {
        let Said { refinements, beliefs, attention } = said;
        let width = self.width;
        let inner = self.heads.width;
        let len = rows.len() * width;
        let (x, normed) = (sized(&mut room.x, len), sized(&mut room.normed, len));
        let wide = sized(&mut room.wide, 3 * rows.len() * inner);
        let out = sized(&mut room.read, rows.len() * inner);
        self.begin_rows(rows, read, x);
        for (at, (block, new)) in self.decoder.iter().zip(new).enumerate() {
            block.path_norm.forward(x, normed);
            block.path_attention.forward(normed, wide, Put::Set);
            for (new, wide) in new.chunks_exact_mut(2 * inner).zip(wide.chunks_exact(3 * inner)) {
                new.copy_from_slice(&wide[inner..]);
            }
            let path =
                Path { rows, wide, past: read.past[at], parents: read.parents, chain: &mut room.chain, width: inner };
            attend(path, self.heads, &mut room.weights, out);
            block.path_output.forward(out, x, Put::Add);

            block.history_norm.forward(x, normed);
            let queries = &mut wide[..rows.len() * inner];
            block.history_query.forward(normed, queries, Put::Set);
            let mut first = 0;
            // As a rule the paths of a request come one after another, and read its history as one block.
            for paths in rows.chunk_by(|one, other| one.request == other.request) {
                let places = first * inner..(first + paths.len()) * inner;
                let memory = &read.history[paths[0].request][at];
                if !attention.is_empty() {
                    room.heads.looked.resize(paths.len() * memory.events(), 0.0);
                }
                memory.read(&queries[places.clone()], inner, self.heads, false, &mut room.heads, &mut out[places]);
                let looked = room.heads.looked.chunks_exact(memory.events());
                for (row, looked) in attention.chunks_exact_mut(self.max_history).skip(first).zip(looked) {
                    let share = 1.0 / (self.decoder.len() * self.heads.count) as f32;
                    row.iter_mut().zip(looked).for_each(|(row, looked)| *row += share * looked);
                }
                room.heads.looked.clear();
                first += paths.len();
            }
            block.history_output.forward(out, x, Put::Add);
            block.feed_forward.add_to(x, normed, &mut room.inner);
        }
        self.decoder_norm.forward(x, normed);
        self.refinement_head.forward(normed, refinements, Put::Set);
        if !beliefs.is_empty() {
            self.category_head.forward(normed, beliefs, Put::Set);
            beliefs.chunks_exact_mut(self.category_head.outer()).for_each(soften);
        }
    }

    /// The decoder's inputs, `[rows, d]`.
    fn begin_rows(&self, rows: &[PathRow], read: &Read<'_>, x: &mut [f32]) {
        let width = self.width;
        for (row, x) in rows.iter().zip(x.chunks_exact_mut(width)) {
            let (input, step) = match row.token {
                None => (&read.queries[row.request * width..][..width], &self.begin[..]),
                Some(token) => {
                    (&self.token_inputs[token * width..][..width], &self.steps[read.step * width..][..width])
                }
            };
            x.iter_mut().zip(input).zip(step).for_each(|((x, input), step)| *x = input + step);
        }
    }
}

/// The queries of a block's attention, and its keys and values side by side.
fn last_attention<B: Backend>(layer: &block::EncoderBlock<B>) -> Result<(Linear, Linear), ScorerError> {
    let attention = &layer.attention;
    Ok((Linear::of(&attention.query)?, Linear::beside(&[&attention.key, &attention.value])?))
}

impl EncoderBlock {
    fn of<B: Backend>(layer: &block::EncoderBlock<B>) -> Result<Self, ScorerError> {
        let attention = &layer.attention;
        Ok(Self {
            norm: Norm::of(&layer.norm)?,
            attention: Linear::beside(&[&attention.query, &attention.key, &attention.value])?,
            output: Linear::of(&attention.output)?,
            feed_forward: FeedForward::of(&layer.feed_forward)?,
        })
    }
}

impl DecoderBlock {
    fn of<B: Backend>(layer: &block::DecoderBlock<B>) -> Result<Self, ScorerError> {
        let (path, history) = (&layer.path_attention, &layer.history_attention);
        Ok(Self {
            path_norm: Norm::of(&layer.path_norm)?,
            path_attention: Linear::beside(&[&path.query, &path.key, &path.value])?,
            path_output: Linear::of(&path.output)?,
            history_norm: Norm::of(&layer.history_norm)?,
            history_query: Linear::of(&history.query)?,
            history_memory: Linear::beside(&[&history.key, &history.value])?,
            history_output: Linear::of(&history.output)?,
            feed_forward: FeedForward::of(&layer.feed_forward)?,
        })
    }
}

/// Softmax in its place.
fn soften(row: &mut [f32]) {
    let best = row.iter().copied().fold(f32::MIN, f32::max);
    row.iter_mut().for_each(|value| *value = exp(*value - best));
    let scale = 1.0 / row.iter().sum::<f32>();
    row.iter_mut().for_each(|value| *value *= scale);
}

/// Path positions: each looks at those before it in its path, oldest first, and at itself. Nothing is copied when a path
/// gets several children: they name the same positions.
struct Path<'a> {
    rows: &'a [PathRow],
    wide: &'a [f32],
    past: &'a [f32],
    parents: &'a [Option<usize>],
    chain: &'a mut Vec<usize>,
    /// Of all heads.
    width: usize,
}

impl Memory for Path<'_> {
    #[inline(always)]
    fn positions(&mut self, at: usize) -> usize {
        self.chain.clear();
        self.chain.extend(std::iter::successors(self.rows[at].parent, |&position| self.parents[position]));
        self.chain.reverse();
        self.chain.len() + 1
    }

    #[inline(always)]
    fn query(&self, at: usize) -> &[f32] {
        &self.wide[3 * at * self.width..][..self.width]
    }

    #[inline(always)]
    fn key_value(&self, at: usize, position: usize) -> (&[f32], &[f32]) {
        match self.chain.get(position) {
            Some(before) => self.past[2 * before * self.width..][..2 * self.width].split_at(self.width),
            None => self.wide[(3 * at + 1) * self.width..][..2 * self.width].split_at(self.width),
        }
    }
}
