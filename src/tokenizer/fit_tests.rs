//! Facts about the fit and what comes out of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use burn::backend::{Autodiff, Flex};

use super::fit::{FitProgress, Fitted, fit};
use super::fixtures::{self, Shop};
use super::tensors::NamedTensor;
use super::{CodebookUpdate, FeatureTable, MpqConfig, Orthogonality, Quantiser, Tokenizer, features};

fn table(shop: &Shop) -> FeatureTable {
    features(&shop.sources(), &shop.sequences, &fixtures::config()).unwrap()
}

fn fitted(table: &FeatureTable, config: &MpqConfig) -> Fitted {
    fit::<Autodiff<Flex>>(table, &Quantiser::Mpq(config.clone()), &Default::default(), &mut |_| ()).unwrap()
}

#[test]
fn codes_are_distinct_and_rebuild_rows_better_than_their_mean() {
    let table = table(&Shop::new(200));
    for config in [
        fixtures::mpq(),
        MpqConfig { update: CodebookUpdate::Gradient, ..fixtures::mpq() },
        MpqConfig { orthogonality: Orthogonality::Parameters, ..fixtures::mpq() },
        MpqConfig { gated: false, ..fixtures::mpq() },
    ] {
        let Fitted { codes, diagnostics, .. } = fitted(&table, &config);
        assert_eq!(codes.items(), 200);
        assert_eq!((diagnostics.assigned_distinct_codes, diagnostics.assigned_largest_group), (200, 1));
        assert!(diagnostics.assigned_error < 0.8 * diagnostics.baseline_error, "{diagnostics}");
        assert!(diagnostics.reconstruction_error <= diagnostics.assigned_error + 1e-3, "{diagnostics}");
        assert!(diagnostics.perplexity.iter().all(|&perplexity| perplexity > 4.0), "{diagnostics}");
        assert!(diagnostics.neighbour_shared_tokens > diagnostics.random_shared_tokens, "{diagnostics}");
    }
}

#[test]
fn twins_get_distinct_codes() {
    let mut shop = Shop::new(100);
    for item in 0..40 {
        shop.texts[item] = shop.texts[0].clone();
        shop.brands[item] = None;
        shop.categories[item] = shop.categories[0].clone();
        shop.prices[item] = None;
        shop.embeddings[item] = shop.embeddings[0].clone();
    }
    shop.sequences.clear();
    let table = table(&shop);
    let once = fitted(&table, &fixtures::mpq()).diagnostics;
    assert!(once.largest_group >= 40 && once.moved_items >= 39, "{once}");
    assert_eq!((once.assigned_distinct_codes, once.assigned_largest_group), (100, 1));
    let thrice = fitted(&table, &MpqConfig { max_collisions: 3, ..fixtures::mpq() }).diagnostics;
    assert_eq!(thrice.assigned_largest_group, 3);
    assert!(thrice.moved_items < once.moved_items);
}

#[test]
fn more_items_than_codes_are_refused() {
    let table = table(&Shop::new(100));
    let config = MpqConfig { codebooks: 2, entries: 4, epochs: 1, ..fixtures::mpq() };
    let config = Quantiser::Mpq(config);
    let refused = fit::<Autodiff<Flex>>(&table, &config, &Default::default(), &mut |_| ()).unwrap_err();
    assert!(refused.to_string().starts_with("100 items do not fit 16 places"), "{refused}");
}

#[test]
fn a_fit_depends_on_the_seed_and_not_on_the_thread_count() {
    let table = table(&Shop::new(150));
    let config = MpqConfig { epochs: 5, ..fixtures::mpq() };
    let run = |threads: usize, config: &MpqConfig| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| fitted(&table, config))
    };
    let one = run(1, &config);
    assert_eq!(one, run(3, &config));
    assert_ne!(one.codes, run(1, &MpqConfig { seed: 18, ..config }).codes);
}

#[test]
fn progress_tells_every_epoch() {
    let table = table(&Shop::new(60));
    let config = MpqConfig { epochs: 3, warmup_epochs: 2, ..fixtures::mpq() };
    let config = Quantiser::Mpq(config);
    let mut told: Vec<FitProgress> = Vec::new();
    fit::<Autodiff<Flex>>(&table, &config, &Default::default(), &mut |at| told.push(*at)).unwrap();
    assert_eq!(told.iter().map(|at| at.epoch).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(told.iter().map(|at| at.quantised).collect::<Vec<_>>(), [false, false, true, true, true]);
    assert!(told.iter().all(|at| at.epochs == 5 && at.loss.reconstruction > 0.0));
}

#[test]
fn without_its_weight_the_orthogonality_loss_changes_nothing_but_is_told() {
    let table = table(&Shop::new(80));
    let config = MpqConfig { lambda_orth: 0.0, epochs: 3, ..fixtures::mpq() };
    let run = |orthogonality: Orthogonality| {
        let config = Quantiser::Mpq(MpqConfig { orthogonality, ..config.clone() });
        let mut told = Vec::new();
        let fitted = fit::<Autodiff<Flex>>(&table, &config, &Default::default(), &mut |at| told.push(at.loss)).unwrap();
        assert!(told.iter().all(|loss| loss.orthogonality > 0.0), "{told:?}");
        (fitted.tokenizer.tensors, fitted.codes, fitted.diagnostics)
    };
    assert_eq!(run(Orthogonality::Latents), run(Orthogonality::Parameters));
}

#[test]
fn without_a_gate_every_expert_weighs_the_same() {
    let table = table(&Shop::new(60));
    let config = MpqConfig { epochs: 2, gated: false, ..fixtures::mpq() };
    let Fitted { tokenizer, codes, .. } = fitted(&table, &config);
    assert!(tokenizer.tensors.iter().all(|tensor| tensor.name != "gate"));
    // A gate of zeros is a softmax of equals.
    let mut gated = tokenizer.clone();
    gated.quantiser = Quantiser::Mpq(MpqConfig { gated: true, ..config });
    let gate = Tokenizer::layout(&gated.quantiser, table.width).swap_remove(4);
    let zeros = vec![0.0; gate.1.iter().product()];
    gated.tensors.insert(4, NamedTensor { name: gate.0, shape: gate.1, data: zeros });
    let (left, right) = (tokenizer.reconstruct(&table, &codes).unwrap(), gated.reconstruct(&table, &codes).unwrap());
    let worst = left.iter().zip(&right).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "worst {worst}");
}

#[test]
fn a_damaged_file_is_refused_by_tensor_and_reason() {
    let table = table(&Shop::new(60));
    let tokenizer = fitted(&table, &MpqConfig { epochs: 1, ..fixtures::mpq() }).tokenizer;
    let refused = |bytes: &[u8]| Tokenizer::from_bytes(bytes).unwrap_err().to_string();
    let bytes = tokenizer.to_bytes().unwrap();
    assert!(refused(&bytes[..bytes.len() / 2]).starts_with("saved tokenizer: "));
    assert!(refused(b"").starts_with("saved tokenizer: "));

    let mut broken = tokenizer.clone();
    broken.tensors[4].data[2] = f32::NAN;
    let message = refused(&broken.to_bytes().unwrap());
    assert_eq!(message, "saved tokenizer, tensor gate: number 2 is NaN: expected a finite one");

    let mut broken = tokenizer.clone();
    broken.quantiser = Quantiser::Mpq(MpqConfig { entries: 32, epochs: 1, ..fixtures::mpq() });
    let message = refused(&broken.to_bytes().unwrap());
    assert_eq!(message, "saved tokenizer, tensor codebooks: its shape is [3, 16, 8]: expected [3, 32, 8]");

    let mut broken = tokenizer.clone();
    broken.tensors.pop();
    assert_eq!(refused(&broken.to_bytes().unwrap()), "saved tokenizer, tensor codebooks: it is missing");
}

#[test]
fn rows_of_another_layout_are_refused() {
    let mut shop = Shop::new(60);
    let tokenizer = fitted(&table(&shop), &MpqConfig { epochs: 1, ..fixtures::mpq() }).tokenizer;
    shop.prices.fill(None);
    let message = tokenizer.tokenize(&table(&shop)).unwrap_err().to_string();
    assert!(message.contains("the tokenizer was fitted on"), "{message}");
}
