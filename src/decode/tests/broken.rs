//! Networks that break, and jobs that ask for nothing.

use crate::decode::{DecodeError, DecodeJob, DecodeSettings, Engine, Expansion, decode};
use crate::domain::{CodeShape, DecodeOverrides, Filter};

use super::fake::{Fake, alone, everything, full_width, hash, history, random_catalogue};

const SHAPE: CodeShape = CodeShape { codebooks: 3, entries: 4 };

#[test]
fn scores_that_are_no_numbers_rank_last_and_are_counted() {
    let index = random_catalogue(1, 60, SHAPE);
    let root = everything(&index);
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        let mut model = Fake::random(1, &index, 1.0);
        model.rows[3 * 5] = broken; // item 5
        model.rows[3 * 8] = broken; // item 8
        for engine in [Engine::Beam, Engine::Exact, Engine::Draft] {
            for full_path in [false, true] {
                let settings = DecodeSettings { engine, full_path, ..full_width() };
                let outcome = alone(&mut model, &index, &root, 60, &settings);
                assert_eq!(outcome.items.len(), root.len());
                assert!(outcome.items.iter().all(|item| item.score.is_finite()));
                let last: Vec<u32> = outcome.items.iter().rev().take(2).map(|item| item.item).collect();
                assert!(last.contains(&5) && last.contains(&8), "{broken} {engine:?}: {last:?}");
                assert_eq!(outcome.non_finite, 2, "{broken} {engine:?}");
            }
        }
    }
}

#[test]
fn a_network_of_nothing_but_nan_still_answers_eligible_items_once() {
    let index = random_catalogue(2, 80, SHAPE);
    let root = everything(&index);
    let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -0.0];
    for seed in 0..40 {
        let mut model = Fake::random(seed, &index, 1.0);
        let (query, read) = (model.query, model.read);
        let any = move |at: usize, share: u64| {
            let draw = hash(&[seed, at as u64]);
            (draw % 8 < share).then_some(values[(draw >> 8) as usize % values.len()])
        };
        let share = seed % 9;
        model.query = Box::new(move |key| {
            let mut query = query(key);
            query.token_scores.iter_mut().enumerate().for_each(|(at, x)| *x = any(at, share).unwrap_or(*x));
            query
        });
        model.read = Box::new(move |key, tokens| {
            let mut state = read(key, tokens);
            let salt = 100 * tokens.len();
            state.token_refinements.iter_mut().enumerate().for_each(|(at, x)| *x = any(salt + at, share).unwrap_or(*x));
            state.beliefs.iter_mut().enumerate().for_each(|(at, x)| *x = any(salt + at, share).unwrap_or(*x));
            state
        });
        for expansion in [Expansion::Crss, Expansion::Flat] {
            for full_path in [false, true] {
                let settings = DecodeSettings { beam: 3, expansion, full_path, ..DecodeSettings::default() };
                let outcome = alone(&mut model, &index, &root, 20, &settings);
                let mut items: Vec<u32> = outcome.items.iter().map(|item| item.item).collect();
                assert!(outcome.items.iter().all(|item| item.score.is_finite() && root.contains(item.item)));
                items.sort_unstable();
                items.dedup();
                assert_eq!(items.len(), 20);
            }
        }
    }
}

#[test]
fn jobs_that_ask_for_nothing_do_not_reach_the_network() {
    let index = random_catalogue(3, 30, SHAPE);
    let mut model = Fake::random(3, &index, 1.0);
    let (settings, root) = (DecodeSettings::default(), everything(&index));
    let nothing = index.root(&Filter { include_categories: vec!["unheard of".into()], ..Filter::default() }, &[]);
    let outcome = alone(&mut model, &index, &nothing, 10, &settings);
    assert_eq!((outcome.items.len(), outcome.short, model.advances), (0, true, 0));
    let outcome = alone(&mut model, &index, &root, 0, &settings);
    assert_eq!((outcome.items.len(), outcome.short, model.advances), (0, false, 0));
    assert_eq!(decode(&mut model, &index, &[], &|_| true).unwrap(), vec![]);
}

#[test]
fn a_network_or_job_that_does_not_fit_is_refused() {
    let index = random_catalogue(3, 30, SHAPE);
    let (settings, root, none) = (DecodeSettings::default(), everything(&index), vec![]);
    let job = DecodeJob { history: &none, k: 3, root: &root, settings: &settings, explain: false, bias: None };
    let mut model = Fake::random(3, &index, 1.0);
    assert_eq!(decode(&mut model, &index, &[job], &|_| true), Err(DecodeError::EmptyHistory(0)));

    let history = history(1);
    let job = DecodeJob { history: &history, ..job };
    let other = DecodeJob { root: &everything(&random_catalogue(3, 31, SHAPE)), ..job };
    assert!(matches!(decode(&mut model, &index, &[other], &|_| true), Err(DecodeError::Shape { found: 31, .. })));
    model.tokens.pop();
    let error = decode(&mut model, &index, &[job], &|_| true).unwrap_err();
    assert_eq!(error.to_string(), "the network's token vectors: 143, expected 144");
    let mut model = Fake::random(3, &random_catalogue(3, 30, CodeShape { codebooks: 2, entries: 4 }), 1.0);
    assert!(matches!(decode(&mut model, &index, &[job], &|_| true), Err(DecodeError::Shape { found: 2, .. })));
    let mut model = Fake::random(3, &index, 1.0);
    let read = model.read;
    model.read = Box::new(move |key, tokens| {
        let mut state = read(key, tokens);
        state.token_refinements.pop();
        state
    });
    assert!(matches!(decode(&mut model, &index, &[job], &|_| true), Err(DecodeError::Shape { found: 11, .. })));
}

#[test]
fn settings_are_refused_by_the_name_of_each_bad_field() {
    assert_eq!(DecodeSettings::default().validate(), Ok(()));
    let bad = DecodeSettings {
        beam: 0,
        reserve: 1001,
        theta: f32::NAN,
        shortlist: 0,
        draft_items: 0,
        ..DecodeSettings::default()
    };
    let fields: Vec<String> = bad.validate().unwrap_err().into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["beam", "reserve", "theta", "shortlist", "draft_items"]);
    assert!(serde_json::from_str::<DecodeSettings>(r#"{"beem": 3}"#).is_err());
    let read: DecodeSettings = serde_json::from_str(r#"{"beam": 3, "engine": "exact", "expansion": "flat"}"#).unwrap();
    assert_eq!((read.beam, read.engine, read.expansion), (3, Engine::Exact, Expansion::Flat));
    let overrides = DecodeOverrides { beam: Some(7), engine: Some(Engine::Beam), ..DecodeOverrides::default() };
    assert_eq!(read.with(&overrides), DecodeSettings { beam: 7, engine: Engine::Beam, ..read.clone() });
}
