//! Bundles change under traffic and nobody notices but by the version in the answer.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus::{NotServing, Serving};
use tonic_health::pb::health_client::HealthClient;

use reg4rec::artifact;
use reg4rec::wire::v1;

use crate::bundle::{self, DEMO};
use crate::operated::{Operated, PATIENCE, channel, place, registry};
use crate::process::json;

const RELOADS: usize = 20;

/// Histories of items that the demo knows.
fn requests() -> Vec<v1::RecommendRequest> {
    let golden = artifact::load(Path::new(DEMO)).unwrap().golden;
    let event =
        |event: &artifact::GoldenEvent| v1::Event { item_id: event.item_id.clone().into(), ..Default::default() };
    let history = |golden: &artifact::Golden| golden.history.iter().map(event).collect();
    golden.iter().map(|golden| v1::RecommendRequest { history: history(golden), ..Default::default() }).collect()
}

/// Threads of engines, and of what they started once for all; none where the system does not tell.
fn engine_threads(server: &Operated) -> Option<usize> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", server.process.child.id())).ok()?;
    let names = threads.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    Some(names.filter(|name| name.starts_with("engine-")).count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_reloads_of_the_demo_under_traffic_fail_no_request() {
    let (home, registry) = registry();
    registry.publish(Path::new(DEMO), "default", Some("v0")).unwrap();
    // Made beforehand, so that the reloads come as fast as the server takes them.
    for nth in 1..=RELOADS {
        bundle::write_again(
            Path::new(DEMO),
            &registry.directory("default", &format!("v{nth}")).unwrap(),
            &nth.to_string(),
        );
    }
    let server = Operated::follow(home, registry, |_| {}).await;
    let first = engine_threads(&server);
    let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(requests()));
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let (stop, requests, address) = (Arc::clone(&stop), Arc::clone(&requests), server.process.public.clone());
            tokio::spawn(async move {
                let mut client = crate::fake::Client::new(channel(&address).await);
                let (mut answers, mut versions) = (0, BTreeSet::new());
                while !stop.load(Ordering::Relaxed) {
                    let asked = requests[(caller + answers) % requests.len()].clone();
                    let answer = client.recommend(asked).await.expect("a request failed during reloads").into_inner();
                    assert_eq!(answer.items.len(), 10);
                    versions.insert(answer.bundle_version);
                    answers += 1;
                }
                (answers, versions)
            })
        })
        .collect();
    for nth in 1..=RELOADS {
        server.registry.point("default", &format!("v{nth}")).unwrap();
        let began = Instant::now();
        loop {
            let state = server.variant("default").await;
            assert!(state.refused.is_none(), "{:?}", state.refused);
            if state.current.is_some_and(|bundle| bundle.version == nth.to_string()) {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "reload {nth} never came");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let (mut answers, mut versions) = (0, BTreeSet::new());
    for caller in callers {
        let (count, seen) = caller.await.unwrap();
        answers += count;
        versions.extend(seen);
    }
    assert!(answers > 10 * RELOADS && versions.len() > RELOADS / 2, "{answers} answers by {versions:?}");
    assert_eq!(
        server.series("reg4rec_reload_total{result=\"taken\",stage=\"swap\"}").await,
        Some(1.0 + RELOADS as f64)
    );
    assert_eq!(
        server.series("reg4rec_requests_total{code=\"OK\",method=\"Recommend\",variant=\"default\"}").await,
        Some(answers as f64)
    );
    let info = format!("reg4rec_model_info{{name=\"demo\",variant=\"default\",version=\"{RELOADS}\"}}");
    assert_eq!(server.series(&info).await, Some(1.0));
    assert!(server.series("reg4rec_model_age_seconds{variant=\"default\"}").await.is_some_and(|age| age > 0.0));
    // Of 21 bundles two are loaded, one more than at first, and so there are the threads of two engines.
    let began = Instant::now();
    while engine_threads(&server) != first.map(|first| 2 * first) {
        assert!(began.elapsed() < PATIENCE, "{:?} threads, {first:?} at first", engine_threads(&server));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_takes_less_than_a_second_and_holds() {
    let server = Operated::start().await;
    place(&server.registry, "default", "v2");
    server.registry.point("default", "v2").unwrap();
    server.until_answered_by("", "v2").await;
    let mut operator = server.operator().await;
    let mut client = server.client().await;
    let began = Instant::now();
    let answer = operator.rollback(v1::RollbackRequest { variant: "default".into() }).await.unwrap().into_inner();
    let version = client.recommend(crate::operated::request("")).await.unwrap().into_inner().bundle_version;
    let took = began.elapsed();
    assert_eq!(version, "v1");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let state = answer.variant.unwrap();
    assert!(answer.pointed && state.serving && state.default);
    let versions = (state.current.unwrap().version, state.previous.unwrap().version);
    assert_eq!(versions, ("v1".to_owned(), "v2".to_owned()));
    assert_eq!(server.registry.current("default").unwrap().as_deref(), Some("v1"));
    // The pointer that it wrote is no news.
    let taken = server.series("reg4rec_reload_total{result=\"taken\",stage=\"swap\"}").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.series("reg4rec_reload_total{result=\"taken\",stage=\"swap\"}").await, taken);
    assert_eq!(server.answering("").await, "v1");
    assert_eq!(server.series("reg4rec_model_info{name=\"tiny\",variant=\"default\",version=\"v1\"}").await, Some(1.0));
    assert_eq!(server.series("reg4rec_model_info{name=\"tiny\",variant=\"default\",version=\"v2\"}").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_variant_is_loaded_healthy_and_counted_by_its_name() {
    let (home, registry) = registry();
    place(&registry, "main", "v1");
    registry.point("main", "v1").unwrap();
    let named = |command: &mut Command| {
        command.env("REG4REC__REGISTRY__DEFAULT", "main");
        // Lists of texts do not come from the environment.
        let file = registry.root().join("settings.toml");
        std::fs::write(&file, "[registry]\nvariants = [\"main\", \"next\"]\n").unwrap();
        command.arg("--config").arg(file);
    };
    let server = Operated::follow(home, registry.clone(), named).await;
    let channel = channel(&server.process.public).await;
    let health = |name: &str| {
        let (mut client, service) = (HealthClient::new(channel.clone()), name.to_owned());
        async move { client.check(HealthCheckRequest { service }).await.unwrap().into_inner().status }
    };
    let began = Instant::now();
    while health("main").await != Serving as i32 || health("").await != Serving as i32 {
        assert!(began.elapsed() < PATIENCE);
    }
    assert_eq!(health("next").await, NotServing as i32);
    let status = server.client().await.recommend(crate::operated::request("next")).await.expect_err("answered");
    assert_eq!(status.code(), tonic::Code::NotFound);

    place(&server.registry, "next", "n1");
    server.registry.point("next", "n1").unwrap();
    server.until_answered_by("next", "n1").await;
    assert_eq!(server.answering("").await, "v1");
    let began = Instant::now();
    while health("next").await != Serving as i32 {
        assert!(began.elapsed() < PATIENCE);
    }
    let promote = v1::PromoteRequest { variant: "next".into(), version: String::new() };
    let promoted = server.operator().await.promote(promote).await.unwrap().into_inner().variant.unwrap();
    assert!(promoted.default && !server.variant("main").await.default);
    assert_eq!((server.answering("").await, server.answering("main").await), ("n1".into(), "v1".into()));
    for (variant, version) in [("main", "v1"), ("next", "n1")] {
        let info = format!("reg4rec_model_info{{name=\"tiny\",variant=\"{variant}\",version=\"{version}\"}}");
        assert_eq!(server.series(&info).await, Some(1.0));
        assert_eq!(server.series(&format!("reg4rec_index_items{{variant=\"{variant}\"}}")).await, Some(300.0));
        let answered = format!("reg4rec_requests_total{{code=\"OK\",method=\"Recommend\",variant=\"{variant}\"}}");
        assert!(server.series(&answered).await.unwrap() >= 1.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_new_start_a_rollback_loads_what_the_registry_says_was_before() {
    let (home, registry) = registry();
    for version in ["v1", "v2"] {
        place(&registry, "default", version);
        registry.point("default", version).unwrap();
    }
    let server = Operated::follow(home, registry, |_| {}).await;
    assert_eq!(server.answering("").await, "v2");
    assert!(server.variant("default").await.previous.is_none());
    let asked = v1::RollbackRequest { variant: "default".into() };
    let answer = server.operator().await.rollback(asked).await.unwrap().into_inner();
    assert!(answer.pointed);
    assert_eq!(answer.variant.unwrap().current.unwrap().version, "v1");
    assert_eq!(server.answering("").await, "v1");
    assert_eq!(server.registry.current("default").unwrap().as_deref(), Some("v1"));
    assert_eq!(server.registry.previous("default").unwrap().as_deref(), Some("v2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tool_publishes_lists_promotes_and_rolls_back() {
    let server = Operated::start().await;
    let made = server.home.path().join("made");
    bundle::write_version(&made, "7", 0.0);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reg4rec"));
        command.args(arguments).output().unwrap()
    };
    let root = server.registry.root().to_str().unwrap().to_owned();
    let publish =
        ["bundle", "publish", "--bundle", made.to_str().unwrap(), "--registry", &root, "--variant", "default"];
    let output = run(&publish);
    assert!(output.status.success(), "{output:?}");
    server.until_answered_by("", "7").await;
    let admin = server.process.admin.trim_start_matches("http://");
    let listed = json(&run(&["variants", "--admin", admin, "--json"]));
    let shown = &listed["variants"][0];
    assert_eq!((&shown["name"], &shown["current"]["version"]), (&"default".into(), &"7".into()));
    assert_eq!((&shown["previous"]["version"], &shown["serving"]), (&"v1".into(), &true.into()));
    let page = String::from_utf8(run(&["variants", "--admin", admin]).stdout).unwrap();
    assert!(page.contains("tiny/7 of 300 items, serving, default (before: tiny/v1)"), "{page}");

    let back = json(&run(&["variants", "rollback", "default", "--admin", admin, "--json"]));
    assert_eq!((&back["variant"]["current"]["version"], &back["pointed"]), (&"v1".into(), &true.into()));
    let there = json(&run(&["variants", "--json", "--admin", admin, "promote", "default", "--version", "7"]));
    assert_eq!(there["variant"]["current"]["version"], "7");
    assert_eq!(server.registry.current("default").unwrap().as_deref(), Some("7"));
    let loaded = json(&run(&["variants", "load", "default", "default/v1", "--json", "--admin", admin]));
    assert_eq!(loaded["variant"]["current"]["version"], "v1");
    assert_eq!(server.registry.current("default").unwrap().as_deref(), Some("7"), "a load leaves the pointer");
    let refused = run(&["variants", "load", "default", "../made", "--json", "--admin", admin]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(json(&refused)["error"]["violations"][0]["field"], "bundle");
    // A version that holds another bundle is not overwritten.
    bundle::write_version(&made, "7", 0.0);
    let output = run(&publish);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("holds another bundle"));
}
