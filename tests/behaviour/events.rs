//! What users did: told to a server, durable before it is acknowledged, seen by the next request, gone when forgotten.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt;

use reg4rec::domain::{EventKind, Item};
use reg4rec::training::dataset::{Dataset, DatasetItem, Interaction};
use reg4rec::wire::client::EventServiceClient;
use reg4rec::wire::v1;
use reg4rec::wire::v1::record_result::Outcome;

use crate::bundle;
use crate::fake::{Client, page_at, user};
use crate::process::Process;

fn event(who: &str, item: usize, kind: v1::EventKind, id: &str) -> v1::UserEvent {
    let event = v1::Event {
        item_id: format!("item-{item}").into(),
        kind: kind as i32,
        event_id: id.into(),
        ..Default::default()
    };
    v1::UserEvent { user_id: who.into(), event: Some(event) }
}

fn click(who: &str, item: usize, id: &str) -> v1::UserEvent {
    event(who, item, v1::EventKind::Click, id)
}

/// A server that writes its log to `log`; starting one is blocking work.
async fn serve(bundle: &Path, log: &Path) -> Process {
    let (bundle, log) = (bundle.to_owned(), log.to_owned());
    let settings = move |server: &mut Command| {
        server.env("REG4REC__EVENTS__PATH", log);
    };
    tokio::task::spawn_blocking(move || Process::start_with(&bundle, settings)).await.unwrap()
}

async fn channel(process: &Process) -> Channel {
    Channel::from_shared(process.public.clone()).unwrap().connect().await.unwrap()
}

async fn record(channel: &Channel, events: Vec<v1::UserEvent>) -> Result<(u32, u32), tonic::Status> {
    let told = EventServiceClient::new(channel.clone()).record(v1::RecordRequest { events }).await?.into_inner();
    Ok((told.recorded, told.duplicates))
}

async fn ids(channel: &Channel, request: v1::RecommendRequest) -> Vec<String> {
    let answer = Client::new(channel.clone()).recommend(request).await.unwrap().into_inner();
    answer.items.into_iter().map(|item| item.item_id).collect()
}

fn tool(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_reg4rec")).args(arguments).output().unwrap();
    let text = std::str::from_utf8(&output.stdout).unwrap();
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_request_knows_what_was_recorded_also_after_a_restart_and_not_what_was_forgotten() {
    let home = tempfile::tempdir().unwrap();
    let (dir, log) = (home.path().join("tiny"), home.path().join("log"));
    bundle::write(&dir, 0.0);
    let process = serve(&dir, &log).await;
    let to = channel(&process).await;

    let cold = Client::new(to.clone()).recommend(user("ann")).await.unwrap().into_inner();
    assert!(cold.cold_start);
    assert_eq!(
        record(&to, vec![click("ann", 3, "e1"), click("ann", 7, "e2"), click("bob", 9, "e3")]).await.unwrap(),
        (3, 0)
    );
    assert_eq!(record(&to, vec![click("ann", 7, "e2")]).await.unwrap(), (0, 1));
    let inline = |items: &[usize]| {
        let history = items.iter().map(|&item| click("", item, "").event.unwrap()).collect();
        v1::RecommendRequest { history, ..Default::default() }
    };
    let expected = ids(&to, inline(&[3, 7])).await;
    assert_eq!(ids(&to, user("ann")).await, expected);

    let hidden = expected[0].trim_start_matches("item-").parse().unwrap();
    record(&to, vec![event("ann", hidden, v1::EventKind::Hide, "e4")]).await.unwrap();
    assert!(!ids(&to, user("ann")).await.contains(&expected[0]), "hidden, and answered all the same");
    let after_hiding = ids(&to, user("ann")).await;

    let told = Command::new(env!("CARGO_BIN_EXE_reg4rec"))
        .args([
            "record",
            "--server",
            &process.public,
            "--user",
            "cid",
            "--item",
            "item-1,item-2",
            "--kind",
            "purchase",
            "--json",
        ])
        .output()
        .unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&told.stdout).unwrap(), json!({"recorded": 2, "duplicates": 0}));
    let (_, metrics) = page_at(process.admin(), "/metrics").await;
    for line in [
        r#"reg4rec_events_total{kind="click"} 3"#,
        r#"reg4rec_events_total{kind="cart"} 0"#,
        "reg4rec_events_duplicates_total 1",
        r#"reg4rec_requests_total{code="OK",method="Record",variant="none"} 4"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }

    // Not told to stop: killed.
    drop(process);
    let process = serve(&dir, &log).await;
    let to = channel(&process).await;
    assert_eq!(ids(&to, user("ann")).await, after_hiding);
    assert_eq!(record(&to, vec![click("ann", 7, "e2")]).await.unwrap(), (0, 1), "known after a restart");
    drop(process);

    let path = log.to_str().unwrap();
    let sums = tool(&["events", "--log", path, "--json"]);
    assert_eq!((&sums["events"], &sums["users"]), (&json!(6), &json!(3)));
    assert_eq!(sums["kinds"], json!({"click": 3, "hide": 1, "purchase": 2}));
    let process = serve(&dir, &log).await;
    let gone = tool(&["forget", "--admin", process.admin(), "--user", "ann", "--json"]);
    assert_eq!(gone, json!({"history_events": 3, "logged_events": 3, "logged_exposures": 0, "files": 1}));
    let to = channel(&process).await;
    assert!(Client::new(to.clone()).recommend(user("ann")).await.unwrap().into_inner().cold_start);
    drop(process);
    assert_eq!(tool(&["forget", "--log", path, "--user", "cid", "--json"])["logged_events"], 2);
    for entry in std::fs::read_dir(&log).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(3).any(|part| part == b"ann" || part == b"cid"));
    }
    let process = serve(&dir, &log).await;
    let to = channel(&process).await;
    assert!(Client::new(to.clone()).recommend(user("ann")).await.unwrap().into_inner().cold_start);
    assert!(!Client::new(to).recommend(user("bob")).await.unwrap().into_inner().cold_start);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_data_set_brings_at_every_start_does_not_bring_back_who_was_forgotten() {
    let home = tempfile::tempdir().unwrap();
    let (dir, log, data) = (home.path().join("tiny"), home.path().join("log"), home.path().join("data"));
    bundle::write(&dir, 0.0);
    let item = |number: u32| DatasetItem {
        item: Item {
            id: format!("item-{number}"),
            title: None,
            brand: None,
            categories: Vec::new(),
            price: None,
            eligible: true,
        },
        text: None,
        embedding: None,
    };
    let sequence = |user: u32| {
        let event = |item: u32| Interaction { user, item, time: i64::from(item), kind: EventKind::Click, value: None };
        (0..3).map(event).collect::<Vec<_>>()
    };
    let users = vec!["ann".to_owned(), "bob".to_owned()];
    std::fs::create_dir(&data).unwrap();
    let set = Dataset::new(users, (0..3).map(item).collect(), vec![sequence(0), sequence(1)]).unwrap();
    set.write(&data).unwrap();
    let serve = || {
        let (dir, log, data) = (dir.clone(), log.clone(), data.clone());
        let settings = move |server: &mut Command| {
            server.env("REG4REC__EVENTS__PATH", log).env("REG4REC__BUNDLE__HISTORIES", data);
        };
        async move { tokio::task::spawn_blocking(move || Process::start_with(&dir, settings)).await.unwrap() }
    };
    let cold = async |process: &Process, who: &str| {
        let to = channel(process).await;
        Client::new(to).recommend(user(who)).await.unwrap().into_inner().cold_start
    };
    let process = serve().await;
    assert!(!cold(&process, "ann").await && !cold(&process, "bob").await);
    assert_eq!(tool(&["forget", "--admin", process.admin(), "--user", "ann", "--json"])["history_events"], 3);
    assert!(cold(&process, "ann").await);
    drop(process);
    let process = serve().await;
    assert!(cold(&process, "ann").await && !cold(&process, "bob").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_request_is_refused_whole_and_ends_no_stream() {
    let home = tempfile::tempdir().unwrap();
    let (dir, log) = (home.path().join("tiny"), home.path().join("log"));
    bundle::write(&dir, 0.0);
    let process = serve(&dir, &log).await;
    let to = channel(&process).await;

    let mut wrong = click("", 1, "a");
    wrong.event.as_mut().unwrap().value = Some(f32::INFINITY);
    let refused = record(&to, vec![click("u", 1, "b"), wrong.clone()]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let named: Vec<String> =
        refused.get_details_bad_request().unwrap().field_violations.into_iter().map(|wrong| wrong.field).collect();
    assert_eq!(named, ["events[1].user_id", "events[1].event.value"]);

    let (requests, sent) = mpsc::channel(4);
    let mut results =
        EventServiceClient::new(to.clone()).record_stream(ReceiverStream::new(sent)).await.unwrap().into_inner();
    for events in [vec![click("u", 1, "b")], vec![wrong], vec![click("u", 1, "b"), click("u", 2, "c")]] {
        requests.send(v1::RecordRequest { events }).await.unwrap();
    }
    drop(requests);
    let mut outcomes = Vec::new();
    while let Some(result) = results.message().await.unwrap() {
        outcomes.push(match result.outcome.unwrap() {
            Outcome::Response(told) => (told.recorded, told.duplicates),
            Outcome::Status(status) => (status.code, status.violations.len() as u32),
        });
    }
    // The refused request left nothing behind: its first event was new to the stream.
    assert_eq!(outcomes, [(1, 0), (Code::InvalidArgument as u32, 2), (1, 1)]);

    // Many at once stand in the log in the order of their stream.
    let (requests, sent) = mpsc::channel(64);
    let mut results =
        EventServiceClient::new(to.clone()).record_stream(ReceiverStream::new(sent)).await.unwrap().into_inner();
    let asked = tokio::spawn(async move {
        for at in 0..300 {
            requests.send(v1::RecordRequest { events: vec![click("v", at, "")] }).await.unwrap();
        }
    });
    for _ in 0..300 {
        assert!(matches!(results.message().await.unwrap().unwrap().outcome, Some(Outcome::Response(_))));
    }
    asked.await.unwrap();
    drop(process);
    let mut order = Vec::new();
    reg4rec::events::read(&log, &mut |logged| order.push(logged.event.event.item_id)).unwrap();
    assert_eq!(order.split_off(2), (0..300).map(|at| format!("item-{at}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_log_says_that_it_records_nothing() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("tiny");
    bundle::write(&dir, 0.0);
    let process = tokio::task::spawn_blocking(move || Process::start(&dir)).await.unwrap();
    let refused = record(&channel(&process).await, vec![click("u", 1, "")]).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("events.path"), "{refused:?}");
}

/// Callers send events again until they are acknowledged, while the server is killed and started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_no_acknowledged_event_and_double_none() {
    const KILLS: usize = 6;
    let home = tempfile::tempdir().unwrap();
    let (dir, log) = (home.path().join("tiny"), home.path().join("log"));
    bundle::write(&dir, 0.0);
    let mut acknowledged = Vec::new();
    for round in 0..KILLS {
        let process = serve(&dir, &log).await;
        let to = channel(&process).await;
        let over = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = (0..8)
            .map(|sender| {
                let (to, over) = (to.clone(), Arc::clone(&over));
                tokio::spawn(async move {
                    let mut done = Vec::new();
                    for at in 0.. {
                        let id = format!("{round}-{sender}-{at}");
                        // Every event is sent twice: once as if no answer had come.
                        for _ in 0..2 {
                            match record(&to, vec![click(&format!("user-{sender}"), at % 300, &id)]).await {
                                Ok(_) => done.push(id.clone()),
                                Err(_) => return done,
                            }
                        }
                        if over.load(Ordering::Relaxed) {
                            return done;
                        }
                    }
                    done
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(50 + 37 * round as u64)).await;
        drop(process);
        over.store(true, Ordering::Relaxed);
        for sender in senders {
            acknowledged.extend(sender.await.unwrap());
        }
    }
    let acknowledged: HashSet<String> = acknowledged.into_iter().collect();
    assert!(acknowledged.len() > KILLS, "only {} events came through", acknowledged.len());
    let mut found = Vec::new();
    reg4rec::events::read(&log, &mut |logged| found.push(logged.event.event_id)).unwrap();
    let distinct: HashSet<String> = found.iter().cloned().collect();
    assert_eq!(distinct.len(), found.len(), "an event is in the log twice");
    let lost: Vec<_> = acknowledged.difference(&distinct).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}
