//! `<BOS>`: the scores of all items, the weights of all tokens.

use cubecl::prelude::*;

use super::{BLOCK, CHILD, HEAD, LEAST, LIGHTEST, LIMIT, NONE, OUT, TEAM, greatest, is_sound, mended, sort, total};

/// Of all items: their scores, with bias, where they may be answered, and what `<BOS>` makes of them.
///
/// # Shapes
///
/// - raw: `[requests, items]`
/// - table: `[requests, M * D]`
/// - codes: `[items, M]`
/// - eligible: `[requests, items / 32]`, a bit an item
/// - bias: `[biased requests, items]`; rows_of_bias: `[requests]`
/// - scores, found: `[requests, items]`
/// - broken: `[requests, cubes of a request]`
#[cube(launch)]
pub(in crate::model::device) fn read_items(
    raw: &Array<f32>,
    table: &Array<f32>,
    codes: &Array<u32>,
    eligible: &Array<u32>,
    bias: &Array<f32>,
    rows_of_bias: &Array<u32>,
    scores: &mut Array<f32>,
    found: &mut Array<f32>,
    broken: &mut Array<f32>,
    items: u32,
    #[comptime] codebooks: u32,
    #[comptime] entries: u32,
) {
    let mut room = SharedMemory::<f32>::new(BLOCK as usize);
    let request = CUBE_POS_Y;
    let item = CUBE_POS_X * BLOCK + UNIT_POS;
    let mut unsound = f32::new(0.0);
    if item < items {
        let at = request * items + item;
        let mut score = raw[at as usize];
        if !is_sound(score) {
            score = f32::new(-LIMIT);
            unsound += 1.0;
        }
        let row = rows_of_bias[request as usize];
        if row != NONE {
            score += bias[(row * items + item) as usize];
        }
        let word = eligible[(request * items.div_ceil(32) + item / 32) as usize];
        let mut kept = f32::new(OUT);
        let mut whole = f32::new(OUT);
        if (word >> (item % 32)) & 1 == 1 {
            kept = score;
            let mut sum = score;
            #[unroll]
            for r in 0..codebooks {
                let code = codes[(item * codebooks + r) as usize];
                sum += table[(request * codebooks * entries + r * entries + code) as usize];
            }
            if !is_sound(sum) {
                unsound += 1.0;
            }
            whole = mended(sum);
        }
        scores[at as usize] = kept;
        found[at as usize] = whole;
    }
    let sum = total(&mut room, unsound, BLOCK);
    if UNIT_POS == 0 {
        broken[(request * CUBE_COUNT_X + CUBE_POS_X) as usize] = sum;
    }
}

/// Of all tokens: the weights of their holders, how many there are, and the first of them.
///
/// # Shapes
///
/// - found: `[requests, items]`
/// - best: `[requests]`
/// - offsets: `[M * D + 1]`, of holders: `[items * M]`
/// - sums, counts, firsts: `[requests, M * D]`
#[cube(launch)]
pub(in crate::model::device) fn weigh_tokens(
    found: &Array<f32>,
    best: &Array<f32>,
    offsets: &Array<u32>,
    holders: &Array<u32>,
    sums: &mut Array<f32>,
    counts: &mut Array<u32>,
    firsts: &mut Array<u32>,
    items: u32,
    tokens: u32,
) {
    let mut room = SharedMemory::<f32>::new(BLOCK as usize);
    let mut counted = SharedMemory::<u32>::new(BLOCK as usize);
    let mut earliest = SharedMemory::<u32>::new(BLOCK as usize);
    let request = CUBE_POS_Y;
    let lane = UNIT_POS % TEAM;
    let token = CUBE_POS_X * (BLOCK / TEAM) + UNIT_POS / TEAM;
    let mut sum = f32::new(0.0);
    let mut count = 0u32.runtime();
    let mut first = NONE.runtime();
    if token < tokens {
        let most = best[request as usize];
        let end = offsets[(token + 1) as usize];
        let mut at = offsets[token as usize] + lane;
        while at < end {
            let item = holders[at as usize];
            let score = found[(request * items + item) as usize];
            if score > LEAST {
                sum += f32::max((score - most).exp(), LIGHTEST);
                count += 1;
                first = u32::min(first, item);
            }
            at += TEAM;
        }
    }
    room[UNIT_POS as usize] = sum;
    counted[UNIT_POS as usize] = count;
    earliest[UNIT_POS as usize] = first;
    sync_cube();
    let mut half = (TEAM / 2).runtime();
    while half > 0 {
        if lane < half {
            let (here, there) = (UNIT_POS as usize, (UNIT_POS + half) as usize);
            let (sum, count, first) = (room[there], counted[there], earliest[there]);
            room[here] += sum;
            counted[here] += count;
            earliest[here] = u32::min(earliest[here], first);
        }
        sync_cube();
        half /= 2;
    }
    if lane == 0 && token < tokens {
        let at = (request * tokens + token) as usize;
        sums[at] = room[UNIT_POS as usize];
        counts[at] = counted[UNIT_POS as usize];
        firsts[at] = earliest[UNIT_POS as usize];
    }
}

/// Tells of each request the codebook that is surest, and the heaviest of its tokens; one cube a request.
///
/// # Shapes
///
/// - sums, counts, firsts: `[requests, M * D]`
/// - best: `[requests]`; broken: `[requests, blocks]`
/// - told: `[requests, HEAD + most * CHILD]`
#[cube(launch)]
pub(in crate::model::device) fn tell_roots(
    sums: &Array<f32>,
    counts: &Array<u32>,
    firsts: &Array<u32>,
    best: &Array<f32>,
    broken: &Array<f32>,
    told: &mut Array<u32>,
    blocks: u32,
    most: u32,
    #[comptime] codebooks: u32,
    #[comptime] entries: u32,
    #[comptime] threads: u32,
) {
    let mut room = SharedMemory::<f32>::new(threads as usize);
    let mut places = SharedMemory::<u32>::new(threads as usize);
    let request = CUBE_POS_X;
    let first = request * codebooks * entries;
    let out = request * (HEAD as u32 + most * CHILD as u32);

    let mut unsound = f32::new(0.0);
    let mut at = UNIT_POS;
    while at < blocks {
        unsound += broken[(request * blocks + at) as usize];
        at += threads;
    }
    let unsound = total(&mut room, unsound, threads);

    let mut mine = f32::new(0.0);
    if UNIT_POS < entries {
        mine = sums[(first + UNIT_POS) as usize];
    }
    let sum = total(&mut room, mine, threads);
    let mut surest = f32::new(-1.0);
    let mut chosen = 0u32.runtime();
    for r in 0..codebooks {
        let mut weight = f32::new(0.0);
        if UNIT_POS < entries {
            weight = sums[(first + r * entries + UNIT_POS) as usize];
        }
        let confidence = greatest(&mut room, weight, threads);
        if confidence > surest {
            surest = confidence;
            chosen = r;
            mine = weight;
        }
    }
    room[UNIT_POS as usize] = mine;
    places[UNIT_POS as usize] = UNIT_POS;
    sort(&mut room, &mut places, threads);
    if UNIT_POS < most {
        let entry = places[UNIT_POS as usize];
        let child = out + HEAD as u32 + UNIT_POS * CHILD as u32;
        told[child as usize] = entry;
        told[(child + 1) as usize] = u32::reinterpret(room[UNIT_POS as usize]);
        if entry < entries {
            let token = (first + chosen * entries + entry) as usize;
            told[(child + 2) as usize] = counts[token];
            told[(child + 3) as usize] = firsts[token];
        }
    }
    if UNIT_POS == 0 {
        told[out as usize] = u32::reinterpret(best[request as usize]);
        told[(out + 1) as usize] = u32::reinterpret(sum);
        told[(out + 2) as usize] = chosen;
        told[(out + 3) as usize] = u32::cast_from(unsound);
    }
}
