//! Limits: never exceeded, no item short, the best that pass, in every engine.

use std::collections::HashMap;

use proptest::prelude::*;

use super::fake::{Fake, everything, full_width, hash, history, noise};
use crate::catalog::{Candidates, CatalogItem, Index};
use crate::decode::{Bias, DecodeJob, DecodeSettings, Engine, Expansion, Limits, Outcome, Ranked, decode};
use crate::domain::{CodeShape, CodeTable, Item};

/// A catalogue whose items have first categories of very unequal sizes, some items none.
fn shop(seed: u64, items: usize, shape: CodeShape) -> Index {
    let entry = |at: usize| (hash(&[seed, 9, at as u64]) % shape.entries as u64) as u16;
    let codes = CodeTable::new(shape, (0..items * shape.codebooks).map(entry).collect()).unwrap();
    let row = |n: usize| {
        let drawn = hash(&[seed, 12, n as u64]) % 64;
        let shelf = drawn.leading_zeros() - 58;
        let categories = if drawn == 0 { vec![] } else { vec![format!("shelf {shelf}"), format!("kind {}", n % 3)] };
        let item = Item { id: n.to_string(), title: None, brand: None, categories, price: None, eligible: n % 7 != 6 };
        CatalogItem { item, category: 0, prior: noise(&[11, n as u64]) }
    };
    Index::build((0..items).map(row).collect(), codes, vec!["any".into()], "1".into()).unwrap()
}

fn answer(seed: u64, index: &Index, settings: &DecodeSettings, bias: Option<&Bias>, k: usize) -> Outcome {
    let mut model = Fake::random(seed, index, 1.0);
    let (history, root) = (history(1), everything(index));
    let job = DecodeJob { history: &history, k, root: &root, settings, explain: false, bias };
    decode(&mut model, index, &[job], &|_| true).unwrap().remove(0).unwrap()
}

fn first(index: &Index, item: u32) -> Option<String> {
    index.item(item).item.categories.first().cloned()
}

/// The first k of a ranking that keep to the limits.
fn passing(index: &Index, ranking: &[Ranked], most: usize, set: Option<&(Candidates, usize)>, k: usize) -> Vec<u32> {
    let (mut taken, mut of_set, mut passing) = (HashMap::<String, usize>::new(), 0, Vec::new());
    for item in ranking.iter().map(|ranked| ranked.item) {
        let category = first(index, item);
        let full = category.as_ref().is_some_and(|name| taken.get(name).is_some_and(|count| *count == most));
        let in_set = set.is_some_and(|(set, _)| set.contains(item));
        if passing.len() < k && !full && !(in_set && set.is_some_and(|(_, limit)| of_set == *limit)) {
            category.into_iter().for_each(|name| *taken.entry(name).or_default() += 1);
            of_set += usize::from(in_set);
            passing.push(item);
        }
    }
    passing
}

/// At most `most` of a first category, and `of_shelf` of the largest.
fn limits(index: &Index, most: usize, of_shelf: Option<usize>) -> Bias {
    let set = |limit| (Candidates::of(index.len(), index.of_category("shelf 0")), limit);
    let limits =
        Limits { per_category: Some(most), sets: of_shelf.map(set).into_iter().collect(), ..Limits::default() };
    Bias { limits, ..Bias::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_limit_is_exceeded_and_no_item_is_missing(
        seed: u64,
        items in 1usize..60,
        (codebooks, entries) in (1usize..5, 2usize..6),
        (k, most, of_shelf) in (1usize..30, 1usize..5, prop::option::of(0usize..4)),
        (beam, reserve) in (1usize..8, 0usize..4),
        (corp, theta, corp_from) in (any::<bool>(), 0.0f32..0.3, 0usize..3),
        (full_path, expansion, engine) in (any::<bool>(), 0u8..4, 0u8..3),
        (finish_at, finish_together, shortlist, draft_items) in (0usize..6, 0usize..4, 1usize..80, 1usize..20),
    ) {
        let index = shop(seed, items, CodeShape { codebooks, entries });
        let expansion = [Expansion::Crss, Expansion::Flat, Expansion::Fixed, Expansion::Random][usize::from(expansion)];
        let engine = [Engine::Beam, Engine::Draft, Engine::Exact][usize::from(engine)];
        let settings = DecodeSettings {
            beam, reserve, corp, theta, corp_from, finish_at, finish_together, full_path, shortlist, expansion, engine,
            draft_items,
        };
        let bias = limits(&index, most, of_shelf);
        let found = answer(seed, &index, &settings, Some(&bias), k);
        let every = answer(seed, &index, &DecodeSettings { engine: Engine::Exact, ..settings }, None, items);
        let kept = passing(&index, &found.items, most, bias.limits.sets.first(), k);
        prop_assert_eq!(kept.len(), found.items.len(), "a limit is exceeded: {:?}", found.items);
        let possible = passing(&index, &every.items, most, bias.limits.sets.first(), k);
        prop_assert_eq!(found.items.len(), possible.len());
        prop_assert_eq!(found.short, possible.len() < k);
        prop_assert!(found.items.iter().all(|item| index.is_eligible(item.item) && item.score.is_finite()));
    }
}

#[test]
fn a_wide_search_finds_the_best_that_pass() {
    let shape = CodeShape { codebooks: 4, entries: 8 };
    for seed in 0..20 {
        let index = shop(seed, 300, shape);
        let exact = DecodeSettings { engine: Engine::Exact, ..DecodeSettings::default() };
        for settings in [exact, full_width()] {
            let every = answer(seed, &index, &settings, None, 300);
            for (most, of_shelf, k) in [(1, None, 6), (2, Some(1), 10), (3, Some(0), 12), (50, None, 40)] {
                let bias = limits(&index, most, of_shelf);
                let found = answer(seed, &index, &settings, Some(&bias), k);
                let found: Vec<u32> = found.items.iter().map(|item| item.item).collect();
                let expected = passing(&index, &every.items, most, bias.limits.sets.first(), k);
                assert_eq!(found, expected, "seed {seed}, {most} of a category, {settings:?}");
            }
        }
    }
}

#[test]
fn limits_that_nothing_reaches_change_nothing() {
    let shape = CodeShape { codebooks: 4, entries: 8 };
    let index = shop(3, 300, shape);
    for engine in [Engine::Beam, Engine::Draft, Engine::Exact] {
        let settings = DecodeSettings { engine, ..DecodeSettings::default() };
        let plain = answer(3, &index, &settings, None, 10);
        assert_eq!(answer(3, &index, &settings, Some(&limits(&index, 10, Some(10))), 10).items, plain.items);
    }
}

#[test]
fn a_category_that_moved_counts_where_it_is_now() {
    let index = shop(5, 100, CodeShape { codebooks: 3, entries: 6 });
    let settings = DecodeSettings { engine: Engine::Exact, ..DecodeSettings::default() };
    let mut bias = limits(&index, 1, None);
    bias.limits.moved = everything(&index).iter().map(|item| (item, Some(900 + item % 2))).collect();
    let found = answer(5, &index, &settings, Some(&bias), 10);
    assert!(found.short && found.items.len() == 2);
    assert_ne!(found.items[0].item % 2, found.items[1].item % 2);
    bias.limits.moved.values_mut().for_each(|category| *category = None);
    assert_eq!(answer(5, &index, &settings, Some(&bias), 10).items, answer(5, &index, &settings, None, 10).items);
}
