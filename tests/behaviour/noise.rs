//! Whatever bytes come in, nothing panics: requests, settings and manifests made of noise, and of sound ones with noise in
//! them. `REG4REC_NOISE_CASES` says how many of each; some by default.

use std::io::Write;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use prost::Message;

use reg4rec::artifact::Manifest;
use reg4rec::config::{self, DEFAULTS, Layers};
use reg4rec::domain::Failure;
use reg4rec::wire::{decode, record, v1};

fn runner(cases: u32) -> TestRunner {
    let asked = std::env::var("REG4REC_NOISE_CASES").ok().and_then(|cases| cases.parse().ok());
    TestRunner::new(Config { cases: asked.unwrap_or(cases), failure_persistence: None, ..Config::default() })
}

/// Noise, or a sound text with some of its bytes changed, left out or doubled.
fn noisy(sound: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = sound.len();
    let changes = prop::collection::vec((0..length.max(1), any::<u8>(), 0..3_u8), 0..6);
    let broken = changes.prop_map(move |changes| {
        let mut bytes = sound.clone();
        for (at, byte, how) in changes {
            let at = at.min(bytes.len().saturating_sub(1));
            match how {
                _ if bytes.is_empty() => bytes.push(byte),
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
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
    let outcome = runner(20_000).run(&noisy(sound), |bytes| {
        if let Ok(message) = v1::RecommendRequest::decode(&bytes[..])
            && let Err(failure) = decode::recommend(message)
        {
            prop_assert!(is_told(&failure), "{failure:?}");
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn noise_in_events_is_refused_by_name_or_is_events() {
    let event = v1::Event { item_id: "item-3".into(), kind: 2, event_id: "e".into(), ..Default::default() };
    let events = vec![v1::UserEvent { user_id: "u".into(), event: Some(event) }; 3];
    let sound = v1::RecordRequest { events }.encode_to_vec();
    let outcome = runner(20_000).run(&noisy(sound), |bytes| {
        if let Ok(message) = v1::RecordRequest::decode(&bytes[..])
            && let Err(failure) = record::events(message, 1_400_000_000)
        {
            prop_assert!(is_told(&failure), "{failure:?}");
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn noise_in_settings_is_refused_with_a_reason_or_is_settings() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("settings.toml");
    let outcome = runner(300).run(&noisy(DEFAULTS.as_bytes().to_vec()), |bytes| {
        std::fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
        if let Err(error) = config::read(&Layers { file: Some(&path), ..Layers::default() }) {
            prop_assert!(!error.to_string().is_empty());
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn noise_in_a_manifest_is_refused_by_file_or_is_a_manifest() {
    let sound = include_bytes!("../../model-artifacts/demo/manifest.json");
    assert!(Manifest::from_bytes(sound).is_ok());
    let outcome = runner(2_000).run(&noisy(sound.to_vec()), |bytes| {
        match Manifest::from_bytes(&bytes) {
            Ok(_) => prop_assert_eq!(&bytes[..], &sound[..], "a manifest with noise in it was believed"),
            Err(error) => prop_assert!(error.to_string().contains("manifest.json"), "{}", error),
        }
        Ok(())
    });
    outcome.unwrap();
}
