//! A small sound bundle for the tests of this room.

use std::collections::BTreeMap;

use burn::backend::Flex;
use serde_json::json;

use super::{
    BundleParts, DataFacts, Golden, GoldenAnswer, GoldenEvent, Manifest, Tensor, TokenizerFacts, WarmupShape,
    pack_tensors,
};
use crate::catalog::CatalogItem;
use crate::domain::{CodeShape, CodeTable, EventKind, Item};
use crate::model::{NetworkConfig, save_weights};

fn network() -> NetworkConfig {
    NetworkConfig {
        items: 4,
        categories: 2,
        codes: CodeShape { codebooks: 2, entries: 4 },
        reads_codes: true,
        own_residuals: true,
        feature_width: 0,
        width: 2,
        heads: 1,
        head_width: None,
        encoder_layers: 1,
        decoder_layers: 1,
        feed_forward: 2,
        max_history: 8,
        dropout: 0.0,
    }
}

/// A manifest as a trainer hands it to `publish`.
pub fn manifest(version: &str) -> Manifest {
    Manifest {
        created: "2026-01-31T23:59:59Z".to_owned(),
        parent: Some("shop/0".to_owned()),
        data: DataFacts { fingerprint: "f00d".to_owned(), users: 3, items: 4, interactions: 9 },
        training: json!({"preset": "quick", "seed": 7}),
        tokenizer: TokenizerFacts { config: json!({"latent": 4}), diagnostics: json!({"perplexity": [3.5, 3.9]}) },
        decode: json!({"beam": 20, "theta": 0.06}),
        metrics: json!({"filtered": {"recall@10": 0.07}}),
        ..Manifest::new("shop", version, network(), vec!["hats".to_owned(), "shoes".to_owned()])
    }
}

/// Parts with four items, two of which share a code.
pub fn parts() -> BundleParts {
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
    let codebook = Tensor { shape: vec![4, 2], values: vec![0.25; 8] };
    let entries = vec![0, 3, 1, 2, 1, 2, 3, 0];
    BundleParts {
        weights: save_weights(&network().init::<Flex>(&Default::default())).unwrap(),
        codebooks: pack_tensors("codebooks", &BTreeMap::from([("codebook.0".to_owned(), codebook)])).unwrap(),
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
        warmup: vec![WarmupShape { batch: 1, history: 4 }, WarmupShape { batch: 8, history: 8 }],
    }
}
