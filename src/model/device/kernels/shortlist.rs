//! Which candidates of a large catalogue are looked at: the least score that is wanted, found digit by digit.

use cubecl::prelude::*;

use super::{BLOCK, DIGITS, OUT};

/// A number that is greater where the score is.
#[cube]
fn ordered(score: f32) -> u32 {
    let bits = u32::reinterpret(score);
    let mut order = bits | 0x8000_0000u32;
    if bits >> 31 == 1 {
        order = !bits;
    }
    order
}

/// How many scores there are of each digit, of those whose higher digits are those found so far; so many scores a cube.
///
/// # Shapes
///
/// - scores: `[requests, items]`
/// - found: `[requests, 2]`, the digits found so far, and how many of the scores that have them are wanted
/// - counts: `[requests, cubes of a request, DIGITS]`
#[cube(launch)]
pub(in crate::model::device) fn count_digits(
    scores: &Array<f32>,
    found: &Array<u32>,
    counts: &mut Array<u32>,
    items: u32,
    shift: u32,
    #[comptime] counted: u32,
) {
    let mut room = SharedMemory::<u32>::new((BLOCK * DIGITS) as usize);
    let request = CUBE_POS_Y;
    let digits = found[(request * 2) as usize];
    let mut mine = Array::<u32>::new(DIGITS as usize);
    #[unroll]
    for digit in 0..DIGITS {
        mine[digit as usize] = 0;
    }
    let mut at = CUBE_POS_X * counted + UNIT_POS;
    let end = u32::min(items, (CUBE_POS_X + 1) * counted);
    while at < end {
        let order = ordered(scores[(request * items + at) as usize]);
        // By halves, as a shift by all bits is none.
        if (order >> shift) >> 4 == (digits >> shift) >> 4 {
            let found = (order >> shift) & (DIGITS - 1);
            #[unroll]
            for digit in 0..DIGITS {
                if found == digit {
                    mine[digit as usize] += 1;
                }
            }
        }
        at += BLOCK;
    }
    #[unroll]
    for digit in 0..DIGITS {
        room[(digit * BLOCK + UNIT_POS) as usize] = mine[digit as usize];
    }
    sync_cube();
    if UNIT_POS < DIGITS {
        let mut sum = 0u32.runtime();
        for thread in 0..BLOCK {
            sum += room[(UNIT_POS * BLOCK + thread) as usize];
        }
        counts[((request * CUBE_COUNT_X + CUBE_POS_X) * DIGITS + UNIT_POS) as usize] = sum;
    }
}

/// Finds the next digit of the least score that is wanted; one cube of [`DIGITS`] threads a request.
///
/// # Shapes
///
/// - counts, found: as [`count_digits`]
#[cube(launch)]
pub(in crate::model::device) fn find_digit(counts: &Array<u32>, found: &mut Array<u32>, blocks: u32, shift: u32) {
    let mut room = SharedMemory::<u32>::new(DIGITS as usize);
    let request = CUBE_POS_X;
    let mut sum = 0u32.runtime();
    for block in 0..blocks {
        sum += counts[((request * blocks + block) * DIGITS + UNIT_POS) as usize];
    }
    room[UNIT_POS as usize] = sum;
    sync_cube();
    if UNIT_POS == 0 {
        let mut wanted = found[(request * 2 + 1) as usize];
        let mut digit = (DIGITS - 1).runtime();
        while digit > 0 && room[digit as usize] < wanted {
            wanted -= room[digit as usize];
            digit -= 1;
        }
        found[(request * 2) as usize] |= digit << shift;
        found[(request * 2 + 1) as usize] = wanted;
    }
}

/// Takes items out whose scores are less than the least that is wanted.
///
/// # Shapes
///
/// - least: `[requests, 2]`, the number that the least score is ordered by, and another
/// - scores, found: `[requests, items]`
#[cube(launch)]
pub(in crate::model::device) fn shorten(
    least: &Array<u32>,
    scores: &mut Array<f32>,
    found: &mut Array<f32>,
    items: u32,
) {
    let request = CUBE_POS_Y;
    let item = CUBE_POS_X * BLOCK + UNIT_POS;
    if item < items {
        let at = (request * items + item) as usize;
        if ordered(scores[at]) < least[(request * 2) as usize] {
            scores[at] = f32::new(OUT);
            found[at] = f32::new(OUT);
        }
    }
}
