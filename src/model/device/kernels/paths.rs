//! Paths of some tokens.

use cubecl::prelude::*;

use super::{ABOUT, CHILD, HEAD, LEAST, LIGHTEST, NONE, OUT, greatest, is_sound, mended, sort, total};

/// Whether an item that has a score holds all tokens of a path, one place a codebook.
#[cube]
fn is_held(codes: &Array<u32>, tokens: &Array<u32>, score: f32, item: u32, #[comptime] codebooks: u32) -> bool {
    let mut held = score > LEAST;
    #[unroll]
    for r in 0..codebooks {
        let token = tokens[r as usize];
        if token != NONE && token != codes[(item * codebooks + r) as usize] {
            held = false;
        }
    }
    held
}

/// A score and what a path says of the item's tokens of unused codebooks; `first` is where the path's row begins.
#[cube]
fn refined(
    table: &Array<f32>,
    codes: &Array<u32>,
    tokens: &Array<u32>,
    score: f32,
    first: u32,
    item: u32,
    #[comptime] codebooks: u32,
    #[comptime] entries: u32,
) -> f32 {
    let mut sum = score;
    #[unroll]
    for r in 0..codebooks {
        if tokens[r as usize] == NONE {
            sum += table[(first + r * entries + codes[(item * codebooks + r) as usize]) as usize];
        }
    }
    sum
}

/// Reads each path, one cube a path: its candidates, the codebook that is surest of them, the heaviest of its tokens, and
/// the candidates themselves where they are asked for.
///
/// # Shapes
///
/// - scores: `[requests, items]`
/// - table: `[rows, M * D]`
/// - codes: `[items, M]`
/// - offsets: `[M * D + 1]`, of holders: `[items * M]`
/// - paths: `[paths, ABOUT + M]`: the request, the row of the table, the token whose holders are gone through, where the
///   candidates are told, the entry of each codebook
/// - told: `[paths, HEAD + most * CHILD]`, then the candidates, two numbers each
#[cube(launch)]
pub(in crate::model::device) fn read_paths(
    scores: &Array<f32>,
    table: &Array<f32>,
    codes: &Array<u32>,
    offsets: &Array<u32>,
    holders: &Array<u32>,
    paths: &Array<u32>,
    told: &mut Array<u32>,
    items: u32,
    most: u32,
    #[comptime] codebooks: u32,
    #[comptime] entries: u32,
    #[comptime] threads: u32,
    #[comptime] staged: u32,
) {
    let mut room = SharedMemory::<f32>::new(threads as usize);
    let mut places = SharedMemory::<u32>::new(threads as usize);
    let mut counts = SharedMemory::<u32>::new(threads as usize);
    let mut firsts = SharedMemory::<u32>::new(threads as usize);
    // Candidates that all threads look at, a handful at a time.
    let mut weights = SharedMemory::<f32>::new(staged as usize);
    let mut entries_of = SharedMemory::<u32>::new((staged * codebooks) as usize);

    let about = CUBE_POS_X * comptime!(ABOUT as u32 + codebooks);
    let first_score = paths[about as usize] * items;
    let first = paths[(about + 1) as usize] * codebooks * entries;
    let lead = paths[(about + 2) as usize];
    let listed = paths[(about + 3) as usize];
    let mut tokens = Array::<u32>::new(codebooks as usize);
    #[unroll]
    for r in 0..codebooks {
        tokens[r as usize] = paths[(about + ABOUT as u32 + r) as usize];
    }
    let begin = offsets[lead as usize];
    let end = offsets[(lead + 1) as usize];

    let mut best = f32::new(OUT);
    let mut unsound = f32::new(0.0);
    let mut at = begin + UNIT_POS;
    while at < end {
        let item = holders[at as usize];
        let score = scores[(first_score + item) as usize];
        if is_held(codes, &tokens, score, item, codebooks) {
            let found = refined(table, codes, &tokens, score, first, item, codebooks, entries);
            if !is_sound(found) {
                unsound += 1.0;
            }
            best = f32::max(best, mended(found));
        }
        at += threads;
    }
    let best = greatest(&mut room, best, threads);
    let unsound = total(&mut room, unsound, threads);

    // Thread j sums the weights of entry j of every codebook.
    let mut sums = Array::<f32>::new(codebooks as usize);
    #[unroll]
    for r in 0..codebooks {
        sums[r as usize] = 0.0;
    }
    let mut told_so_far = 0u32.runtime();
    let mut from = begin;
    while from < end {
        let here = u32::min(end - from, staged);
        let mut mine = f32::new(0.0);
        let mut found = f32::new(OUT);
        let mut item = 0u32.runtime();
        if UNIT_POS < here {
            item = holders[(from + UNIT_POS) as usize];
            let score = scores[(first_score + item) as usize];
            if is_held(codes, &tokens, score, item, codebooks) {
                found = mended(refined(table, codes, &tokens, score, first, item, codebooks, entries));
                mine = f32::max((found - best).exp(), LIGHTEST);
                #[unroll]
                for r in 0..codebooks {
                    entries_of[(UNIT_POS * codebooks + r) as usize] = codes[(item * codebooks + r) as usize];
                }
            }
            weights[UNIT_POS as usize] = mine;
        }
        sync_cube();
        if listed != NONE {
            let mut place = told_so_far;
            for slot in 0..here {
                if weights[slot as usize] > 0.0 {
                    if slot < UNIT_POS {
                        place += 1;
                    }
                    told_so_far += 1;
                }
            }
            if mine > 0.0 {
                told[(listed + 2 * place) as usize] = item;
                told[(listed + 2 * place + 1) as usize] = u32::reinterpret(found);
            }
        }
        for slot in 0..here {
            let weight = weights[slot as usize];
            if weight > 0.0 {
                #[unroll]
                for r in 0..codebooks {
                    if entries_of[(slot * codebooks + r) as usize] == UNIT_POS {
                        sums[r as usize] += weight;
                    }
                }
            }
        }
        sync_cube();
        from += staged;
    }
    let sum = total(&mut room, sums[0], threads);

    let mut surest = f32::new(-1.0);
    let mut chosen = 0u32.runtime();
    let mut mine = f32::new(0.0);
    #[unroll]
    for r in 0..codebooks {
        if tokens[r as usize] == NONE {
            let confidence = greatest(&mut room, sums[r as usize], threads);
            if confidence > surest {
                surest = confidence;
                chosen = r;
                mine = sums[r as usize];
            }
        }
    }

    // How many hold each token of that codebook, and the first of them.
    let mut count = 0u32.runtime();
    let mut earliest = NONE.runtime();
    let mut from = begin;
    while from < end {
        let here = u32::min(end - from, staged);
        if UNIT_POS < here {
            let item = holders[(from + UNIT_POS) as usize];
            let score = scores[(first_score + item) as usize];
            let mut entry = NONE.runtime();
            if is_held(codes, &tokens, score, item, codebooks) {
                entry = codes[(item * codebooks + chosen) as usize];
            }
            entries_of[UNIT_POS as usize] = entry;
        }
        sync_cube();
        for slot in 0..here {
            if entries_of[slot as usize] == UNIT_POS {
                count += 1;
                earliest = u32::min(earliest, holders[(from + slot) as usize]);
            }
        }
        sync_cube();
        from += staged;
    }
    counts[UNIT_POS as usize] = count;
    firsts[UNIT_POS as usize] = earliest;
    room[UNIT_POS as usize] = mine;
    places[UNIT_POS as usize] = UNIT_POS;
    sort(&mut room, &mut places, threads);

    let out = CUBE_POS_X * (HEAD as u32 + most * CHILD as u32);
    if UNIT_POS < most {
        let entry = places[UNIT_POS as usize];
        let child = out + HEAD as u32 + UNIT_POS * CHILD as u32;
        told[child as usize] = entry;
        told[(child + 1) as usize] = u32::reinterpret(room[UNIT_POS as usize]);
        told[(child + 2) as usize] = counts[entry as usize];
        told[(child + 3) as usize] = firsts[entry as usize];
    }
    if UNIT_POS == 0 {
        told[out as usize] = u32::reinterpret(best);
        told[(out + 1) as usize] = u32::reinterpret(sum);
        told[(out + 2) as usize] = chosen;
        told[(out + 3) as usize] = u32::cast_from(unsound);
    }
}
