//! From a history's inputs to its states.

use std::mem::take;

use burn::tensor::backend::Backend;

use super::attention::Heads;
use super::gemm::Put;
use super::layers::{FeedForward, Linear, Norm, Room, sized};
use crate::domain::{HistoryEntry, share_out};
use crate::model::block;
use crate::model::scorer::ScorerError;
use crate::model::{Network, NetworkConfig};

/// Shares of events are multiples of so many, as products take rows by eights and fours.
const ROWS: usize = 4;

/// The encoder's blocks and the norm behind them.
#[derive(Debug)]
pub struct Encoder {
    width: usize,
    heads: Heads,
    blocks: Vec<Block>,
    /// The queries, and the keys and values of the last block, apart; none without a block.
    last: Option<(Linear, Linear)>,
    norm: Norm,
}

#[derive(Debug)]
struct Block {
    norm: Norm,
    /// Queries, keys and values side by side.
    attention: Linear,
    output: Linear,
    feed_forward: FeedForward,
}

impl Encoder {
    /// The encoder of `network`.
    pub fn of<B: Backend>(network: &Network<B>, config: &NetworkConfig) -> Result<Self, ScorerError> {
        Ok(Self {
            width: config.width,
            heads: Heads { width: config.attention_width(), count: config.heads },
            blocks: network.encoder.iter().map(Block::of).collect::<Result<_, _>>()?,
            last: network.encoder.last().map(last_attention).transpose()?,
            norm: Norm::of(&network.encoder_norm)?,
        })
    }

    /// Multiplications in the products of one event.
    pub fn event_work(&self) -> usize {
        self.blocks.iter().map(|block| block.attention.size() + block.output.size() + block.feed_forward.size()).sum()
    }

    /// States of histories, one after another, from the room's `x` to its `normed`, both `[events, d]`.
    pub fn states(&self, histories: &[&[HistoryEntry]], room: &mut Room) {
        self.run(&self.blocks, histories, room);
        self.norm.forward(&room.x[..events(histories) * self.width], &mut room.normed);
    }

    /// The state of the last event of each history, `[histories, d]`, from the room's `x`, `[events, d]`. Of the last block
    /// no more is worked out than it needs.
    pub fn last_states(&self, histories: &[&[HistoryEntry]], room: &mut Room, states: &mut [f32]) {
        let (Some((block, blocks)), Some((query, memory))) = (self.blocks.split_last(), &self.last) else {
            self.states(histories, room);
            bring_last(histories, self.width, &mut room.normed);
            states.copy_from_slice(&room.normed[..states.len()]);
            return;
        };
        self.run(blocks, histories, room);
        let (width, inner) = (self.width, self.heads.width);
        let events = events(histories);
        block.norm.forward(&room.x[..events * width], &mut room.normed);
        let (remembered, rest) = room.wide.split_at_mut(events * 2 * inner);
        memory.forward(&room.normed[..events * width], remembered, Put::Set);
        bring_last(histories, width, &mut room.x);
        bring_last(histories, width, &mut room.normed);
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
            room.memory.read(asked, inner, self.heads, None, &mut room.heads, read);
            remembered = others;
        }
        block.take_in(read, x, normed, &mut room.inner);
        self.norm.forward(x, states);
    }

    /// Takes the room's `x` through some blocks.
    fn run(&self, blocks: &[Block], histories: &[&[HistoryEntry]], room: &mut Room) {
        let (width, inner) = (self.width, self.heads.width);
        let events = events(histories);
        let x = &mut room.x[..events * width];
        let normed = sized(&mut room.normed, events * width);
        let wide = sized(&mut room.wide, events * 3 * inner);
        let read = sized(&mut room.read, events * inner);
        for block in blocks {
            block.ask(x, normed, wide);
            let mut first = 0;
            for history in histories {
                let rows = first..first + history.len();
                let wide = &wide[rows.start * 3 * inner..rows.end * 3 * inner];
                let read = &mut read[rows.start * inner..rows.end * inner];
                room.memory.fill(wide, 3 * inner, self.heads);
                room.memory.read(wide, 3 * inner, self.heads, Some(0), &mut room.heads, read);
                first = rows.end;
            }
            block.take_in(read, x, normed, &mut room.inner);
        }
    }

    /// As [`Self::states`] for one history, from the first room's `x` to its `normed`, its events shared out among as many
    /// threads as there are rooms, two or more. `last_only`: the state of the last event is wanted, no other.
    ///
    /// Of a block the threads wait for each other once: when all its keys and values are there.
    pub fn states_by_all(&self, events: usize, last_only: bool, rooms: &mut [Room]) {
        let (width, inner) = (self.width, self.heads.width);
        let share = events.div_ceil(rooms.len()).next_multiple_of(ROWS);
        let (mut x, mut normed) = (take(&mut rooms[0].x), take(&mut rooms[0].normed));
        let (mut asked, mut asks) = (take(&mut rooms[0].wide), take(&mut rooms[1].wide));
        sized(&mut normed, events * width);
        for at in 0..=self.blocks.len() {
            let before = at.checked_sub(1).and_then(|at| self.blocks.get(at));
            let block = self.blocks.get(at);
            let from = if last_only && block.is_none() { events - 1 } else { 0 };
            let x = x[from * width..events * width].chunks_mut(share * width);
            let normed = normed[from * width..events * width].chunks_mut(share * width);
            let asks_here = sized(&mut asks, events * 3 * inner)[from * 3 * inner..].chunks_mut(share * 3 * inner);
            let asked_all = &asked[..];
            let work = x.zip(normed).zip(asks_here).zip(&mut *rooms).enumerate();
            share_out(work, |(place, (((x, normed), asks), room))| {
                let (first, count) = (from + place * share, x.len() / width);
                if let Some(before) = before {
                    let seen = &asked_all[..(first + count) * 3 * inner];
                    let read = sized(&mut room.read, count * inner);
                    room.memory.fill(seen, 3 * inner, self.heads);
                    let own = &seen[first * 3 * inner..];
                    room.memory.read(own, 3 * inner, self.heads, Some(first), &mut room.heads, read);
                    before.take_in(read, x, normed, &mut room.inner);
                }
                match block {
                    Some(block) => block.ask(x, normed, asks),
                    None => self.norm.forward(x, normed),
                }
            });
            std::mem::swap(&mut asked, &mut asks);
        }
        (rooms[0].x, rooms[0].normed, rooms[0].wide, rooms[1].wide) = (x, normed, asked, asks);
    }
}

impl Block {
    fn of<B: Backend>(layer: &block::EncoderBlock<B>) -> Result<Self, ScorerError> {
        let attention = &layer.attention;
        Ok(Self {
            norm: Norm::of(&layer.norm)?,
            attention: Linear::beside(&[&attention.query, &attention.key, &attention.value])?,
            output: Linear::of(&attention.output)?,
            feed_forward: FeedForward::of(&layer.feed_forward)?,
        })
    }

    /// Queries, keys and values of x, `[rows, 3 * width of all heads]`.
    fn ask(&self, x: &[f32], normed: &mut [f32], wide: &mut [f32]) {
        self.norm.forward(x, normed);
        self.attention.forward(normed, wide, Put::Set);
    }

    /// Adds to x what its rows read of their histories, and what the feed-forward layer makes of both.
    fn take_in(&self, read: &[f32], x: &mut [f32], normed: &mut [f32], inner: &mut Vec<f32>) {
        self.output.forward(read, x, Put::Add);
        self.feed_forward.add_to(x, normed, inner);
    }
}

/// The queries of a block's attention, and its keys and values side by side.
fn last_attention<B: Backend>(layer: &block::EncoderBlock<B>) -> Result<(Linear, Linear), ScorerError> {
    let attention = &layer.attention;
    Ok((Linear::of(&attention.query)?, Linear::beside(&[&attention.key, &attention.value])?))
}

/// Events of all these histories.
pub fn events(histories: &[&[HistoryEntry]]) -> usize {
    histories.iter().map(|history| history.len()).sum()
}

/// Brings the last row of each history to the front of `rows`, `[events, width]`. No row before a last one is read again.
fn bring_last(histories: &[&[HistoryEntry]], width: usize, rows: &mut [f32]) {
    let mut end = 0;
    for (at, history) in histories.iter().enumerate() {
        end += history.len();
        rows.copy_within((end - 1) * width..end * width, at * width);
    }
}
