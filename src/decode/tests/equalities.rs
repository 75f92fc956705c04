//! Two ways to the same numbers.

use crate::decode::{DecodeJob, DecodeSettings, Engine, Expansion, Outcome, PathModel, decode};
use crate::domain::{CodeShape, Filter};

use super::fake::{Fake, alone, everything, full_width, history, key, random_catalogue};
use super::naive::log_probability;

const SHAPE: CodeShape = CodeShape { codebooks: 4, entries: 5 };

/// Same scores, place by place; same items but where neighbours' scores are within rounding.
fn assert_same_ranking(one: &Outcome, other: &Outcome) {
    assert_eq!(one.items.len(), other.items.len());
    for (place, (a, b)) in one.items.iter().zip(&other.items).enumerate() {
        assert!((a.score - b.score).abs() < 2e-5, "place {place}: {} against {}", a.score, b.score);
        let again = other.items.iter().find(|item| item.item == a.item).expect("the same items");
        assert!((a.score - again.score).abs() < 2e-5, "item {}: {} against {}", a.item, a.score, again.score);
    }
}

#[test]
fn a_batched_request_gets_what_it_gets_alone() {
    let index = random_catalogue(5, 300, SHAPE);
    let mut model = Fake::random(5, &index, 1.0);
    let base = DecodeSettings { beam: 6, finish_at: 3, ..DecodeSettings::default() };
    let variants = [
        base.clone(),
        DecodeSettings { corp: false, ..base.clone() },
        DecodeSettings { full_path: true, ..base.clone() },
        DecodeSettings { expansion: Expansion::Flat, ..base.clone() },
        DecodeSettings { engine: Engine::Exact, ..base.clone() },
        DecodeSettings { shortlist: 20, finish_together: 0, ..base.clone() },
    ];
    let histories: Vec<_> = (0..24).map(history).collect();
    let roots: Vec<_> = (0..24u32)
        .map(|n| match n % 4 {
            0 => everything(&index),
            1 => index.root(&Filter { include_brands: vec!["brand 1".into()], ..Filter::default() }, &[n]),
            2 => index.root(&Filter { max_price: Some(n as f32), ..Filter::default() }, &[]),
            _ => index.root(&Filter { include_brands: vec!["unheard of".into()], ..Filter::default() }, &[]),
        })
        .collect();
    let jobs: Vec<DecodeJob> = (0..24)
        .map(|n| DecodeJob {
            history: &histories[n],
            k: [10, 1, 0, 40, 7][n % 5],
            root: &roots[n],
            settings: &variants[n % variants.len()],
            explain: n % 2 == 0,
            bias: None,
        })
        .collect();
    let together = decode(&mut model, &index, &jobs, &|_| true).unwrap();
    for (n, job) in jobs.iter().enumerate() {
        let single = decode(&mut model, &index, &[*job], &|_| true).unwrap();
        assert_eq!(together[n], single[0], "job {n}");
    }
    let dropped = decode(&mut model, &index, &jobs, &|n| n % 3 != 0).unwrap();
    for n in 0..24 {
        assert_eq!(dropped[n], together[n].clone().filter(|_| n % 3 != 0), "job {n} with every third dropped");
    }
}

#[test]
fn a_job_dropped_between_steps_leaves_the_others_as_they_were() {
    let index = random_catalogue(8, 200, SHAPE);
    let mut model = Fake::random(8, &index, 1.0);
    let settings = DecodeSettings { beam: 4, full_path: true, ..DecodeSettings::default() };
    let (histories, root) = ([history(1), history(2), history(3)], everything(&index));
    let jobs: Vec<DecodeJob> = histories
        .iter()
        .map(|history| DecodeJob { history, k: 5, root: &root, settings: &settings, explain: true, bias: None })
        .collect();
    let together = decode(&mut model, &index, &jobs, &|_| true).unwrap();
    let asked = std::cell::Cell::new(0);
    let wanted = |n: usize| {
        asked.set(asked.get() + usize::from(n == 1));
        n != 1 || asked.get() < 4
    };
    let dropped = decode(&mut model, &index, &jobs, &wanted).unwrap();
    assert_eq!((dropped[0].clone(), dropped[2].clone()), (together[0].clone(), together[2].clone()));
    assert_eq!(dropped[1], None);
}

#[test]
fn explaining_changes_no_item_and_no_score() {
    let index = random_catalogue(6, 300, SHAPE);
    let mut model = Fake::random(6, &index, 1.0);
    let root = everything(&index);
    let open = DecodeSettings { corp: false, beam: 5, ..DecodeSettings::default() };
    let variants = [
        DecodeSettings::default(),
        DecodeSettings { beam: 5, full_path: true, ..DecodeSettings::default() },
        // Without CORP, paths of a single candidate are not read unless they are told.
        DecodeSettings { finish_at: 1, finish_together: 0, ..open.clone() },
        DecodeSettings { finish_at: 3, finish_together: 1, ..open.clone() },
        DecodeSettings { finish_at: 2, finish_together: 0, engine: Engine::Draft, draft_items: 30, ..open.clone() },
        DecodeSettings { finish_at: 0, finish_together: 0, ..open.clone() },
        DecodeSettings { expansion: Expansion::Flat, finish_at: 2, ..open },
    ];
    for settings in variants {
        let mut told = alone(&mut model, &index, &root, 20, &settings);
        told.pruned_items.clear();
        let history = history(1);
        let job = DecodeJob { history: &history, k: 20, root: &root, settings: &settings, explain: false, bias: None };
        let mut silent = decode(&mut model, &index, &[job], &|_| true).unwrap().remove(0).unwrap();
        assert!(silent.items.iter().all(|item| item.path.is_none()));
        silent.items.iter_mut().zip(&told.items).for_each(|(one, other)| one.path = other.path.clone());
        assert!(silent.passes <= told.passes);
        silent.passes = told.passes;
        assert_eq!(told, silent, "{settings:?}");
    }
}

#[test]
fn item_probabilities_sum_to_one() {
    for seed in 0..20 {
        let index = random_catalogue(seed, 150, SHAPE);
        let mut model = Fake::random(seed, &index, 2.0);
        let root = everything(&index);
        let early = DecodeSettings { full_path: false, finish_at: 4, finish_together: 0, ..full_width() };
        let exact = DecodeSettings { engine: Engine::Exact, ..full_width() };
        for settings in [full_width(), early, exact] {
            let outcome = alone(&mut model, &index, &root, 150, &settings);
            assert_eq!(outcome.items.len(), root.len());
            let sum: f64 = outcome.items.iter().map(|item| f64::from(item.score).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-5, "seed {seed}: {sum}");
        }
    }
}

#[test]
fn without_refinements_the_full_width_beam_is_the_exact_scorer() {
    for seed in 0..20 {
        let index = random_catalogue(seed, 200, SHAPE);
        let mut model = Fake::random(seed, &index, 0.0);
        let root = index.root(&Filter::default(), &[3, 4, 5]);
        let exact = DecodeSettings { engine: Engine::Exact, ..full_width() };
        let oracle = alone(&mut model, &index, &root, 200, &exact);
        let early = DecodeSettings { full_path: false, finish_at: 4, finish_together: 0, ..full_width() };
        let flat = DecodeSettings { expansion: Expansion::Flat, ..full_width() };
        for settings in [full_width(), early, DecodeSettings { full_path: false, ..full_width() }, flat] {
            assert_same_ranking(&alone(&mut model, &index, &root, 200, &settings), &oracle);
        }
        let ten = alone(&mut model, &index, &root, 10, &full_width());
        let engine = alone(&mut model, &index, &root, 10, &DecodeSettings { engine: Engine::Exact, ..full_width() });
        assert_same_ranking(&ten, &engine);
    }
}

#[test]
fn with_refinements_the_full_width_beam_scores_every_item_along_its_own_path() {
    for seed in 0..12 {
        let index = random_catalogue(seed, 120, SHAPE);
        let mut model = Fake::random(seed, &index, 2.0);
        let root = everything(&index);
        for finish_at in [0, 1, 5] {
            let full_path = finish_at == 0;
            let settings = DecodeSettings { full_path, finish_at, finish_together: 0, ..full_width() };
            let outcome = alone(&mut model, &index, &root, 120, &settings);
            assert_eq!(outcome.items.len(), root.len());
            for item in &outcome.items {
                let naive = log_probability(&model, &index, &root, key(&history(1)), item.item, finish_at);
                let score = f64::from(item.score);
                assert!((score - naive).abs() < 5e-5, "seed {seed}, item {}: {score}, naive {naive}", item.item);
            }
        }
    }
}

#[test]
fn stepping_on_and_finishing_early_agree_without_refinements() {
    let index = random_catalogue(3, 400, SHAPE);
    let mut model = Fake::random(3, &index, 0.0);
    let root = everything(&index);
    let full = alone(&mut model, &index, &root, 400, &full_width());
    for finish_at in 1..20 {
        let early = DecodeSettings { full_path: false, finish_at, finish_together: 0, ..full_width() };
        assert_same_ranking(&alone(&mut model, &index, &root, 400, &early), &full);
    }
}

#[test]
fn without_refinements_a_draft_ranks_and_scores_as_the_exact_scorer() {
    for seed in 0..20 {
        let index = random_catalogue(seed, 200, SHAPE);
        let mut model = Fake::random(seed, &index, 0.0);
        let root = index.root(&Filter::default(), &[3, 4, 5]);
        let exact = DecodeSettings { engine: Engine::Exact, ..DecodeSettings::default() };
        for draft_items in [1, 10, 64, 1000] {
            let draft = DecodeSettings { engine: Engine::Draft, draft_items, ..exact.clone() };
            for draft in [DecodeSettings { full_path: true, ..draft.clone() }, draft] {
                let found = alone(&mut model, &index, &root, 10, &draft);
                assert_same_ranking(&found, &alone(&mut model, &index, &root, 10, &exact));
            }
        }
    }
}

#[test]
fn a_draft_scores_the_scorers_best_along_their_own_paths_and_no_others() {
    for seed in 0..12 {
        let index = random_catalogue(seed, 120, SHAPE);
        let mut model = Fake::random(seed, &index, 2.0);
        let root = everything(&index);
        let exact = DecodeSettings { engine: Engine::Exact, ..full_width() };
        let mut best: Vec<u32> = alone(&mut model, &index, &root, 30, &exact).items.iter().map(|at| at.item).collect();
        best.sort_unstable();
        for finish_at in [0, 1, 5] {
            let full_path = finish_at == 0;
            let draft =
                DecodeSettings { engine: Engine::Draft, draft_items: 30, full_path, finish_at, ..exact.clone() };
            let settings = DecodeSettings { finish_together: 0, corp: true, ..draft };
            let outcome = alone(&mut model, &index, &root, 30, &settings);
            let mut found: Vec<u32> = outcome.items.iter().map(|at| at.item).collect();
            found.sort_unstable();
            assert_eq!((&found, outcome.pruned), (&best, 0));
            for item in &outcome.items {
                let naive = log_probability(&model, &index, &root, key(&history(1)), item.item, finish_at);
                let score = f64::from(item.score);
                assert!((score - naive).abs() < 5e-5, "seed {seed}, item {}: {score}, naive {naive}", item.item);
            }
            let few = alone(&mut model, &index, &root, 5, &settings);
            assert_eq!(few.items, outcome.items[..5], "the same draft, the first five of it");
        }
    }
}

#[test]
fn candidates_drawn_before_items_came_are_answered_as_before() {
    for seed in 0..6 {
        let before = random_catalogue(seed, 200, SHAPE);
        let mut model = Fake::random(seed, &before, 1.0);
        let roots = [everything(&before), before.root(&Filter { max_price: Some(90.0), ..Filter::default() }, &[3])];
        let settings = [Engine::Beam, Engine::Draft, Engine::Exact].map(|engine| DecodeSettings {
            beam: 6,
            finish_at: 3,
            shortlist: 50,
            engine,
            ..DecodeSettings::default()
        });
        let answers = |model: &mut Fake, index| -> Vec<Outcome> {
            let each = roots.iter().flat_map(|root| settings.iter().map(move |settings| (root, settings)));
            each.map(|(root, settings)| alone(model, index, root, 20, settings)).collect()
        };
        let alike = answers(&mut model, &before);
        let after = random_catalogue(seed, 230, SHAPE);
        assert_eq!(after.codes().code(199), before.codes().code(199));
        model.place(after.codes(), &[]).unwrap();
        assert_eq!(answers(&mut model, &after), alike, "seed {seed}");
        // A catalogue of fewer items than the candidates were drawn from is another one.
        let (root, history) = (everything(&after), history(1));
        let settings = DecodeSettings::default();
        let job = DecodeJob { history: &history, k: 5, root: &root, settings: &settings, explain: false, bias: None };
        assert!(decode(&mut Fake::random(seed, &before, 1.0), &before, &[job], &|_| true).is_err());
    }
}
