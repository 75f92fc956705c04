//! From a history's inputs to its states.

use std::iter::once;
use std::mem::take;
use std::ops::Range;

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
/// To read a key and its value takes as long as so many multiplications of each of their numbers: two in products, the
/// rest for the softmax.
const READING: usize = 3;

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
        self.blocks.iter().map(|block| block.attention.size() + block.taking_work()).sum()
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
        let (mut x, mut normed) = (take(&mut rooms[0].x), take(&mut rooms[0].normed));
        let (mut asked, mut asks) = (take(&mut rooms[0].wide), take(&mut rooms[1].wide));
        sized(&mut normed, events * width);
        for at in 0..=self.blocks.len() {
            let before = at.checked_sub(1).and_then(|at| self.blocks.get(at));
            let block = self.blocks.get(at);
            let parts = if last_only && block.is_none() {
                once(events - 1..events).collect()
            } else {
                let own = before.map_or(0, Block::taking_work) + block.map_or(0, |block| block.attention.size());
                alike_long(events, rooms.len(), own, before.map_or(0, |_| READING * inner))
            };
            let asks_here = cut(sized(&mut asks, events * 3 * inner), &parts, 3 * inner);
            let (x, normed) = (cut(&mut x, &parts, width), cut(&mut normed, &parts, width));
            let asked_all = &asked[..];
            let work = parts.into_iter().zip(x).zip(normed).zip(asks_here).zip(&mut *rooms);
            share_out(work, |((((part, x), normed), asks), room)| {
                if let Some(before) = before {
                    let seen = &asked_all[..part.end * 3 * inner];
                    let read = sized(&mut room.read, part.len() * inner);
                    room.memory.fill(seen, 3 * inner, self.heads);
                    let own = &seen[part.start * 3 * inner..];
                    room.memory.read(own, 3 * inner, self.heads, Some(part.start), &mut room.heads, read);
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

    /// Multiplications of [`Self::take_in`] in the products of one row.
    fn taking_work(&self) -> usize {
        self.output.size() + self.feed_forward.size()
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

/// The events in as many parts, one after another, which take alike long: an event takes `own` multiplications, and
/// `reading` for each event before it.
fn alike_long(events: usize, parts: usize, own: usize, reading: usize) -> Vec<Range<usize>> {
    let (own, reading, all) = (own as f64, reading as f64, events as f64);
    let total = own * all + reading * all * all / 2.0;
    let end = |part: usize| {
        if part == parts {
            return events;
        }
        // The number of events e that take so long: own e + reading e e / 2.
        let long = total * part as f64 / parts as f64;
        let end = 2.0 * long / (own + (own * own + 2.0 * reading * long).sqrt());
        ((end / ROWS as f64).round() as usize * ROWS).min(events)
    };
    (1..=parts)
        .map(|part| if part == 1 { 0 } else { end(part - 1) }..end(part))
        .filter(|part| !part.is_empty())
        .collect()
}

/// These rows of `rows`, `[rows, width]`, by part.
fn cut<'a>(rows: &'a mut [f32], parts: &[Range<usize>], width: usize) -> Vec<&'a mut [f32]> {
    let (mut rest, mut at) = (rows, 0);
    let cut = |part: &Range<usize>| {
        let (_, behind) = std::mem::take(&mut rest).split_at_mut((part.start - at) * width);
        let (here, others) = behind.split_at_mut(part.len() * width);
        (rest, at) = (others, part.end);
        here
    };
    parts.iter().map(cut).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_history_take_alike_long() {
        assert_eq!(alike_long(500, 2, 1000, 0), [0..252, 252..500]);
        for (events, parts, own, reading) in
            [(500, 2, 65_000, 384), (500, 7, 65_000, 384), (64, 3, 0, 10), (50, 2, 9, 1)]
        {
            let found = alike_long(events, parts, own, reading);
            assert_eq!((found.len(), found[0].start, found[parts - 1].end), (parts, 0, events));
            assert!(found.windows(2).all(|two| two[0].end == two[1].start && two[0].end.is_multiple_of(ROWS)));
            let work = |events: usize| own * events + reading * events * events / 2;
            let longest = found.iter().map(|part| work(part.end) - work(part.start)).max().unwrap_or(0);
            // As near as whole tiles of rows allow.
            assert!(longest * parts <= work(events) + parts * (work(events) - work(events - ROWS)), "{found:?}");
        }
        // Fewer than there are threads for.
        assert!(alike_long(3, 4, 100, 1).iter().eq([&(0..3)]));
    }
}
