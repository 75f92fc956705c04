//! Whatever bytes come in, nothing panics: messages, settings and manifests made of noise, and of sound ones with noise in
//! them. Some of each by default; for as long as one likes, a target after the other:
//!
//! `REG4REC_NOISE_SECONDS=600 cargo test --test behaviour noise -- --test-threads 1 --nocapture`

use std::fmt::Debug;
use std::io::Write;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use prost::Message;

use reg4rec::artifact::Manifest;
use reg4rec::config::{self, DEFAULTS, Layers};
use reg4rec::domain::Failure;
use reg4rec::wire::{catalogue, decode, record, v1};

/// Feeds a target with so many inputs, or for as many seconds as `REG4REC_NOISE_SECONDS` says, always other ones, and prints
/// how many it were.
pub fn feed<S>(target: &str, cases: u32, inputs: &S, test: impl Fn(S::Value) -> TestCaseResult)
where
    S: Strategy,
    S::Value: Debug,
{
    let asked = std::env::var("REG4REC_NOISE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let (began, mut fed) = (Instant::now(), 0_u64);
    loop {
        let config = Config { cases, failure_persistence: None, ..Config::default() };
        if let Err(finding) = TestRunner::new(config).run(inputs, &test) {
            panic!("{target}, after {fed} inputs: {finding}");
        }
        fed += u64::from(cases);
        if asked.is_none_or(|seconds| began.elapsed() >= Duration::from_secs(seconds)) {
            return eprintln!("{target}: {fed} inputs in {:.0} s without a finding", began.elapsed().as_secs_f64());
        }
    }
}

/// Noise, or a sound text with some of its bytes changed, left out, put in, or cut off, and pieces of it doubled.
pub fn noisy(sound: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = sound.len();
    let changes = prop::collection::vec((0..length.max(1), any::<u8>(), 0..8_u8), 0..6);
    let broken = changes.prop_map(move |changes| {
        let mut bytes = sound.clone();
        for (at, byte, how) in changes {
            let at = at.min(bytes.len().saturating_sub(1));
            match how {
                _ if bytes.is_empty() => bytes.push(byte),
                0..3 => bytes[at] = byte,
                3 | 4 => drop(bytes.remove(at)),
                5 => bytes.insert(at, byte),
                6 => bytes.truncate(at),
                _ => {
                    let piece = bytes[at..(at + usize::from(byte)).min(bytes.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        bytes
    });
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..200), 4 => broken]
}

fn request() -> v1::RecommendRequest {
    let time = Some(prost_types::Timestamp { seconds: 1_400_000_000, nanos: 1 });
    let event = v1::Event { item_id: "item-3".into(), kind: 2, time, value: Some(1.5), ..Default::default() };
    v1::RecommendRequest {
        request_id: "r".into(),
        user_id: "u".into(),
        history: vec![event.clone(), event],
        k: Some(10),
        filter: Some(v1::Filter {
            include_categories: vec!["Hats".into()],
            price: Some(v1::PriceRange { min: Some(1.0), max: Some(9.0) }),
            ..Default::default()
        }),
        decode: Some(v1::DecodeOptions { beam: Some(20), theta: Some(0.06), ..Default::default() }),
        steering: Some(v1::Steering {
            categories: vec![v1::CategoryWeight { category: "Hats".into(), weight: 0.7 }],
            ..Default::default()
        }),
        timeout: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..Default::default()
    }
}

/// A refusal names at least one field, and every one with what was expected.
fn is_told(failure: &Failure) -> bool {
    matches!(failure, Failure::Invalid(wrong) if !wrong.is_empty() && wrong.iter().all(|one| !one.description.is_empty()))
}

#[test]
fn noise_in_a_request_is_refused_by_name_or_is_a_request() {
    let sound = request().encode_to_vec();
    assert!(decode::recommend(v1::RecommendRequest::decode(&sound[..]).unwrap()).is_ok());
    feed("requests", 20_000, &noisy(sound), |bytes| {
        if let Ok(message) = v1::RecommendRequest::decode(&bytes[..])
            && let Err(failure) = decode::recommend(message)
        {
            prop_assert!(is_told(&failure), "{failure:?}");
        }
        Ok(())
    });
}

#[test]
fn noise_in_events_is_refused_by_name_or_is_events() {
    let event = v1::Event { item_id: "item-3".into(), kind: 2, event_id: "e".into(), ..Default::default() };
    let events = vec![v1::UserEvent { user_id: "u".into(), event: Some(event) }; 3];
    let sound = v1::RecordRequest { events }.encode_to_vec();
    feed("events", 20_000, &noisy(sound), |bytes| {
        if let Ok(message) = v1::RecordRequest::decode(&bytes[..])
            && let Err(failure) = record::events(message, 1_400_000_000)
        {
            prop_assert!(is_told(&failure), "{failure:?}");
        }
        Ok(())
    });
}

fn upsert() -> v1::UpsertItemsRequest {
    let item = v1::CatalogItem {
        item_id: "item-3".into(),
        title: "A hat".into(),
        brand: "Brim".into(),
        categories: vec!["Shop".into(), "Hats".into()],
        price: Some(9.5),
        eligible: Some(true),
        text: "of felt".into(),
        embedding: vec![0.25; 4],
    };
    v1::UpsertItemsRequest { items: vec![item.clone(), v1::CatalogItem { item_id: "item-4".into(), ..item }] }
}

#[test]
fn noise_in_what_is_said_of_items_is_refused_by_name_or_is_changes() {
    let sound = upsert().encode_to_vec();
    assert!(catalogue::upserts(upsert()).is_ok());
    // Field 1 of each message holds items or ids, so that the same bytes are noise to all of them.
    feed("catalogue", 20_000, &noisy(sound), |bytes| {
        let outcomes = [
            v1::UpsertItemsRequest::decode(&bytes[..]).ok().map(catalogue::upserts),
            v1::RemoveItemsRequest::decode(&bytes[..]).ok().map(catalogue::removals),
            v1::SetEligibilityRequest::decode(&bytes[..]).ok().map(catalogue::eligibilities),
        ];
        for outcome in outcomes.into_iter().flatten() {
            match outcome {
                Ok(changes) => prop_assert!(!changes.is_empty()),
                Err(failure) => prop_assert!(is_told(&failure), "{failure:?}"),
            }
        }
        if let Ok(page) = v1::ListItemsRequest::decode(&bytes[..])
            && let Err(failure) = catalogue::page_asked(page)
        {
            prop_assert!(is_told(&failure), "{failure:?}");
        }
        Ok(())
    });
}

#[test]
fn noise_in_settings_is_refused_with_a_reason_or_is_settings() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("settings.toml");
    feed("settings", 300, &noisy(DEFAULTS.as_bytes().to_vec()), |bytes| {
        std::fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
        if let Err(error) = config::read(&Layers { file: Some(&path), ..Layers::default() }) {
            prop_assert!(!error.to_string().is_empty());
        }
        Ok(())
    });
}

#[test]
fn noise_in_a_manifest_is_refused_by_file_or_is_a_manifest() {
    let sound = include_bytes!("../../model-artifacts/demo/manifest.json");
    assert!(Manifest::from_bytes(sound).is_ok());
    feed("manifests", 2_000, &noisy(sound.to_vec()), |bytes| {
        match Manifest::from_bytes(&bytes) {
            Ok(_) => prop_assert_eq!(&bytes[..], &sound[..], "a manifest with noise in it was believed"),
            Err(error) => prop_assert!(error.to_string().contains("manifest.json"), "{}", error),
        }
        Ok(())
    });
}
