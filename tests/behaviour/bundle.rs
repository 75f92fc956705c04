//! A small sound bundle with random weights, and what its search answers.

use std::collections::BTreeMap;
use std::path::Path;

use burn::backend::Flex;
use serde_json::json;
use sha2::{Digest, Sha256};

use reg4rec::artifact::{
    BundleParts, DataFacts, FileFacts, Golden, GoldenAnswer, GoldenEvent, Manifest, Tensor, TokenizerFacts,
    WarmupShape, load, pack_tensors, publish, show,
};
use reg4rec::catalog::{CatalogItem, Index};
use reg4rec::decode::{DecodeJob, DecodeSettings, decode};
use reg4rec::domain::{CodeShape, CodeTable, EventKind, Filter, HistoryEntry, Item};
use reg4rec::model::{CpuScorer, NetworkConfig, load_weights, save_weights};

/// The bundle that the repository holds.
pub const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/model-artifacts/demo");

const CATEGORIES: [&str; 3] = ["Hats", "Shoes", "Gloves"];

fn network() -> NetworkConfig {
    NetworkConfig {
        // Enough that a search takes at least one step.
        items: 300,
        categories: CATEGORIES.len(),
        codes: CodeShape { codebooks: 4, entries: 8 },
        reads_codes: true,
        own_residuals: true,
        feature_width: 0,
        width: 16,
        heads: 2,
        head_width: None,
        encoder_layers: 1,
        decoder_layers: 1,
        feed_forward: 32,
        max_history: 20,
        dropout: 0.0,
    }
}

fn items() -> Vec<CatalogItem> {
    let item = |number: u32| {
        let category = number % CATEGORIES.len() as u32;
        let item = Item {
            id: format!("item-{number}"),
            title: Some(format!("Thing {number}")),
            brand: None,
            categories: vec!["Shop".into(), CATEGORIES[category as usize].into()],
            price: Some(number as f32),
            eligible: number != 59,
        };
        CatalogItem { item, category, prior: -(number as f32) / 10.0 }
    };
    (0..network().items as u32).map(item).collect()
}

/// The codes of the items.
fn codes() -> CodeTable {
    let network = network();
    let entries = (0..(network.items * network.codes.codebooks) as u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 20) as u16 % network.codes.entries as u16);
    CodeTable::new(network.codes, entries.collect()).unwrap()
}

/// The index of the items, without a bundle.
pub fn index() -> Index {
    Index::build(items(), codes(), CATEGORIES.map(str::to_owned).to_vec(), "1".into()).unwrap()
}

/// What the search answers to a history of item numbers, by itself: ids and scores, best first.
pub struct Expected {
    weights: Vec<u8>,
    codes: CodeTable,
}

impl Expected {
    pub fn answer(&self, history: &[u32], k: usize) -> Vec<(String, f32)> {
        let device = Default::default();
        let loaded = load_weights::<Flex>(&network(), self.weights.clone(), &device).unwrap();
        let mut model = CpuScorer::new(&loaded, network(), &self.codes).unwrap();
        let index = index();
        let entry = |&item: &u32| HistoryEntry { item, kind: EventKind::View, time: 0 };
        let history: Vec<HistoryEntry> = history.iter().map(entry).collect();
        let root = index.root(&Filter::default(), &[]);
        let settings = DecodeSettings::default();
        let job = DecodeJob { history: &history, k, root: &root, settings: &settings, explain: false, bias: None };
        let outcome = decode(&mut model, &index, &[job], &|_| true).unwrap().remove(0).unwrap();
        outcome.items.iter().map(|ranked| (format!("item-{}", ranked.item), ranked.score)).collect()
    }
}

/// Publishes version 1 of the bundle at `dir`; `golden_shift` is added to the scores that its golden request expects.
pub fn write(dir: &Path, golden_shift: f32) -> Expected {
    write_version(dir, "1", golden_shift)
}

/// Publishes a version of the bundle at `dir`, with weights of its own.
pub fn write_version(dir: &Path, version: &str, golden_shift: f32) -> Expected {
    let network = network();
    let weights = save_weights(&network.init::<Flex>(&Default::default())).unwrap();
    let codes = codes();
    let expected = Expected { weights: weights.clone(), codes: codes.clone() };
    let event = |item: u32| GoldenEvent { item_id: format!("item-{item}"), kind: EventKind::View, time: 0 };
    let answers = expected.answer(&[3, 7], 5);
    let answer = |(item_id, score): (String, f32)| GoldenAnswer { item_id, score: score + golden_shift };
    let codebook = Tensor { shape: vec![8, 2], values: vec![0.5; 16] };
    let parts = BundleParts {
        weights,
        codebooks: pack_tensors("codebooks", &BTreeMap::from([("codebook.0".to_owned(), codebook)])).unwrap(),
        items: items(),
        codes,
        golden: vec![Golden {
            history: vec![event(3), event(7)],
            k: 5,
            exclude_seen: false,
            settings: serde_json::to_value(DecodeSettings::default()).unwrap(),
            answers: answers.into_iter().map(answer).collect(),
            tolerance: 1e-3,
        }],
        warmup: vec![WarmupShape { batch: 1, history: 4 }],
    };
    let manifest = Manifest {
        data: DataFacts { fingerprint: "f00d".into(), users: 3, items: 300, interactions: 9 },
        training: json!({"seed": 7}),
        tokenizer: TokenizerFacts { config: json!({}), diagnostics: json!({}) },
        decode: serde_json::to_value(DecodeSettings::default()).unwrap(),
        metrics: json!({}),
        ..Manifest::new("tiny", version, network, CATEGORIES.map(str::to_owned).to_vec())
    };
    publish(dir, manifest, parts).unwrap();
    expected
}

/// Publishes another version of a bundle: all of it as it is, but for the version.
pub fn write_again(from: &Path, dir: &Path, version: &str) {
    let bundle = load(from).unwrap();
    let parts = BundleParts {
        weights: bundle.weights,
        codebooks: bundle.codebooks,
        items: bundle.index.items().collect(),
        codes: bundle.index.codes().clone(),
        golden: bundle.golden,
        warmup: bundle.warmup,
    };
    publish(dir, Manifest { version: version.to_owned(), ..bundle.manifest }, parts).unwrap();
}

/// Puts other bytes in the place of a bundle's file, and seals the bundle anew.
pub fn replace(dir: &Path, file: &str, bytes: &[u8]) {
    let facts = |facts: &FileFacts| format!("\"sha256\": \"{}\",\n      \"bytes\": {}", facts.sha256, facts.bytes);
    let before = show(dir).unwrap().manifest.files[file].clone();
    std::fs::write(dir.join(file), bytes).unwrap();
    reseal(dir, &facts(&before), &facts(&FileFacts::of(bytes)));
}

/// Changes a text of a bundle's manifest and seals it anew, as somebody would who wants it to be believed.
pub fn reseal(dir: &Path, old: &str, new: &str) {
    let path = dir.join("manifest.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(old), "{old:?} is not in {text}");
    let text = text.replacen(old, new, 1);
    let (before, after) = ("{\n  \"digest\": \"".len(), "{\n  \"digest\": \"".len() + 64);
    let open = format!("{}{}{}", &text[..before], "0".repeat(64), &text[after..]);
    let digest: String = Sha256::digest(open.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(&path, format!("{}{digest}{}", &text[..before], &text[after..])).unwrap();
}
