//! Events through NATS JetStream: acknowledged when the stream holds them, in the log of every server, once, whatever
//! befalls NATS and the servers.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::Channel;

use reg4rec::wire::client::EventServiceClient;
use reg4rec::wire::v1;

use crate::bundle;
use crate::fake::{Client, user};
use crate::outside::{Outside, found_below};
use crate::process::Process;

fn click(who: &str, item: u64, id: &str) -> v1::UserEvent {
    let event = v1::Event {
        item_id: format!("item-{}", item % 300).into(),
        kind: v1::EventKind::Click as i32,
        event_id: id.into(),
        ..Default::default()
    };
    v1::UserEvent { user_id: who.into(), event: Some(event) }
}

async fn serve(bundle: &Path, log: &Path, nats: &Outside) -> Process {
    let (bundle, log, url) = (bundle.to_owned(), log.to_owned(), format!("nats://127.0.0.1:{}", nats.port));
    let settings = move |server: &mut Command| {
        server.env("REG4REC__EVENTS__PATH", log).env("REG4REC__EVENTS__NATS__URL", url);
        server.env("REG4REC__EVENTS__NATS__TIMEOUT_MS", "3000");
    };
    tokio::task::spawn_blocking(move || Process::start_with(&bundle, settings)).await.unwrap()
}

async fn serve_with(bundle: &Path, log: &Path, nats: &Outside, file: &Path) -> Process {
    let (bundle, log, url) = (bundle.to_owned(), log.to_owned(), format!("nats://127.0.0.1:{}", nats.port));
    let file = file.to_owned();
    let settings = move |server: &mut Command| {
        server.arg("--config").arg(file);
        server.env("REG4REC__EVENTS__PATH", log).env("REG4REC__EVENTS__NATS__URL", url);
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

/// The ids of the events in a log, each with how often it is there.
fn logged(log: &Path) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    reg4rec::events::read(log, &mut |logged| *found.entry(logged.event.event_id).or_default() += 1).unwrap();
    found
}

/// Waits until a log holds so many events.
async fn followed(log: &Path, count: usize) -> BTreeMap<String, usize> {
    let began = Instant::now();
    loop {
        let found = logged(log);
        if found.len() >= count || began.elapsed() > Duration::from_secs(40) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until no file of a log holds the text.
async fn until_gone(log: &Path, text: &str) {
    let began = Instant::now();
    while found_below(log, text) {
        assert!(began.elapsed() < Duration::from_secs(20), "{text} is still in {}", log.display());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn tool(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_reg4rec")).args(arguments).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_has_what_any_was_told_and_who_is_forgotten_is_gone_from_the_stream() {
    let home = tempfile::tempdir().unwrap();
    let (dir, one, two) = (home.path().join("tiny"), home.path().join("one"), home.path().join("two"));
    bundle::write(&dir, 0.0);
    let Some(nats) = Outside::nats(&home.path().join("nats")) else { return };
    let (first, second) = (serve(&dir, &one, &nats).await, serve(&dir, &two, &nats).await);
    let (to_first, to_second) = (channel(&first).await, channel(&second).await);
    let events = vec![click("a-certain-user", 3, "e1"), click("a-certain-user", 7, ""), click("bob", 9, "e3")];
    assert_eq!(record(&to_first, events).await.unwrap(), (3, 0));
    // The next request sees it here; sent again to another server, it is known.
    let known = Client::new(to_first.clone()).recommend(user("a-certain-user")).await.unwrap().into_inner();
    assert!(!known.cold_start);
    assert_eq!(record(&to_second, vec![click("bob", 9, "e3"), click("bob", 1, "e4")]).await.unwrap(), (1, 1));
    let (in_one, in_two) = (followed(&one, 4).await, followed(&two, 4).await);
    assert_eq!((in_one.len(), &in_one), (4, &in_two));
    assert!(in_one.values().all(|count| *count == 1), "{in_one:?}");
    // The file holds an event a moment before it is synced, and then in the history.
    let began = Instant::now();
    let elsewhere = loop {
        let answer = Client::new(to_second.clone()).recommend(user("a-certain-user")).await.unwrap().into_inner();
        if !answer.cold_start {
            break answer;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "the event does not come into the history");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let ids = |answer: &v1::RecommendResponse| answer.items.iter().map(|item| item.item_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&elsewhere), ids(&known));

    // A log of its own, as for a trainer elsewhere; what it has it is not given again.
    let (settings, three) = (home.path().join("settings.toml"), home.path().join("three"));
    std::fs::write(
        &settings,
        format!("[events]\npath = \"x\"\n[events.nats]\nurl = \"nats://127.0.0.1:{}\"\n", nats.port),
    )
    .unwrap();
    let follow =
        ["follow", "--config", settings.to_str().unwrap(), "--log", three.to_str().unwrap(), "--once", "--json"];
    assert_eq!(tool(&follow), json!({"messages": 4}));
    assert_eq!(tool(&follow), json!({"messages": 0}));
    assert_eq!(logged(&three), in_one);

    assert!(found_below(&nats.home, "a-certain-user"));
    let gone = tool(&["forget", "--admin", first.admin(), "--user", "a-certain-user", "--json"]);
    assert_eq!((&gone["logged_events"], &gone["history_events"]), (&json!(2), &json!(2)));
    assert!(!found_below(&one, "a-certain-user"));
    assert!(!found_below(&nats.home, "a-certain-user") && found_below(&nats.home, "bob"));
    // The others hear of it: the other server, which forgets the history too, and whoever follows later.
    until_gone(&two, "a-certain-user").await;
    let began = Instant::now();
    while !Client::new(to_second.clone()).recommend(user("a-certain-user")).await.unwrap().into_inner().cold_start {
        assert!(began.elapsed() < Duration::from_secs(20), "the history stays at the other server");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(tool(&follow), json!({"messages": 1}));
    assert!(!found_below(&three, "a-certain-user") && found_below(&three, "bob"));
    drop(first);
    let first = serve(&dir, &one, &nats).await;
    let to_first = channel(&first).await;
    assert!(Client::new(to_first.clone()).recommend(user("a-certain-user")).await.unwrap().into_inner().cold_start);
    assert!(!Client::new(to_first).recommend(user("bob")).await.unwrap().into_inner().cold_start);
    // Who comes back is heard of as anybody.
    assert_eq!(record(&to_second, vec![click("a-certain-user", 5, "e9")]).await.unwrap(), (1, 0));
    assert!(followed(&one, 3).await.contains_key("e9"));
}

/// The report of the only experiment, once it has joined so many events; of the log with this report.
async fn joined(log: &Path, events: usize) -> Value {
    let began = Instant::now();
    loop {
        let report = tool(&["experiment", "report", "--log", log.to_str().unwrap(), "--json"]);
        if report["joined"] == json!(events) || began.elapsed() > Duration::from_secs(40) {
            return report;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_server_showed_and_another_heard_of_is_joined_in_the_log_of_each() {
    const VISITS: usize = 24;
    let home = tempfile::tempdir().unwrap();
    let (dir, one, two) = (home.path().join("tiny"), home.path().join("one"), home.path().join("two"));
    bundle::write(&dir, 0.0);
    let Some(nats) = Outside::nats(&home.path().join("nats")) else { return };
    let settings = home.path().join("settings.toml");
    let arms = r#"[{ name = "control" }, { name = "exact", decode = { engine = "exact" } }]"#;
    std::fs::write(&settings, format!("[[experiments.experiment]]\nkey = \"search\"\narms = {arms}\n")).unwrap();
    let (first, second) =
        (serve_with(&dir, &one, &nats, &settings).await, serve_with(&dir, &two, &nats, &settings).await);
    let to = [channel(&first).await, channel(&second).await];
    for at in 0..VISITS {
        let who = format!("user-{at}-");
        let seen = v1::Event { item_id: "item-3".into(), ..Default::default() };
        let request = v1::RecommendRequest { history: vec![seen], ..user(&who) };
        let answer = Client::new(to[at % 2].clone()).recommend(request).await.unwrap().into_inner();
        // The balancer takes the click to the other server.
        let mut click = click(&who, 9, &format!("click-{at}"));
        click.event.as_mut().unwrap().request_id = answer.request_id.into();
        assert_eq!(record(&to[(at + 1) % 2], vec![click]).await.unwrap(), (1, 0));
    }
    let (in_one, in_two) = (joined(&one, VISITS).await, joined(&two, VISITS).await);
    for report in [&in_one, &in_two] {
        let counts = ["exposures", "repeated_exposures", "joined"].map(|name| report[name].as_u64().unwrap());
        assert_eq!(counts, [VISITS as u64, 0, VISITS as u64], "{report}");
    }
    assert_eq!(in_one["experiments"], in_two["experiments"]);

    // Who leaves takes the exposures of both along.
    let gone = tool(&["forget", "--admin", first.admin(), "--user", "user-1-", "--json"]);
    assert_eq!((&gone["logged_events"], &gone["logged_exposures"]), (&json!(1), &json!(1)));
    assert!(!found_below(&one, "user-1-"));
    until_gone(&two, "user-1-").await;
    assert!(!found_below(&nats.home, "user-1-") && found_below(&nats.home, "user-2-"));
}

/// Senders that send each event until it is acknowledged, to two servers by turns; requests that are answered all the
/// while; NATS killed and hanging, and a server killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_nats_that_stops_and_starts_loses_no_acknowledged_event_and_doubles_none() {
    let home = tempfile::tempdir().unwrap();
    let (dir, one, two) = (home.path().join("tiny"), home.path().join("one"), home.path().join("two"));
    bundle::write(&dir, 0.0);
    let Some(mut nats) = Outside::nats(&home.path().join("nats")) else { return };
    let (first, mut second) = (serve(&dir, &one, &nats).await, serve(&dir, &two, &nats).await);
    let over = Arc::<AtomicBool>::default();
    let (done, refused, asked) =
        (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let to_first = channel(&first).await;
    let asker = tokio::spawn({
        let (to, over, asked) = (to_first.clone(), over.clone(), asked.clone());
        async move {
            while !over.load(Ordering::SeqCst) {
                Client::new(to.clone()).recommend(user("user-1")).await.unwrap();
                asked.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let (to, over, done, refused) = (to_first.clone(), over.clone(), done.clone(), refused.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for at in 0u64.. {
                    let id = format!("{sender}-{at}");
                    loop {
                        match record(&to, vec![click(&format!("user-{sender}"), at, &id)]).await {
                            Ok(_) => break,
                            Err(status) => {
                                assert!(
                                    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded),
                                    "{status:?}"
                                );
                                refused.fetch_add(1, Ordering::SeqCst);
                            }
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    acknowledged.push(id);
                    done.fetch_add(1, Ordering::SeqCst);
                    if over.load(Ordering::SeqCst) {
                        return acknowledged;
                    }
                }
                acknowledged
            })
        })
        .collect();
    let until = |what: Arc<AtomicU64>, more: u64| async move {
        let (wanted, began) = (what.load(Ordering::SeqCst) + more, Instant::now());
        while what.load(Ordering::SeqCst) < wanted {
            assert!(began.elapsed() < Duration::from_secs(60), "the traffic stands still");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    until(done.clone(), 60).await;
    nats.kill();
    until(refused.clone(), 4).await;
    until(asked.clone(), 20).await;
    // A server that starts while NATS is away waits for it, and serves.
    drop(second);
    second = serve(&dir, &two, &nats).await;
    nats.begin();
    until(done.clone(), 60).await;
    nats.hang(true);
    until(refused.clone(), 2).await;
    until(asked.clone(), 20).await;
    nats.hang(false);
    until(done.clone(), 60).await;
    over.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for sender in senders {
        acknowledged.extend(sender.await.unwrap());
    }
    asker.await.unwrap();
    for log in [&one, &two] {
        let found = followed(log, acknowledged.len()).await;
        let lost: Vec<_> = acknowledged.iter().filter(|id| !found.contains_key(*id)).collect();
        assert!(lost.is_empty(), "{}: {} of {} are lost: {lost:?}", log.display(), lost.len(), acknowledged.len());
        assert!(found.values().all(|count| *count == 1), "an event is in the log twice");
    }
    drop((first, second));
}
