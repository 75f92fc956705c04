//! What a step asks of the GPU beside the network: candidates, their scores, and the children of their paths.
//!
//! Every kernel sums in one order that nothing but its shapes decides, so that the same call answers the same bits.

use cubecl::prelude::*;

use super::{ABOUT, CHILD, HEAD, LEAST, LIGHTEST, LIMIT, NONE, OUT};

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

#[cube]
fn mended(score: f32) -> f32 {
    let mut found = f32::new(-LIMIT);
    if is_sound(score) {
        found = score;
    }
    found
}

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
pub(super) fn read_items(
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
pub(super) fn count_digits(
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
pub(super) fn find_digit(counts: &Array<u32>, found: &mut Array<u32>, blocks: u32, shift: u32) {
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
pub(super) fn shorten(least: &Array<u32>, scores: &mut Array<f32>, found: &mut Array<f32>, items: u32) {
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

/// Of all tokens: the weights of their holders, how many there are, and the first of them.
///
/// # Shapes
///
/// - found: `[requests, items]`
/// - best: `[requests]`
/// - offsets: `[M * D + 1]`, of holders: `[items * M]`
/// - sums, counts, firsts: `[requests, M * D]`
#[cube(launch)]
pub(super) fn weigh_tokens(
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
pub(super) fn tell_roots(
    sums: &Array<f32>,
    counts: &Array<u32>,
    firsts: &Array<u32>,
    best: &Array<f32>,
    broken: &Array<f32>,
    told: &mut Array<u32>,
    blocks: u32,
    #[comptime] codebooks: u32,
    #[comptime] entries: u32,
    #[comptime] most: u32,
    #[comptime] threads: u32,
) {
    let mut room = SharedMemory::<f32>::new(threads as usize);
    let mut places = SharedMemory::<u32>::new(threads as usize);
    let request = CUBE_POS_X;
    let first = request * codebooks * entries;
    let out = request * comptime!(HEAD as u32 + most * CHILD as u32);

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
pub(super) fn read_paths(
    scores: &Array<f32>,
    table: &Array<f32>,
    codes: &Array<u32>,
    offsets: &Array<u32>,
    holders: &Array<u32>,
    paths: &Array<u32>,
    told: &mut Array<u32>,
    items: u32,
    #[comptime] codebooks: u32,
    #[comptime] entries: u32,
    #[comptime] most: u32,
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

    let out = CUBE_POS_X * comptime!(HEAD as u32 + most * CHILD as u32);
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
