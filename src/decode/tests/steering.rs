//! Steering: neutral is none, more is more, and every item stays possible.

use super::fake::{Fake, everything, full_width, history, random_catalogue};
use crate::catalog::{Candidates, Index};
use crate::decode::{Bias, DecodeJob, DecodeSettings, Engine, Outcome, decode};
use crate::domain::{CodeShape, Token};

const SHAPE: CodeShape = CodeShape { codebooks: 4, entries: 8 };
const ITEMS: usize = 200;

fn answer(seed: u64, index: &Index, settings: &DecodeSettings, bias: Option<&Bias>, k: usize) -> Outcome {
    let mut model = Fake::random(seed, index, 1.0);
    let (history, root) = (history(1), everything(index));
    let job = DecodeJob { history: &history, k, root: &root, settings, explain: true, bias };
    decode(&mut model, index, &[job], &|_| true).unwrap().remove(0).unwrap()
}

fn engines() -> [DecodeSettings; 4] {
    let beam = DecodeSettings { corp: false, ..DecodeSettings::default() };
    let draft = DecodeSettings { engine: Engine::Draft, draft_items: 20, ..beam.clone() };
    [beam.clone(), full_width(), DecodeSettings { engine: Engine::Exact, ..beam }, draft]
}

fn evens(nats: f32) -> Bias {
    Bias { sets: vec![(Candidates::of(ITEMS, (0..ITEMS as u32).step_by(2)), nats)], ..Bias::default() }
}

#[test]
fn a_neutral_bias_and_one_for_all_items_alike_change_no_order() {
    let index = random_catalogue(3, ITEMS, SHAPE);
    let all = Bias { sets: vec![(everything(&index), 2.5)], ..Bias::default() };
    for settings in engines() {
        let plain = answer(3, &index, &settings, None, 20);
        assert_eq!(answer(3, &index, &settings, Some(&Bias::default()), 20), plain);
        assert_eq!(answer(3, &index, &settings, Some(&evens(0.0)), 20), plain);
        let shifted = answer(3, &index, &settings, Some(&all), 20);
        for (one, other) in shifted.items.iter().zip(&plain.items) {
            assert_eq!(one.item, other.item);
            assert!((one.score - other.score).abs() < 1e-4, "{one:?} {other:?}");
        }
    }
}

#[test]
fn more_for_a_set_is_never_less_of_it_and_leaves_every_item_possible() {
    for seed in 0..8 {
        let index = random_catalogue(seed, ITEMS, SHAPE);
        for settings in engines() {
            let mut before = 0;
            for nats in [-30.0, -4.0, -1.0, 0.0, 0.5, 1.0, 2.0, 4.0, 30.0] {
                let found = answer(seed, &index, &settings, Some(&evens(nats)), 20);
                assert_eq!(found.items.len(), 20);
                let share = found.items.iter().filter(|item| item.item % 2 == 0).count();
                assert!(share >= before, "seed {seed}, {nats} nats: {share} of 20 after {before}, {settings:?}");
                before = share;
            }
            assert_eq!(before, 20);
            // Also those that were pushed far down, when all are asked for.
            let whole = answer(seed, &index, &settings, Some(&evens(-30.0)), ITEMS);
            assert_eq!(whole.items.len(), everything(&index).len());
            assert!(whole.items.iter().all(|item| item.score.is_finite()));
        }
    }
}

#[test]
fn scores_are_those_of_the_steered_distribution() {
    let index = random_catalogue(5, ITEMS, SHAPE);
    let settings = &engines()[2];
    let plain = answer(5, &index, settings, None, ITEMS);
    let steered = answer(5, &index, settings, Some(&evens(1.5)), ITEMS);
    let even: f64 = plain.items.iter().filter(|item| item.item % 2 == 0).map(|item| f64::from(item.score).exp()).sum();
    let mass = (even * 1.5f64.exp() + 1.0 - even).ln();
    for item in &steered.items {
        let before = plain.items.iter().find(|other| other.item == item.item).unwrap();
        let expected = f64::from(before.score) + if item.item % 2 == 0 { 1.5 } else { 0.0 } - mass;
        assert!((f64::from(item.score) - expected).abs() < 1e-4, "{item:?}, expected {expected}");
    }
}

#[test]
fn a_token_draws_the_items_that_hold_it() {
    let index = random_catalogue(9, ITEMS, SHAPE);
    let token = Token { codebook: 2, entry: 5 };
    let bias = Bias { tokens: vec![(token, 50.0)], ..Bias::default() };
    let holders = everything(&index).iter().filter(|&item| index.codes().code(item)[2] == 5).count();
    assert!(holders > 5);
    for settings in engines() {
        let found = answer(9, &index, &settings, Some(&bias), holders);
        assert!(found.items.iter().all(|item| index.codes().code(item.item)[2] == 5), "{settings:?}");
        let item = found.items[0].item;
        assert_eq!(bias.of(item, index.codes()), 50.0);
    }
}
