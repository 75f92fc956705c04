//! What a step asks of the GPU beside the network: candidates, their scores, and the children of their paths.
//!
//! Every kernel sums in one order that nothing but its shapes decides, so that the same call answers the same bits.

mod paths;
mod roots;
mod shortlist;

use cubecl::prelude::*;

use super::{ABOUT, CHILD, HEAD, LEAST, LIGHTEST, LIMIT, NONE, OUT};
pub(super) use paths::read_paths;
pub(super) use roots::{read_items, tell_roots, weigh_tokens};
pub(super) use shortlist::{count_digits, find_digit, shorten};

/// Threads that go over items side by side.
pub(super) const BLOCK: u32 = 256;
/// Values of four bits, by which the least score that is wanted is found.
pub(super) const DIGITS: u32 = 16;
/// Threads that go over the holders of one token.
pub(super) const TEAM: u32 = 32;

/// Whether a score is one: a number within the limits.
#[cube]
fn is_sound(score: f32) -> bool {
    score.abs() <= LIMIT
}

/// The greatest of the threads' values.
#[cube]
fn greatest(room: &mut SharedMemory<f32>, value: f32, #[comptime] threads: u32) -> f32 {
    room[UNIT_POS as usize] = value;
    sync_cube();
    let mut half = (threads / 2).runtime();
    while half > 0 {
        if UNIT_POS < half {
            let other = room[(UNIT_POS + half) as usize];
            if other > room[UNIT_POS as usize] {
                room[UNIT_POS as usize] = other;
            }
        }
        sync_cube();
        half /= 2;
    }
    let found = room[0];
    sync_cube();
    found
}

/// The sum of the threads' values.
#[cube]
fn total(room: &mut SharedMemory<f32>, value: f32, #[comptime] threads: u32) -> f32 {
    room[UNIT_POS as usize] = value;
    sync_cube();
    let mut half = (threads / 2).runtime();
    while half > 0 {
        if UNIT_POS < half {
            let other = room[(UNIT_POS + half) as usize];
            room[UNIT_POS as usize] += other;
        }
        sync_cube();
        half /= 2;
    }
    let found = room[0];
    sync_cube();
    found
}

/// Sorts weights, the greatest first, those that are alike by their place; as many as threads, a power of two.
#[cube]
fn sort(weights: &mut SharedMemory<f32>, places: &mut SharedMemory<u32>, #[comptime] threads: u32) {
    let mut size = 2u32.runtime();
    while size <= threads {
        let mut apart = size / 2;
        while apart > 0 {
            sync_cube();
            let other = UNIT_POS ^ apart;
            if other > UNIT_POS {
                let (one, two) = (weights[UNIT_POS as usize], weights[other as usize]);
                let (first, second) = (places[UNIT_POS as usize], places[other as usize]);
                let is_before = one > two || (one == two && first < second);
                let goes_down = UNIT_POS & size == 0;
                if is_before != goes_down {
                    weights[UNIT_POS as usize] = two;
                    weights[other as usize] = one;
                    places[UNIT_POS as usize] = second;
                    places[other as usize] = first;
                }
            }
            apart /= 2;
        }
        size *= 2;
    }
    sync_cube();
}

#[cube]
fn mended(score: f32) -> f32 {
    let mut found = f32::new(-LIMIT);
    if is_sound(score) {
        found = score;
    }
    found
}
