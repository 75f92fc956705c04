//! A small sound bundle for the tests of this room.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    BundleParts, DataFacts, Golden, GoldenAnswer, GoldenEvent, Manifest, Tensor, TokenizerFacts, WarmupShape,
    pack_tensors,
};
use crate::catalog::CatalogItem;
use crate::domain::{CodeShape, CodeTable, EventKind, Item};

/// A manifest as a trainer hands it to `publish`.
pub fn manifest(version: &str) -> Manifest {
    Manifest {
        name: "shop".to_owned(),
        version: version.to_owned(),
        created: "2026-01-31T23:59:59Z".to_owned(),
        parent: Some("shop/0".to_owned()),
        data: DataFacts { fingerprint: "f00d".to_owned(), users: 3, items: 4, interactions: 9 },
        training: json!({"preset": "quick", "seed": 7}),
        network: json!({"width": 8, "layers": 2}),
        tokenizer: TokenizerFacts { config: json!({"latent": 4}), diagnostics: json!({"perplexity": [3.5, 3.9]}) },
        decode: json!({"beam": 20, "theta": 0.06}),
        metrics: json!({"filtered": {"recall@10": 0.07}}),
        max_history: 50,
        categories: vec!["hats".to_owned(), "shoes".to_owned()],
        ..Manifest::default()
    }
}

/// Parts with four items, two of which share a code. `seed` changes the weights.
pub fn parts(seed: f32) -> BundleParts {
    let item = |number: u32, brand: Option<&str>, price: Option<f32>, category: u32| CatalogItem {
        item: Item {
            id: format!("item-{number}"),
            title: (number != 2).then(|| format!("Title \u{e9} {number}")),
            brand: brand.map(str::to_owned),
            categories: vec!["all".to_owned(), ["hats", "shoes"][category as usize].to_owned()],
            price,
            eligible: number != 3,
        },
        category,
        prior: -1.5 - number as f32,
    };
    let entries = vec![0, 3, 1, 2, 1, 2, 3, 0];
    BundleParts {
        weights: tensors(&[("encoder.weight", vec![2, 3], seed), ("head.bias", vec![3], 0.5)]),
        codebooks: tensors(&[("codebook.0", vec![4, 2], 0.25)]),
        items: vec![
            item(0, Some("Acme"), Some(9.5), 0),
            item(1, None, None, 1),
            item(2, Some(""), Some(0.0), 1),
            item(3, Some("Acme"), Some(1e6), 0),
        ],
        codes: CodeTable::new(CodeShape { codebooks: 2, entries: 4 }, entries).unwrap(),
        golden: vec![Golden {
            history: vec![GoldenEvent { item_id: "item-0".to_owned(), kind: EventKind::Purchase, time: 1_700_000_000 }],
            k: 2,
            exclude_seen: true,
            settings: json!({"beam": 20}),
            answers: vec![
                GoldenAnswer { item_id: "item-1".to_owned(), score: -0.5 },
                GoldenAnswer { item_id: "item-2".to_owned(), score: -1.25 },
            ],
            tolerance: 1e-3,
        }],
        warmup: vec![WarmupShape { batch: 1, history: 16 }, WarmupShape { batch: 8, history: 50 }],
    }
}

fn tensors(named: &[(&str, Vec<usize>, f32)]) -> Vec<u8> {
    let tensors: BTreeMap<String, Tensor> = named
        .iter()
        .map(|(name, shape, first)| {
            let values = (0..shape.iter().product::<usize>()).map(|at| first + at as f32).collect();
            ((*name).to_owned(), Tensor { shape: shape.clone(), values })
        })
        .collect();
    pack_tensors("sample", &tensors).unwrap()
}
