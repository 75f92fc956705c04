//! The network on burn and in the CPU's own form: each against itself, and one against the other.

use burn::backend::Flex;
use burn::tensor::Distribution;

use super::*;
use crate::domain::{EventKind, Token};
use crate::model::CpuScorer;

/// A network small enough to test with: 30 items, 4 codebooks of 8 entries.
pub fn tiny() -> NetworkConfig {
    NetworkConfig {
        items: 30,
        categories: 5,
        codes: CodeShape { codebooks: 4, entries: 8 },
        feature_width: 3,
        width: 16,
        encoder_layers: 2,
        decoder_layers: 2,
        feed_forward: 32,
        max_history: 20,
        ..NetworkConfig::tiny()
    }
}

/// Widths that fill no register, and enough items for tiles and a rest.
fn odd() -> NetworkConfig {
    NetworkConfig { items: 203, width: 42, heads: 3, feed_forward: 37, max_history: 9, categories: 19, ..tiny() }
}

/// Heads that are together wider than d.
fn wide() -> NetworkConfig {
    NetworkConfig { heads: 3, head_width: Some(12), ..tiny() }
}

fn codes(config: &NetworkConfig) -> CodeTable {
    let entries = 0..(config.items * config.codes.codebooks) as u32;
    let entry = |at: u32| (at.wrapping_mul(2_654_435_761) >> 20) as u16 % config.codes.entries as u16;
    CodeTable::new(config.codes, entries.map(entry).collect()).unwrap()
}

/// A network whose path heads and residuals are not zero, so that every part takes part.
fn network(config: &NetworkConfig) -> Network<Flex> {
    let mut network = config.init::<Flex>(&Default::default());
    let drawn = |x: Tensor<Flex, 2>, spread: f64| x.random_like(Distribution::Normal(0.0, spread));
    network.residuals = network.residuals.map(|x| drawn(x, 0.3));
    network.refinement_head.weight = network.refinement_head.weight.map(|x| drawn(x, 0.3));
    // Fresh norms are all ones.
    network.encoder_norm.gamma = network.encoder_norm.gamma.map(|x| x.random_like(Distribution::Normal(1.0, 0.2)));
    network
}

fn on_burn(network: &Network<Flex>, config: &NetworkConfig) -> NetworkScorer<Flex> {
    NetworkScorer::new(network.clone(), config.clone(), &codes(config), Default::default()).unwrap()
}

fn on_cpu(network: &Network<Flex>, config: &NetworkConfig) -> CpuScorer {
    CpuScorer::new(network, config.clone(), &codes(config)).unwrap()
}

fn history(items: &[u32]) -> History {
    let kind = |at: usize| EventKind::ALL[at % EventKind::ALL.len()];
    let entry = |(at, &item): (usize, &u32)| HistoryEntry { item, kind: kind(at), time: (at * at) as i64 * 1000 };
    items.iter().enumerate().map(entry).collect()
}

fn close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (x, y) in a.iter().zip(b) {
        assert!((x - y).abs() < 1e-4 * (1.0 + x.abs()), "{x} and {y} differ");
    }
}

fn states_close(a: &[PathState], b: &[PathState]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        close(&a.refinement, &b.refinement);
        close(&a.beliefs, &b.beliefs);
        close(&a.attention, &b.attention);
    }
}

fn begin(request: usize) -> Advance {
    Advance { request, extends: None }
}

fn next(request: usize, parent: usize, token: Token) -> Advance {
    Advance { request, extends: Some((parent, token)) }
}

fn token(codebook: u8, entry: u16) -> Token {
    Token { codebook, entry }
}

/// Three requests through three steps, the paths in no order: what is read of each, and the scores of all items.
fn walk(scorer: &mut impl PathModel<Error = ScorerError>, items: usize) -> (Vec<Vec<PathState>>, Vec<f32>) {
    let histories = [history(&[3]), history(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]), history(&[29, 0])];
    scorer.encode(&histories.iter().collect::<Vec<_>>()).unwrap();
    let mut scores = vec![0.0; 3 * items];
    scorer.score_items(0..3, &mut scores).unwrap();
    let roots = scorer.advance(&[begin(0), begin(1), begin(2)], true).unwrap();
    let rows = [next(0, 0, token(1, 2)), next(2, 2, token(0, 7)), next(2, 2, token(3, 1)), next(1, 1, token(2, 0))];
    let first = scorer.advance(&rows, true).unwrap();
    let second = scorer.advance(&[next(2, 2, token(0, 5)), next(2, 1, token(1, 1))], true).unwrap();
    (vec![roots, first, second], scores)
}

fn batched_equals_single(scorer: &mut impl PathModel<Error = ScorerError>, items: usize) {
    let (together, scores) = walk(scorer, items);
    scorer.encode(&[&history(&[29, 0])]).unwrap();
    let mut alone = vec![0.0; items];
    scorer.score_items(0..1, &mut alone).unwrap();
    let root = scorer.advance(&[begin(0)], true).unwrap();
    let step = scorer.advance(&[next(0, 0, token(3, 1))], true).unwrap();
    let last = scorer.advance(&[next(0, 0, token(0, 5))], true).unwrap();
    close(&scores[2 * items..], &alone);
    states_close(&together[0][2..], &root);
    states_close(&together[1][2..3], &step);
    states_close(&together[2][..1], &last);
    assert!(together[1][1].refinement != together[1][2].refinement, "siblings must not share a state");
    assert!(step[0].refinement.iter().any(|x| x.abs() > 0.01), "{:?}", step[0]);
}

#[test]
fn batched_histories_equal_single_ones() {
    for config in [tiny(), odd(), wide()] {
        let network = network(&config);
        batched_equals_single(&mut on_burn(&network, &config), config.items);
        batched_equals_single(&mut on_cpu(&network, &config), config.items);
    }
}

fn tells_attention(scorer: &mut impl PathModel<Error = ScorerError>, config: &NetworkConfig) {
    let silent = walk(scorer, config.items);
    scorer.keep_attention(true);
    let telling = walk(scorer, config.items);
    let requests = [&[0, 1, 2][..], &[0, 2, 2, 1], &[2, 2]];
    for ((silent, telling), requests) in silent.0.iter().zip(&telling.0).zip(requests) {
        for ((silent, telling), request) in silent.iter().zip(telling).zip(requests) {
            assert_eq!((&silent.refinement, &silent.beliefs), (&telling.refinement, &telling.beliefs));
            assert!(silent.attention.is_empty());
            let events = [1, 11, 2][*request].min(config.max_history);
            assert_eq!(telling.attention.len(), events);
            assert!((telling.attention.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{:?}", telling.attention);
            assert!(telling.attention.iter().all(|weight| *weight > 0.0));
        }
    }
    let first = &telling.0[1];
    assert_ne!(first[1].attention, first[2].attention, "siblings look at different events");
}

#[test]
fn who_is_asked_tells_how_much_each_path_looks_at_each_event_and_says_the_same_otherwise() {
    for config in [tiny(), odd()] {
        let network = network(&config);
        tells_attention(&mut on_cpu(&network, &config), &config);
        tells_attention(&mut on_burn(&network, &config), &config);
    }
}

#[test]
fn long_histories_in_large_batches_are_read_as_burn_reads_them() {
    let config = NetworkConfig { max_history: 150, ..wide() };
    let network = network(&config);
    let items = |length: usize| (0..length).map(|at| (at * 7 % config.items) as u32).collect::<Vec<_>>();
    let histories: Vec<History> = (1..=8).map(|at| history(&items(at * 19))).collect();
    let read = |model: &mut dyn PathModel<Error = ScorerError>| {
        model.encode(&histories.iter().collect::<Vec<_>>()).unwrap();
        let mut scores = vec![0.0; histories.len() * config.items];
        model.score_items(0..histories.len(), &mut scores).unwrap();
        let begun: Vec<Advance> = (0..histories.len()).map(begin).collect();
        (scores, model.advance(&begun, true).unwrap())
    };
    let (our_scores, ours) = read(&mut on_cpu(&network, &config));
    let (their_scores, theirs) = read(&mut on_burn(&network, &config));
    close(&our_scores, &their_scores);
    states_close(&ours, &theirs);
}

#[test]
fn the_cpus_own_form_gives_what_burn_gives() {
    for config in [tiny(), odd(), wide()] {
        let network = network(&config);
        let (mut cpu, mut burn) = (on_cpu(&network, &config), on_burn(&network, &config));
        cpu.keep_attention(true);
        burn.keep_attention(true);
        let (ours, our_scores) = walk(&mut cpu, config.items);
        let (theirs, their_scores) = walk(&mut burn, config.items);
        close(&our_scores, &their_scores);
        ours.iter().zip(&theirs).for_each(|(ours, theirs)| states_close(ours, theirs));
        let silent = on_cpu(&network, &config);
        let mut silent = silent;
        silent.encode(&[&history(&[3])]).unwrap();
        let state = silent.advance(&[begin(0)], false).unwrap().remove(0);
        assert!(state.beliefs.is_empty() && state.refinement == ours[0][0].refinement);
    }
}

#[test]
fn histories_read_for_scores_alone_score_items_alike_and_no_path() {
    for config in [tiny(), odd(), wide()] {
        let (network, most) = (network(&config), config.max_history + 2);
        let mut scorer = on_cpu(&network, &config);
        let items = |length: usize| (0..length).map(|at| (at * 7 % config.items) as u32).collect::<Vec<_>>();
        let histories: Vec<History> = (1..=most).map(|length| history(&items(length))).collect();
        let histories: Vec<&History> = histories.iter().collect();
        let (mut whole, mut alone) = (vec![0.0; most * config.items], vec![0.0; most * config.items]);
        scorer.encode(&histories).unwrap();
        scorer.score_items(0..most, &mut whole).unwrap();
        scorer.encode_for_scores(&histories).unwrap();
        scorer.score_items(0..most, &mut alone).unwrap();
        close(&alone, &whole);
        assert!(matches!(scorer.advance(&[begin(0)], false), Err(ScorerError::Sequence(_))));
        // What was left out is there again.
        scorer.encode(&histories).unwrap();
        scorer.advance(&[begin(0)], false).unwrap();
    }
}

#[test]
fn items_that_are_tokens_alone_score_as_on_burn() {
    let fresh = odd();
    for config in [&fresh, &NetworkConfig { codes: CodeShape { codebooks: 8, entries: 5 }, ..odd() }] {
        // Residuals start at zero.
        let mut network = config.init::<Flex>(&Default::default());
        network.refinement_head.weight =
            network.refinement_head.weight.map(|x| x.random_like(Distribution::Normal(0.0, 0.3)));
        let (ours, our_scores) = walk(&mut on_cpu(&network, config), config.items);
        let (theirs, their_scores) = walk(&mut on_burn(&network, config), config.items);
        assert!(our_scores.iter().any(|score| score.abs() > 0.01));
        close(&our_scores, &their_scores);
        ours.iter().zip(&theirs).for_each(|(ours, theirs)| states_close(ours, theirs));
    }
}

#[test]
fn near_scores_lie_within_their_margins_and_sharpen_to_the_true_ones() {
    let config = NetworkConfig { items: 70_000, ..tiny() };
    let mut scorer = on_cpu(&network(&config), &config);
    let histories = [history(&[3, 69_999]), history(&[50, 7, 1])];
    scorer.encode(&histories.iter().collect::<Vec<_>>()).unwrap();
    let (mut near, mut whole) = (vec![0.0; 2 * config.items], vec![0.0; 2 * config.items]);
    assert!(scorer.score_items_nearly(0..2, &mut near).unwrap());
    scorer.score_items(0..2, &mut whole).unwrap();
    assert!(near != whole);
    for request in 0..2 {
        let (near, whole) =
            (&mut near[request * config.items..][..config.items], &whole[request * config.items..][..config.items]);
        let margins = scorer.margins(request);
        for ((near, whole), margin) in near.iter().zip(whole).zip(margins.items) {
            assert!((near - whole).abs() <= margins.factor * margin, "{near} for {whole}");
        }
        scorer.score_these(request, &[5, 69_999], near).unwrap();
        assert_eq!((near[5], near[69_999]), (whole[5], whole[69_999]));
    }
    // Small catalogues are scored as they are.
    let config = tiny();
    let mut scorer = on_cpu(&network(&config), &config);
    scorer.encode(&[&history(&[1])]).unwrap();
    assert!(!scorer.score_items_nearly(0..1, &mut vec![0.0; config.items]).unwrap());
}

#[test]
fn a_large_batch_scores_items_as_a_small_one() {
    let config = odd();
    let mut scorer = on_cpu(&network(&config), &config);
    let histories: Vec<History> = (0..70).map(|user| history(&[user, user * 2, 7])).collect();
    scorer.encode(&histories.iter().collect::<Vec<_>>()).unwrap();
    let mut together = vec![0.0; 70 * config.items];
    scorer.score_items(0..70, &mut together).unwrap();
    for (request, row) in together.chunks_exact(config.items).enumerate() {
        let mut alone = vec![0.0; config.items];
        scorer.score_items(request..request + 1, &mut alone).unwrap();
        close(row, &alone);
    }
}

#[test]
fn stepping_equals_one_pass_over_the_whole_path() {
    let config = tiny();
    let mut scorer = on_burn(&network(&config), &config);
    let user = history(&[4, 9, 2]);
    let path = [token(2, 3), token(0, 6), token(1, 1)];
    scorer.encode(&[&user]).unwrap();
    let mut stepped = scorer.advance(&[begin(0)], true).unwrap();
    for token in path {
        stepped.extend(scorer.advance(&[next(0, 0, token)], true).unwrap());
    }

    scorer.encode(&[&user]).unwrap();
    let state = scorer.batch.take().unwrap();
    let network = &scorer.network;
    let inputs: Vec<_> = std::iter::once(network.begin_inputs(state.queries))
        .chain(path.iter().enumerate().map(|(at, &token)| {
            let flat = scorer.config.codes.flat(token) as i32;
            let flat = Tensor::<Flex, 1, Int>::from_data(TensorData::new(vec![flat], [1]), &scorer.device);
            network.token_inputs(network.tokens().select(0, flat), at + 1)
        }))
        .collect();
    let x = Tensor::cat(inputs, 0); // [steps, d]
    let states = network.decode(x, 1, &mut Vec::new(), &state.history, state.hidden);
    let beliefs = floats(softmax(network.category_logits(states), 1)).unwrap();
    for (step, stepped) in stepped.iter().enumerate() {
        close(&stepped.beliefs, &row_of(&beliefs, 5, step));
    }
}

fn refuses_nonsense(scorer: &mut impl PathModel<Error = ScorerError>, items: usize) {
    assert!(matches!(scorer.advance(&[begin(0)], false), Err(ScorerError::Sequence(_))));
    assert!(matches!(scorer.encode(&[&history(&[items as u32])]), Err(ScorerError::Item(..))));
    assert!(matches!(scorer.encode(&[&Vec::new()]), Err(ScorerError::Sequence(_))));
    scorer.encode(&[&history(&[1])]).unwrap();
    assert!(scorer.advance(&[begin(1)], false).is_err());
    assert!(scorer.score_items(0..2, &mut vec![0.0; 2 * items]).is_err());
    assert!(scorer.score_items(0..1, &mut vec![0.0; items - 1]).is_err());
    assert!(scorer.advance(&[next(0, 0, token(0, 0))], false).is_err());
    scorer.advance(&[begin(0)], false).unwrap();
    assert!(scorer.advance(&[next(0, 1, token(0, 0))], false).is_err());
    assert!(scorer.advance(&[begin(0)], false).is_err());
}

#[test]
fn calls_out_of_turn_and_foreign_items_are_errors() {
    let config = tiny();
    let network = network(&config);
    refuses_nonsense(&mut on_burn(&network, &config), config.items);
    refuses_nonsense(&mut on_cpu(&network, &config), config.items);
    let other = CodeTable::new(config.codes, vec![0; 4 * 29]).unwrap();
    assert!(CpuScorer::new(&network, config, &other).is_err());
}

#[test]
fn sizes_are_rounded_up_and_what_fills_them_is_not_told() {
    let config = tiny();
    let mut scorer = on_burn(&network(&config), &config);
    let histories: Vec<History> = (0..5).map(|user| history(&[user, 7, 2 * user + 1])).collect();
    let mut of_five = vec![0.0; 5 * config.items];
    scorer.encode(&histories.iter().collect::<Vec<_>>()).unwrap();
    scorer.score_items(0..5, &mut of_five).unwrap();
    scorer.score_items(1..1, &mut []).unwrap();
    let mut of_three = vec![0.0; 3 * config.items];
    scorer.score_items(2..5, &mut of_three).unwrap();
    close(&of_five[2 * config.items..], &of_three);
    scorer.advance(&(0..5).map(begin).collect::<Vec<_>>(), false).unwrap();
    let rows: Vec<Advance> = (0..5).flat_map(|user| (0..3).map(move |at| next(user, user, token(1, at)))).collect();
    assert_eq!(scorer.advance(&rows, true).unwrap().len(), 15);
    let batch = scorer.batch.as_ref().unwrap();
    assert_eq!(batch.queries.dims()[0], 8, "requests");
    assert_eq!(batch.hidden.dims(), [8, 1, 1, 8], "requests and events");
    assert_eq!(batch.past[0].keys.dims()[0], 8 * 8, "requests and their paths");
}

#[test]
fn the_shapes_to_be_seen_are_those_that_sizes_are_rounded_up_to() {
    let config = NetworkConfig { max_history: 20, ..tiny() };
    let scorer = on_burn(&network(&config), &config);
    let shapes = scorer.shapes(Shape { requests: 5, events: 50, paths: 20 });
    let of = |size: fn(&Shape) -> usize| {
        let mut sizes: Vec<usize> = shapes.iter().map(size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    };
    assert_eq!(of(|shape| shape.requests), [1, 2, 4, 8]);
    assert_eq!(of(|shape| shape.events), [8, 16, 20]);
    assert_eq!(of(|shape| shape.paths), [8, 16, 32]);
    assert_eq!(shapes.len(), 4 * 3 * 3);
    let of_one = scorer.shapes(Shape { requests: 1, events: 1, paths: 1 });
    assert_eq!(of_one, [Shape { requests: 1, events: 8, paths: 8 }]);
    assert!(on_cpu(&network(&config), &config).shapes(Shape { requests: 5, events: 50, paths: 20 }).is_empty());
}

#[test]
fn fresh_path_heads_refine_nothing() {
    let config = tiny();
    let network = config.init::<Flex>(&Default::default());
    let mut scorer = on_cpu(&network, &config);
    scorer.encode(&[&history(&[1, 2])]).unwrap();
    let state = scorer.advance(&[begin(0)], true).unwrap().remove(0);
    assert!(state.refinement.iter().all(|x| *x == 0.0));
    assert!((state.beliefs.iter().sum::<f32>() - 1.0).abs() < 1e-5);
}

/// The codes of `config` with an item more, and item 5 with the code of item 9.
fn grown(config: &NetworkConfig) -> CodeTable {
    let known = codes(config);
    let mut entries = known.entries().to_vec();
    entries[5 * 4..6 * 4].copy_from_slice(&known.code(9).to_vec());
    entries.extend([7, 0, 3, 5]);
    CodeTable::new(config.codes, entries).unwrap()
}

fn scores(scorer: &mut impl PathModel<Error = ScorerError>, items: usize) -> Vec<f32> {
    scorer.encode(&[&history(&[3, 8, 1])]).unwrap();
    let mut scores = vec![0.0; items];
    scorer.score_items(0..1, &mut scores).unwrap();
    scores
}

#[test]
fn a_placed_item_scores_as_the_one_it_is_like_and_all_others_as_before() {
    let config = tiny();
    let (network, codes, items) = (network(&config), grown(&config), config.items);
    let placed = [Placement { item: 5, like: vec![(5, 1.0)] }, Placement { item: items as u32, like: vec![(4, 1.0)] }];
    fn check(mut scorer: impl PathModel<Error = ScorerError>, items: usize, codes: &CodeTable, placed: &[Placement]) {
        let before = scores(&mut scorer, items);
        scorer.place(codes, placed).unwrap();
        let after = scores(&mut scorer, items + 1);
        close(&after[..items], &before);
        close(&after[items..], &before[4..5]);
        // And as part of a history.
        scorer.encode(&[&history(&[4]), &history(&[items as u32])]).unwrap();
        let mut of_both = vec![0.0; 2 * (items + 1)];
        scorer.score_items(0..2, &mut of_both).unwrap();
        close(&of_both[..items + 1], &of_both[items + 1..]);
    }
    check(on_burn(&network, &config), items, &codes, &placed);
    check(on_cpu(&network, &config), items, &codes, &placed);
}

#[test]
fn placing_is_the_same_on_burn_and_on_the_cpu() {
    let config = tiny();
    let (network, codes, items) = (network(&config), grown(&config), config.items);
    // In this order: a clone of a network whose weights nobody has read yet draws others.
    let mut cpu = on_cpu(&network, &config);
    let mut burn = on_burn(&network, &config);
    for like in [vec![], vec![(2, 0.75), (11, 0.25)]] {
        let placed = [Placement { item: items as u32, like }];
        burn.place(&codes, &placed).unwrap();
        cpu.place(&codes, &placed).unwrap();
        close(&scores(&mut burn, items + 1), &scores(&mut cpu, items + 1));
        let sums = cpu.token_vectors().sums.unwrap().to_vec();
        let vectors = cpu.token_vectors();
        let token = |(r, &entry): (usize, &u16)| &vectors.rows[(r * 8 + usize::from(entry)) * 16..][..16];
        let rows: Vec<&[f32]> = codes.code(items as u32).iter().enumerate().map(token).collect();
        let sum: Vec<f32> = (0..16).map(|at| rows.iter().map(|row| row[at]).sum()).collect();
        close(&sums[items * 16..], &sum);
    }
}

#[test]
fn placing_what_is_not_there_is_refused_and_changes_nothing() {
    let config = tiny();
    let (network, codes, items) = (network(&config), grown(&config), config.items);
    let mut scorer = on_cpu(&network, &config);
    let before = scores(&mut scorer, items);
    let fewer = CodeTable::new(config.codes, codes.entries()[..8 * 4].to_vec()).unwrap();
    for (codes, item, like) in [(&codes, 31, 0), (&codes, 30, 31), (&fewer, 5, 5)] {
        assert!(scorer.place(codes, &[Placement { item, like: vec![(like, 1.0)] }]).is_err());
    }
    close(&scores(&mut scorer, items), &before);
}

#[test]
fn an_item_placed_in_a_large_catalogue_is_rounded_too() {
    let config = NetworkConfig { items: 70_000, ..tiny() };
    let mut scorer = on_cpu(&network(&config), &config);
    let grown = grown(&config);
    scorer.place(&grown, &[Placement { item: 70_000, like: vec![(4, 1.0)] }]).unwrap();
    scorer.encode(&[&history(&[3, 8])]).unwrap();
    let (mut near, mut whole) = (vec![0.0; 70_001], vec![0.0; 70_001]);
    assert!(scorer.score_items_nearly(0..1, &mut near).unwrap());
    scorer.score_items(0..1, &mut whole).unwrap();
    let margins = scorer.margins(0);
    assert_eq!((near[70_000], whole[70_000]), (near[4], whole[4]));
    assert!((near[70_000] - whole[70_000]).abs() <= margins.factor * margins.items[70_000]);
}

#[test]
fn an_item_placed_among_tokens_alone_is_its_tokens() {
    let config = tiny();
    let network = config.init::<Flex>(&Default::default());
    let mut scorer = on_cpu(&network, &config);
    scorer
        .place(&grown(&config), &[Placement { item: 5, like: vec![] }, Placement { item: 30, like: vec![] }])
        .unwrap();
    let scores = scores(&mut scorer, 31);
    // Item 5 has the code of item 9 now.
    assert_eq!(scores[5], scores[9]);
    assert_ne!(scores[30], 0.0);
}
