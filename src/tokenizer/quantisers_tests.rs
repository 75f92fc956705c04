//! Facts that hold for every quantiser.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use burn::backend::{Autodiff, Flex};

use super::fit::{FitProgress, Fitted, fit};
use super::fixtures::{self, Shop};
use super::{FeatureTable, MpqConfig, OpqConfig, Quantiser, RqConfig, Tokenizer, features};
use crate::domain::CodeTable;

fn table(shop: &Shop) -> FeatureTable {
    features(&shop.sources(), &shop.sequences, &fixtures::config()).unwrap()
}

fn fitted(table: &FeatureTable, quantiser: &Quantiser) -> Fitted {
    fit::<Autodiff<Flex>>(table, quantiser, &Default::default(), &mut |_| ()).unwrap()
}

/// The quantisers with few passes, for facts that do not depend on how well they learn.
fn hasty() -> [Quantiser; 4] {
    fixtures::quantisers().map(|quantiser| match quantiser {
        Quantiser::Mpq(config) => Quantiser::Mpq(MpqConfig { epochs: 2, ..config }),
        Quantiser::Rq(config) => Quantiser::Rq(RqConfig { epochs: 2, ..config }),
        Quantiser::Opq(config) => Quantiser::Opq(OpqConfig { rounds: 2, ..config }),
        random @ Quantiser::Random { .. } => random,
    })
}

/// A shop where the first `alike` items cannot be told apart.
fn twins(items: usize, alike: usize) -> Shop {
    let mut shop = Shop::new(items);
    for item in 0..alike {
        shop.texts[item] = shop.texts[0].clone();
        shop.brands[item] = None;
        shop.categories[item] = shop.categories[0].clone();
        shop.prices[item] = None;
        shop.embeddings[item] = shop.embeddings[0].clone();
    }
    shop.sequences.clear();
    shop
}

#[test]
fn learnt_codes_are_distinct_and_rebuild_rows_and_random_ones_do_not() {
    let table = table(&Shop::new(200));
    for quantiser in fixtures::quantisers() {
        let Fitted { codes, diagnostics, tokenizer } = fitted(&table, &quantiser);
        let name = quantiser.name();
        assert_eq!((codes.items(), codes.shape()), (200, quantiser.shape()), "{name}");
        assert_eq!((diagnostics.assigned_distinct_codes, diagnostics.assigned_largest_group), (200, 1), "{name}");
        assert!(diagnostics.distinct_codes <= 200 && diagnostics.usage.len() == 3, "{name}: {diagnostics}");
        let left = diagnostics.assigned_error / diagnostics.baseline_error;
        let (near, far) = (diagnostics.neighbour_shared_tokens, diagnostics.random_shared_tokens);
        if matches!(quantiser, Quantiser::Random { .. }) {
            assert!((left - 1.0).abs() < 1e-3, "{name}: {diagnostics}");
            assert!((near - far).abs() < 0.1, "{name}: {diagnostics}");
            assert!(tokenizer.latents(&table).unwrap().is_empty() && tokenizer.codebooks().is_empty());
        } else {
            assert!(left < 0.8, "{name}: {diagnostics}");
            assert!(near > far + 0.1, "{name}: {diagnostics}");
            let latent = tokenizer.codebooks().len() / quantiser.shape().tokens();
            assert_eq!(tokenizer.latents(&table).unwrap().len(), 200 * 3 * latent, "{name}");
        }
    }
}

#[test]
fn a_loaded_tokenizer_equals_the_saved_one() {
    let mut shop = Shop::new(80);
    let ungated = Quantiser::Mpq(MpqConfig { epochs: 1, gated: false, ..fixtures::mpq() });
    let whitened = Quantiser::Opq(OpqConfig { rounds: 1, whiten: true, ..fixtures::opq() });
    for with_embeddings in [true, false] {
        if !with_embeddings {
            shop.embeddings.fill(None);
        }
        let table = table(&shop);
        for quantiser in hasty().into_iter().chain([ungated.clone(), whitened.clone()]) {
            let tokenizer = fitted(&table, &quantiser).tokenizer;
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("codebooks.safetensors");
            tokenizer.save(&path).unwrap();
            let loaded = Tokenizer::load(&path).unwrap();
            assert_eq!(loaded, tokenizer);
            assert_eq!(loaded.quantiser(), &quantiser);
            assert_eq!(loaded.tokenize(&table).unwrap(), tokenizer.tokenize(&table).unwrap());
            let later = loaded.tokenize_items(&shop.sources()[..5]).unwrap();
            assert_eq!((later.items(), later.shape()), (5, quantiser.shape()));
        }
    }
}

#[test]
fn a_tokenizer_of_before_there_was_a_choice_of_quantisers_loads() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("model-artifacts/demo/codebooks.safetensors");
    let tokenizer = Tokenizer::load(&demo).unwrap();
    let Quantiser::Mpq(config) = tokenizer.quantiser() else { panic!("{:?}", tokenizer.quantiser()) };
    assert!(config.gated);
    assert_eq!(Tokenizer::from_bytes(&tokenizer.to_bytes().unwrap()).unwrap(), tokenizer);
}

#[test]
fn a_scale_that_nothing_can_be_divided_by_is_refused() {
    let table = table(&Shop::new(40));
    let mut tokenizer = fitted(&table, &Quantiser::Opq(OpqConfig { rounds: 1, ..fixtures::opq() })).tokenizer;
    tokenizer.tensors[2].data[1] = 0.0;
    let message = Tokenizer::from_bytes(&tokenizer.to_bytes().unwrap()).unwrap_err().to_string();
    assert_eq!(message, "saved tokenizer, tensor scale: number 1 is 0: expected one above 0");
}

#[test]
fn settings_stand_under_the_name_of_their_quantiser() {
    for quantiser in fixtures::quantisers() {
        let text = serde_json::to_string(&quantiser).unwrap();
        assert_eq!(serde_json::from_str::<Quantiser>(&text).unwrap(), quantiser);
    }
    let mpq: Quantiser = serde_json::from_str(r#"{"mpq": {"codebooks": 4}}"#).unwrap();
    assert_eq!(mpq, Quantiser::Mpq(MpqConfig { codebooks: 4, ..MpqConfig::default() }));
    assert!(serde_json::from_str::<Quantiser>(r#"{"opq": {"levels": 4}}"#).is_err());
    let random = r#"{"random": {"codebooks": 2, "entries": 4, "seed": 1, "levels": 1}}"#;
    assert!(serde_json::from_str::<Quantiser>(random).is_err());
}

#[test]
fn settings_out_of_range_are_named() {
    let table = table(&Shop::new(20));
    let refused = |quantiser: Quantiser| {
        fit::<Autodiff<Flex>>(&table, &quantiser, &Default::default(), &mut |_| ()).unwrap_err().to_string()
    };
    let message = refused(Quantiser::Rq(RqConfig { levels: 0, hidden: vec![8, 0], ..fixtures::rq() }));
    assert_eq!(message, "tokenizer settings: levels: 0: expected 1 to 64; hidden: 0: expected 1 to 16384");
    let message = refused(Quantiser::Opq(OpqConfig { rounds: 0, ..fixtures::opq() }));
    assert_eq!(message, "tokenizer settings: rounds: 0: expected 1 to 100000");
    let message = refused(Quantiser::Mpq(MpqConfig { lambda_orth: f32::NAN, ..fixtures::mpq() }));
    assert_eq!(message, "tokenizer settings: lambda_orth: NaN: expected 0 to 1000000");
    let message = refused(Quantiser::Random { codebooks: 65, entries: 1, seed: 0 });
    assert_eq!(message, "tokenizer settings: codebooks: 65: expected 1 to 64; entries: 1: expected 2 to 65536");
}

#[test]
fn twins_get_distinct_codes_whatever_the_quantiser() {
    // More twins than a codebook has entries: the RQ-VAE's last level alone does not tell them apart.
    let table = table(&twins(100, 40));
    for quantiser in hasty() {
        let once = fitted(&table, &quantiser).diagnostics;
        assert!(once.largest_group >= 40 && once.moved_items >= 39, "{once}");
        assert_eq!((once.assigned_distinct_codes, once.assigned_largest_group), (100, 1), "{}", quantiser.name());
    }
    let thrice = Quantiser::Rq(RqConfig { epochs: 2, max_collisions: 3, ..fixtures::rq() });
    assert_eq!(fitted(&table, &thrice).diagnostics.assigned_largest_group, 3);
}

#[test]
fn where_the_last_level_has_room_the_rq_vae_moves_items_in_it_alone() {
    let table = table(&twins(100, 20));
    let config = RqConfig { levels: 2, entries: 32, epochs: 2, ..fixtures::rq() };
    let Fitted { tokenizer, codes, diagnostics } = fitted(&table, &Quantiser::Rq(config));
    let nearest = tokenizer.tokenize(&table).unwrap();
    let first = |codes: &CodeTable| -> Vec<u16> { (0..100).map(|item| codes.code(item)[0]).collect() };
    let most = (0..32).map(|entry| first(&nearest).iter().filter(|&&first| first == entry).count()).max();
    assert!(most <= Some(32) && diagnostics.moved_items >= 19, "{most:?}, {diagnostics}");
    assert_eq!(first(&codes), first(&nearest));
}

#[test]
fn a_full_house_of_random_codes_has_every_code_once() {
    let table = table(&Shop::new(64));
    let run = |seed| fitted(&table, &Quantiser::Random { codebooks: 3, entries: 4, seed }).codes;
    let codes = run(1);
    let entries = codes.entries();
    let mut found: Vec<&[u16]> = entries.chunks(3).collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 64);
    assert_eq!(codes, run(1));
    assert_ne!(codes, run(2));
}

#[test]
fn the_rounds_of_opq_lose_less_and_less() {
    let table = table(&Shop::new(150));
    let config = Quantiser::Opq(OpqConfig { rounds: 12, ..fixtures::opq() });
    let mut told: Vec<FitProgress> = Vec::new();
    fit::<Autodiff<Flex>>(&table, &config, &Default::default(), &mut |at| told.push(*at)).unwrap();
    assert_eq!(told.iter().map(|at| at.epoch).collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>());
    for pair in told.windows(2) {
        assert!(pair[1].loss.quantisation <= pair[0].loss.quantisation + 1e-3, "{told:?}");
    }
    assert!(told[11].loss.quantisation < told[0].loss.quantisation, "{told:?}");
}

#[test]
fn a_sub_space_is_a_share_of_the_width_rounded_up() {
    let widths = |codebooks, width| {
        let config = OpqConfig { codebooks, width, ..OpqConfig::default() };
        (config.sub_width(), config.reduced_width())
    };
    assert_eq!(widths(8, 64), (8, 64));
    assert_eq!(widths(10, 64), (7, 70));
    assert_eq!(widths(32, 4), (1, 32));
}

#[test]
fn a_fit_does_not_depend_on_the_thread_count() {
    let table = table(&Shop::new(120));
    for quantiser in hasty() {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| fitted(&table, &quantiser))
        };
        assert_eq!(run(1), run(3), "{}", quantiser.name());
    }
}
