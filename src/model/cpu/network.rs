//! The forward pass of the network by loops over the host's memory, for serving.

use std::iter::once;
use std::ops::Range;

use burn::tensor::backend::Backend;

use super::attention::{Heads, Memory, attend};
use super::encoder::{Encoder, events};
use super::gemm::Put;
use super::layers::{FeedForward, Linear, Norm, Room, sized};
use super::memory::EventMemory;
use super::softmax::soften_rows;
use super::vectors::{Items, resized};
use crate::decode::Placement;
use crate::domain::{CodeTable, HistoryEntry, share_out};
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
    encoder: Encoder,
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
            encoder: Encoder::of(network, config)?,
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

    /// Multiplications in the products of one event; `for_paths`: with what paths read of it.
    pub fn event_work(&self, for_paths: bool) -> usize {
        let remembered = self.decoder.iter().map(|block| block.history_memory.size()).sum::<usize>();
        self.encoder.event_work() + if for_paths { remembered } else { 0 }
    }

    /// Multiplications in the products of one path's last position.
    pub fn path_work(&self) -> usize {
        self.decoder.iter().map(DecoderBlock::work).sum::<usize>() + self.refinement_head.size()
    }

    /// Reads histories, their events one after another. A history is cut to its last `max_history` events before.
    ///
    /// # Shapes
    ///
    /// - rooms: one to a thread; with several, they share out the events of one history after another
    /// - queries: h, `[histories, d]`
    /// - memory: for each history, for each decoder block, what the decoder reads of the states. None: no path will be read,
    ///   so that of the last block only the last event of each history is needed.
    pub fn encode(
        &self,
        histories: &[&[HistoryEntry]],
        rooms: &mut [Room],
        queries: &mut [f32],
        memory: Option<&mut [Vec<EventMemory>]>,
    ) {
        let most = if rooms.len() > 1 { 1 } else { AT_ONCE };
        let mut rest = (histories, queries, memory);
        while !rest.0.is_empty() {
            let mut events = 0;
            let within = rest.0.iter().take_while(|history| {
                events += history.len();
                events <= most
            });
            let count = within.count().max(1);
            let (histories, others) = rest.0.split_at(count);
            let (queries, other_queries) = rest.1.split_at_mut(count * self.width);
            let (memory, other_memory) = rest.2.map(|memory| memory.split_at_mut(count)).unzip();
            self.encode_some(histories, rooms, queries, memory);
            rest = (others, other_queries, other_memory);
        }
    }

    /// As [`Self::encode`], all at once; a single history, if there are several rooms.
    fn encode_some(
        &self,
        histories: &[&[HistoryEntry]],
        rooms: &mut [Room],
        queries: &mut [f32],
        memory: Option<&mut [Vec<EventMemory>]>,
    ) {
        let (width, events) = (self.width, events(histories));
        self.embed(histories, sized(&mut rooms[0].x, events * width));
        match (&mut *rooms, &memory) {
            ([room], None) => {
                self.encoder.last_states(histories, room, queries);
                return;
            }
            ([room], Some(_)) => self.encoder.states(histories, room),
            (rooms, _) => self.encoder.states_by_all(events, memory.is_none(), rooms),
        }
        let states = std::mem::take(&mut rooms[0].normed);
        let mut end = 0;
        for (history, query) in histories.iter().zip(queries.chunks_exact_mut(width)) {
            end += history.len();
            query.copy_from_slice(&states[(end - 1) * width..end * width]);
        }
        if let Some(memory) = memory {
            memory.iter_mut().for_each(|memory| memory.resize_with(self.decoder.len(), EventMemory::default));
            let states = &states[..events * width];
            if let [room] = rooms {
                for (at, block) in self.decoder.iter().enumerate() {
                    let memory = memory.iter_mut().map(|memory| &mut memory[at]);
                    block.remember(states, histories, self.heads, &mut room.wide, memory);
                }
            } else {
                let share = self.decoder.len().div_ceil(rooms.len()).max(1);
                let shares = self.decoder.chunks(share).zip(memory[0].chunks_mut(share)).zip(rooms.iter_mut());
                share_out(shares, |((blocks, memory), room)| {
                    for (block, memory) in blocks.iter().zip(memory) {
                        block.remember(states, histories, self.heads, &mut room.wide, once(memory));
                    }
                });
            }
        }
        rooms[0].normed = states;
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
                memory.read(&queries[places.clone()], inner, self.heads, None, &mut room.heads, &mut out[places]);
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
            soften_rows(beliefs, self.category_head.outer());
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

    fn work(&self) -> usize {
        let Self { path_attention, path_output, history_query, history_output, feed_forward, .. } = self;
        let maps = [path_attention, path_output, history_query, history_output];
        maps.iter().map(|map| map.size()).sum::<usize>() + feed_forward.size()
    }

    /// Keeps what its paths read of each history, whose states come one after another, `[events, d]`.
    fn remember<'m>(
        &self,
        states: &[f32],
        histories: &[&[HistoryEntry]],
        heads: Heads,
        wide: &mut Vec<f32>,
        memories: impl Iterator<Item = &'m mut EventMemory>,
    ) {
        let stride = self.history_memory.outer();
        let wide = sized(wide, events(histories) * stride);
        self.history_memory.forward(states, wide, Put::Set);
        let mut rest = &wide[..];
        for (history, memory) in histories.iter().zip(memories) {
            let (here, others) = rest.split_at(history.len() * stride);
            memory.fill(here, stride, heads);
            rest = others;
        }
    }
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
