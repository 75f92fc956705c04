//! Bundles that must not serve: each is refused by stage and reason while the one before goes on answering.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::bundle;
use crate::operated::{Operated, follower, place, registry};
use crate::process::Process;

/// Points the registry at a version without asking whether it is one.
fn point(server: &Operated, text: &str) {
    let place = server.registry.root().join("default");
    fs::write(place.join("next"), text).unwrap();
    fs::rename(place.join("next"), place.join("current")).unwrap();
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_broken_bundle_is_refused_by_name_while_the_one_before_serves() {
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil, &str, &[&str]); 9] = [
        (
            "no-manifest",
            |dir| fs::remove_file(dir.join("manifest.json")).unwrap(),
            "verify",
            &["manifest.json", "missing"],
        ),
        (
            "no-weights",
            |dir| fs::remove_file(dir.join("weights.safetensors")).unwrap(),
            "verify",
            &["weights.safetensors"],
        ),
        (
            "half-written",
            |dir| {
                let path = dir.join("items.parquet");
                let bytes = fs::read(&path).unwrap();
                fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            },
            "verify",
            &["items.parquet", "bytes, the manifest says"],
        ),
        ("hash-wrong", |dir| flip(&dir.join("weights.safetensors")), "verify", &["weights.safetensors", "sha256"]),
        ("manifest-wrong", |dir| flip(&dir.join("manifest.json")), "verify", &["manifest.json"]),
        (
            "newer-schema",
            |dir| bundle::reseal(dir, "\"schema_version\": 1", "\"schema_version\": 2"),
            "verify",
            &["manifest.json", "schema_version 2 is newer than this build reads (1)"],
        ),
        (
            "out-of-range",
            |dir| bundle::reseal(dir, "\"entries\": 8", "\"entries\": 4"),
            "verify",
            &["items.parquet: code:", "is not below 4"],
        ),
        (
            "shape-wrong",
            |dir| bundle::reseal(dir, "\"feed_forward\": 32", "\"feed_forward\": 48"),
            "load",
            &["weights.safetensors", "weights do not fit the network"],
        ),
        (
            "golden-wrong",
            |dir| {
                fs::remove_dir_all(dir).unwrap();
                bundle::write_version(dir, "golden-wrong", 0.5);
            },
            "golden",
            &["golden request 0", "rank 0"],
        ),
    ];
    let server = Operated::start().await;
    let mut refused_before = 0.0;
    for (version, spoil, stage, parts) in cases {
        let dir = place(&server.registry, "default", version);
        spoil(&dir);
        let series = format!("reg4rec_reload_total{{result=\"refused\",stage=\"{stage}\"}}");
        let before = server.series(&series).await.unwrap();
        point(&server, version);
        let (told_stage, reason) = server.until_refused("default", &dir).await;
        assert_eq!(told_stage, stage, "{version}: {reason}");
        for part in parts {
            assert!(reason.contains(part), "{version}: {part:?} is not in {reason:?}");
        }
        assert_eq!(server.answering("default").await, "v1", "{version}");
        assert_eq!(server.series(&series).await, Some(before + 1.0), "{version}");
        assert!(server.process.logged.lock().unwrap().contains(&format!("{version} stage=\"{stage}\"")), "{version}");
        refused_before += 1.0;
    }
    // Nothing that was refused is tried again by itself.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut refused = 0.0;
    for stage in ["find", "fetch", "verify", "memory", "load", "warm_up", "golden", "swap"] {
        let series = format!("reg4rec_reload_total{{result=\"refused\",stage=\"{stage}\"}}");
        refused += server.series(&series).await.unwrap();
        let seconds = format!("reg4rec_reload_duration_seconds_count{{stage=\"{stage}\"}}");
        assert!(server.series(&seconds).await.is_some(), "{stage}");
    }
    assert_eq!(refused, refused_before);
    // And a version that is mended is taken without a new pointer.
    bundle::write_version(&server.registry.directory("default", "golden-wrong").unwrap(), "mended", 0.0);
    server.until_answered_by("default", "mended").await;
    assert!(server.variant("default").await.refused.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pointer_to_nowhere_changes_nothing() {
    let server = Operated::start().await;
    let place = server.registry.root().join("default");
    for (text, file, stage) in [
        ("../../elsewhere\n", place.join("current"), "find"),
        ("\n", place.join("current"), "find"),
        ("v9\n", place.join("v9"), "verify"),
    ] {
        point(&server, text);
        let (told, reason) = server.until_refused("default", &file).await;
        assert_eq!(told, stage, "{reason}");
        assert_eq!(server.answering("default").await, "v1");
    }
    fs::remove_file(place.join("current")).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.answering("default").await, "v1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_memory_does_not_hold_is_refused_before_it_is_read() {
    let (home, registry) = registry();
    let dir = place(&registry, "default", "v1");
    // Never read: the memory is asked for by the manifest alone.
    fs::write(dir.join("weights.safetensors"), "half").unwrap();
    registry.point("default", "v1").unwrap();
    let mut command = follower(&registry);
    // A petabyte must stay free.
    command.env("REG4REC__REGISTRY__MEMORY_RESERVE_MB", "1073741824");
    let process = tokio::task::spawn_blocking(move || Process::spawn(&mut command, false)).await.unwrap();
    let server = Operated { home, registry, process };
    let series = "reg4rec_reload_total{result=\"refused\",stage=\"memory\"}";
    let began = std::time::Instant::now();
    while server.series(series).await != Some(1.0) {
        assert!(began.elapsed() < crate::operated::PATIENCE, "never refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let logged = server.process.logged.lock().unwrap().clone();
    assert!(logged.contains("stage=\"memory\"") && logged.contains("MiB must stay free"), "{logged}");
    // Without a default variant it waits, and says that it is not ready.
    let status = server.client().await.recommend(crate::operated::request("")).await.expect_err("answered");
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let status = server.operator().await.list_variants(reg4rec::wire::v1::ListVariantsRequest {}).await;
    assert_eq!(status.expect_err("answered").code(), tonic::Code::Unavailable);
    assert!(server.home.path().is_dir());
}
