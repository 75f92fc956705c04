//! What every answer keeps to, whatever the catalogue and the network.

use std::collections::HashSet;

use proptest::prelude::*;

use crate::catalog::{Candidates, Index};
use crate::decode::{DecodeSettings, Engine, Expansion, Outcome};
use crate::domain::{CodeShape, Filter};

use super::fake::{Fake, alone, catalogue, everything, full_width, random_catalogue};

fn assert_kept(outcome: &Outcome, index: &Index, root: &Candidates, k: usize, settings: &DecodeSettings) {
    assert_eq!(outcome.items.len(), k.min(root.len()), "as many as there are");
    assert_eq!(outcome.short, root.len() < k);
    let distinct: HashSet<u32> = outcome.items.iter().map(|item| item.item).collect();
    assert_eq!(distinct.len(), outcome.items.len(), "no item twice");
    for pair in outcome.items.windows(2) {
        let of = |at: usize| (pair[at].score, index.item(pair[at].item).prior);
        let lower_number = of(0) == of(1) && pair[0].item < pair[1].item;
        assert!(of(0) > of(1) || lower_number, "{pair:?} are in order");
    }
    for item in &outcome.items {
        assert!(root.contains(item.item) && index.item(item.item).item.eligible, "eligible");
        assert!(item.score.is_finite());
        let Some(path) = &item.path else {
            assert_eq!(settings.engine, Engine::Exact);
            continue;
        };
        let code = index.codes().code(item.item);
        let used: HashSet<u8> = path.steps.iter().map(|step| step.token.codebook).collect();
        assert_eq!(used.len(), path.steps.len(), "each codebook once");
        assert!(!settings.full_path || path.steps.len() == code.len(), "complete when asked");
        let mut log_p = path.finish.ln();
        for (at, step) in path.steps.iter().enumerate() {
            assert_eq!(step.token.entry, code[usize::from(step.token.codebook)], "the path leads to the item");
            assert_eq!((step.beliefs.len(), step.divergence.is_some()), (3, at > 0));
            assert!(step.probability > 0.0 && step.probability <= 1.0);
            log_p += step.probability.ln();
        }
        assert!((log_p - item.score).abs() < 1e-3, "{log_p} against {}: the path tells the score", item.score);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_eligible_and_none_comes_twice(
        seed: u64,
        items in 0usize..40,
        (codebooks, entries) in (1usize..5, 2usize..6),
        k in 0usize..60,
        (beam, reserve) in (1usize..8, 0usize..4),
        (corp, theta, corp_from) in (any::<bool>(), 0.0f32..0.3, 0usize..3),
        (full_path, flat, engine) in (any::<bool>(), any::<bool>(), 0u8..8),
        (finish_at, finish_together, shortlist) in (0usize..6, 0usize..4, 1usize..80),
        (filtered, refinement) in (0u8..4, 0.0f32..3.0),
    ) {
        let shape = CodeShape { codebooks, entries };
        let index = random_catalogue(seed, items, shape);
        let mut model = Fake::random(seed, &index, refinement);
        let filter = match filtered {
            0 => Filter::default(),
            1 => Filter { exclude_brands: vec!["brand 1".into()], exclude_items: vec!["2".into()], ..Filter::default() },
            2 => Filter { include_categories: vec!["kind 1".into(), "kind 2".into()], ..Filter::default() },
            _ => Filter { min_price: Some(3.0), max_price: Some(20.0), ..Filter::default() },
        };
        let root = index.root(&filter, &[0, 9, 1000]);
        let settings = DecodeSettings {
            beam, reserve, corp, theta, corp_from, finish_at, finish_together, full_path, shortlist,
            expansion: if flat { Expansion::Flat } else { Expansion::Crss },
            engine: [Engine::Exact, Engine::Draft].get(engine as usize).copied().unwrap_or(Engine::Beam),
            draft_items: 1 + beam * 3,
        };
        let outcome = alone(&mut model, &index, &root, k, &settings);
        assert_kept(&outcome, &index, &root, k, &settings);
        prop_assert_eq!(outcome.non_finite, 0);
    }
}

#[test]
fn colliding_items_are_answered_by_score_then_prior_then_number() {
    let shape = CodeShape { codebooks: 2, entries: 2 };
    let index = catalogue(shape, vec![1, 0, 1, 0, 1, 0, 1, 0, 0, 1]);
    let mut model = Fake::random(1, &index, 0.5);
    model.rows = vec![0.0; 15];
    let query = (model.query)(super::fake::key(&super::fake::history(1)));
    // Item 2 has a residual that the user likes; 0, 1 and 3 differ in nothing but their prior.
    model.rows[6..9].copy_from_slice(&query.residual);
    let mut by_prior = [0u32, 1, 3];
    by_prior.sort_by(|a, b| index.item(*b).prior.total_cmp(&index.item(*a).prior));
    for engine in [Engine::Beam, Engine::Exact, Engine::Draft] {
        let settings = DecodeSettings { engine, ..full_width() };
        let outcome = alone(&mut model, &index, &everything(&index), 5, &settings);
        let colliding: Vec<u32> = outcome.items.iter().map(|item| item.item).filter(|&item| item != 4).collect();
        assert_eq!(colliding, [&[2], &by_prior[..]].concat());
    }
}

#[test]
fn a_narrow_beam_still_answers_every_eligible_item() {
    let shape = CodeShape { codebooks: 3, entries: 8 };
    let index = random_catalogue(2, 200, shape);
    let mut model = Fake::random(2, &index, 1.0);
    let root = everything(&index);
    for full_path in [false, true] {
        let settings = DecodeSettings { beam: 1, finish_together: 0, full_path, ..DecodeSettings::default() };
        let outcome = alone(&mut model, &index, &root, 500, &settings);
        assert_eq!((outcome.items.len(), outcome.short), (root.len(), true));
    }
}

#[test]
fn a_search_ends_once_no_path_can_beat_the_kth_answer() {
    // Three items that the user loves under one token, and 200 others under three.
    let shape = CodeShape { codebooks: 3, entries: 8 };
    let at = |n: u16| if n < 3 { [0, n, n] } else { [1 + n % 3, n % 8, n / 8 % 8] };
    let index = catalogue(shape, (0..203).flat_map(at).collect());
    let root = everything(&index);
    let mut model = Fake::random(4, &index, 0.1);
    let query = model.query;
    model.query = Box::new(move |key| {
        let mut query = query(key);
        query.token_scores[0] += 30.0;
        query
    });
    let settings = DecodeSettings { beam: 4, corp: false, finish_together: 0, ..DecodeSettings::default() };
    let few = alone(&mut model, &index, &root, 3, &settings);
    assert_eq!((few.passes, model.advances, model.rows_read), (2, 2, 5));
    assert!(few.items.iter().all(|item| item.item < 3));
    assert!(alone(&mut model, &index, &root, 4, &settings).passes > 2, "the fourth is still to be found");
    assert_eq!(alone(&mut model, &index, &root, 3, &DecodeSettings { full_path: true, ..settings }).passes, 4);
}

#[test]
fn a_search_takes_three_passes_whatever_the_code_length() {
    for codebooks in [4, 8, 16] {
        let shape = CodeShape { codebooks, entries: 64 };
        let index = random_catalogue(4, 3000, shape);
        let mut model = Fake::random(4, &index, 1.0);
        let outcome = alone(&mut model, &index, &everything(&index), 10, &DecodeSettings::default());
        assert_eq!(outcome.passes, 3);
    }
}

#[test]
fn a_shortlist_keeps_the_scorers_best() {
    let shape = CodeShape { codebooks: 3, entries: 6 };
    let index = random_catalogue(7, 300, shape);
    let mut model = Fake::random(7, &index, 0.0);
    let root = everything(&index);
    let exact = alone(&mut model, &index, &root, 30, &DecodeSettings { engine: Engine::Exact, ..full_width() });
    let short = alone(&mut model, &index, &root, 30, &DecodeSettings { shortlist: 30, ..full_width() });
    let items = |outcome: &Outcome| outcome.items.iter().map(|item| item.item).collect::<Vec<_>>();
    assert_eq!(items(&exact), items(&short));
    assert!(!short.short);
}
