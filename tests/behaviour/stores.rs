//! Histories that outlive the server: in a file and in Redis, which is killed, stopped and emptied during traffic.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tonic::transport::Channel;

use reg4rec::domain::{Event, EventKind, Secret, UserEvent};
use reg4rec::history::{
    HistoryConfig, HistoryStore, Mark, Noted, Place, RedisConfig, RedisStore, StoreError, StoreKind,
};
use reg4rec::wire::client::EventServiceClient;
use reg4rec::wire::v1;

use crate::bundle;
use crate::fake::{Client, page_at, user};
use crate::outside::{Outside, found_below};
use crate::process::Process;
use crate::tls::Authority;

async fn serve(bundle: &Path, log: &Path, more: Vec<(&'static str, String)>) -> Process {
    let (bundle, log) = (bundle.to_owned(), log.to_owned());
    let settings = move |server: &mut Command| {
        server.env("REG4REC__EVENTS__PATH", log).env("REG4REC__HISTORY__MAX_EVENTS", "10000").envs(more);
    };
    tokio::task::spawn_blocking(move || Process::start_with(&bundle, settings)).await.unwrap()
}

async fn channel(process: &Process) -> Channel {
    Channel::from_shared(process.public.clone()).unwrap().connect().await.unwrap()
}

fn click(who: &str, item: u64, number: u64) -> v1::UserEvent {
    let event = v1::Event {
        item_id: format!("item-{}", item % 300).into(),
        kind: v1::EventKind::Click as i32,
        event_id: format!("{who}-{number}").into(),
        value: Some(number as f32),
        ..Default::default()
    };
    v1::UserEvent { user_id: who.into(), event: Some(event) }
}

async fn record(channel: &Channel, events: Vec<v1::UserEvent>) -> Result<(u32, u32), tonic::Status> {
    let told = EventServiceClient::new(channel.clone()).record(v1::RecordRequest { events }).await?.into_inner();
    Ok((told.recorded, told.duplicates))
}

async fn answer(channel: &Channel, who: &str) -> v1::RecommendResponse {
    Client::new(channel.clone()).recommend(user(who)).await.unwrap().into_inner()
}

fn forget(process: &Process, who: &str) -> Value {
    let tool = env!("CARGO_BIN_EXE_reg4rec");
    let output = Command::new(tool).args(["forget", "--admin", process.admin(), "--user", who, "--json"]).output();
    serde_json::from_slice(&output.unwrap().stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_histories_survives_kills_and_forgets_without_a_trace() {
    let home = tempfile::tempdir().unwrap();
    let (dir, log, file) = (home.path().join("tiny"), home.path().join("state/log"), home.path().join("state/h.redb"));
    bundle::write(&dir, 0.0);
    let settings = |file: &PathBuf| {
        vec![("REG4REC__HISTORY__STORE", "embedded".into()), ("REG4REC__HISTORY__PATH", file.display().to_string())]
    };
    let process = serve(&dir, &log, settings(&file)).await;
    let to = channel(&process).await;
    record(&to, vec![click("a-certain-user", 3, 1), click("a-certain-user", 7, 2), click("bob", 9, 1)]).await.unwrap();
    let known = answer(&to, "a-certain-user").await;
    assert!(!known.cold_start && !known.history_missed);
    let ids =
        |answer: &v1::RecommendResponse| answer.items.iter().map(|item| item.item_id.clone()).collect::<Vec<String>>();
    // Killed, not told to stop.
    drop(process);
    let process = serve(&dir, &log, settings(&file)).await;
    let to = channel(&process).await;
    assert_eq!(ids(&answer(&to, "a-certain-user").await), ids(&known));
    // A file that was lost is made anew from the log.
    drop(process);
    std::fs::remove_file(&file).unwrap();
    let process = serve(&dir, &log, settings(&file)).await;
    let to = channel(&process).await;
    assert_eq!(ids(&answer(&to, "a-certain-user").await), ids(&known));

    assert!(found_below(&home.path().join("state"), "a-certain-user"));
    let gone = forget(&process, "a-certain-user");
    assert_eq!(gone, json!({"history_events": 2, "logged_events": 2, "logged_exposures": 0, "files": 1}));
    assert!(!found_below(&home.path().join("state"), "a-certain-user"));
    assert!(answer(&to, "a-certain-user").await.cold_start && !answer(&to, "bob").await.cold_start);
}

fn in_redis(redis: &Outside) -> Vec<(&'static str, String)> {
    vec![
        ("REG4REC__HISTORY__STORE", "redis".into()),
        ("REG4REC__HISTORY__REDIS__URL", format!("redis://127.0.0.1:{}", redis.port)),
        ("REG4REC__HISTORY__TIMEOUT_MS", "2000".into()),
        ("REG4REC__HISTORY__RETRY_MS", "100".into()),
    ]
}

fn store(redis: &Outside, cluster: bool) -> RedisStore {
    let url = Secret::new(format!("redis://127.0.0.1:{}", redis.port));
    let config = RedisConfig { url, cluster, ..RedisConfig::default() };
    let config =
        HistoryConfig { store: StoreKind::Redis, redis: config, max_events: 10_000, ..HistoryConfig::default() };
    RedisStore::new(&config).unwrap()
}

/// What somebody is doing to a server all the time.
struct Traffic {
    over: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    missed: Arc<AtomicU64>,
    askers: Vec<tokio::task::JoinHandle<()>>,
    recorders: Vec<tokio::task::JoinHandle<(String, u64)>>,
}

impl Traffic {
    /// Four users' events, one after the other, each sent until it is acknowledged; and four that ask.
    fn start(to: &Channel) -> Self {
        let over = Arc::<AtomicBool>::default();
        let (asked, missed) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let askers = (0..4).map(|at| {
            let (to, over, asked, missed) = (to.clone(), over.clone(), asked.clone(), missed.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    // Every request is answered, whatever befalls the store.
                    let answer = answer(&to, &format!("user-{at}")).await;
                    asked.fetch_add(1, Ordering::SeqCst);
                    if answer.history_missed {
                        assert!(answer.degraded && answer.cold_start && !answer.items.is_empty());
                        missed.fetch_add(1, Ordering::SeqCst);
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        });
        let recorders = (0..4).map(|at| {
            let (to, over) = (to.clone(), over.clone());
            tokio::spawn(async move {
                let (who, mut number) = (format!("user-{at}"), 0);
                while !over.load(Ordering::SeqCst) {
                    // Sent once more now and then, as if no answer had come.
                    for _ in 0..1 + u64::from(number % 5 == 0) {
                        while record(&to, vec![click(&who, number, number)]).await.is_err() {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                    number += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                (who, number)
            })
        });
        let (askers, recorders) = (askers.collect(), recorders.collect());
        Self { over, asked, missed, askers, recorders }
    }

    /// Waits until so many requests more are answered, or answered without a history.
    async fn until(&self, what: &AtomicU64, more: u64) {
        let (wanted, began) = (what.load(Ordering::SeqCst) + more, Instant::now());
        while what.load(Ordering::SeqCst) < wanted {
            assert!(began.elapsed() < Duration::from_secs(60), "the traffic stands still");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it. Answers how many events of each user were acknowledged.
    async fn end(self) -> Vec<(String, u64)> {
        self.over.store(true, Ordering::SeqCst);
        for asker in self.askers {
            asker.await.unwrap();
        }
        let mut acknowledged = Vec::new();
        for recorder in self.recorders {
            acknowledged.push(recorder.await.unwrap());
        }
        acknowledged
    }
}

/// Holds a store against what was acknowledged: every event, once, in order.
async fn holds(store: &dyn HistoryStore, acknowledged: &[(String, u64)]) {
    let began = Instant::now();
    for (who, count) in acknowledged {
        let expected: Vec<u64> = (0..*count).collect();
        loop {
            let events = store.recent(who).await.unwrap();
            let mut numbers: Vec<u64> = events.iter().map(|event| event.value.unwrap() as u64).collect();
            if numbers == expected {
                break;
            }
            if began.elapsed() > Duration::from_secs(30) {
                numbers.sort_unstable();
                panic!("{who}: {} events of {count} in the store, in order {}", numbers.len(), numbers == expected);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_redis_that_is_killed_stopped_and_emptied_costs_no_answer_and_no_event() {
    let home = tempfile::tempdir().unwrap();
    let (dir, log) = (home.path().join("tiny"), home.path().join("log"));
    bundle::write(&dir, 0.0);
    let Some(mut redis) = Outside::redis(&home.path().join("redis"), &[]) else { return };
    let process = serve(&dir, &log, in_redis(&redis)).await;
    let to = channel(&process).await;
    let traffic = Traffic::start(&to);
    traffic.until(&traffic.asked, 50).await;
    assert_eq!(traffic.missed.load(Ordering::SeqCst), 0);
    // Killed, and back.
    redis.kill();
    traffic.until(&traffic.missed, 50).await;
    let (status, _) = page_at(process.admin(), "/readyz").await;
    assert_eq!(status, 200, "a server without histories still serves");
    redis.begin();
    traffic.until(&traffic.asked, 100).await;
    // Hanging: it takes connections, and never answers.
    redis.hang(true);
    traffic.until(&traffic.missed, 20).await;
    redis.hang(false);
    traffic.until(&traffic.asked, 100).await;
    // Killed, and back without what it knew.
    redis.kill();
    traffic.until(&traffic.missed, 20).await;
    std::fs::remove_dir_all(&redis.home).unwrap();
    std::fs::create_dir_all(&redis.home).unwrap();
    redis.begin();
    traffic.until(&traffic.asked, 100).await;
    let acknowledged = traffic.end().await;
    assert!(acknowledged.iter().all(|(_, count)| *count > 20), "{acknowledged:?}");
    holds(&store(&redis, false), &acknowledged).await;
    // Emptied behind a connection that stays, and nothing happens after.
    redis_command(&redis, &["FLUSHALL"]);
    holds(&store(&redis, false), &acknowledged).await;

    let (_, metrics) = page_at(process.admin(), "/metrics").await;
    for line in ["reg4rec_history_lag_events 0", r#"reg4rec_history_writes_total{result="ok"}"#] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    // A second server has the same histories, and no log.
    let other = serve(&dir, Path::new(""), in_redis(&redis)).await;
    assert!(!answer(&channel(&other).await, "user-1").await.cold_start);
    let gone = forget(&process, "user-1");
    assert_eq!(gone["history_events"], json!(acknowledged[1].1));
    assert!(answer(&channel(&other).await, "user-1").await.cold_start);
    assert!(!found_below(home.path(), "user-1") && found_below(home.path(), "user-2"));
    redis.kill();
    let refused = forget(&process, "user-2");
    assert_eq!(refused["error"]["code"], "Unavailable", "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_histories_as_one_redis_does() {
    let home = tempfile::tempdir().unwrap();
    let Some(redis) = Outside::redis(home.path(), &["--cluster-enabled", "yes"]) else { return };
    let client = redis_command(&redis, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    assert!(client.contains("OK"), "{client}");
    let began = Instant::now();
    while !redis_command(&redis, &["CLUSTER", "INFO"]).contains("cluster_state:ok") {
        assert!(began.elapsed() < Duration::from_secs(20), "the cluster does not come up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let store = store(&redis, true);
    let mut expected: HashMap<String, Vec<String>> = HashMap::new();
    let noted: Vec<Noted> = (0..200u64)
        .map(|at| {
            let (who, item_id) = (format!("user-{}", at % 40), format!("item-{at}"));
            expected.entry(who.clone()).or_default().push(item_id.clone());
            // Hides stand under a key of their own, and come in their place all the same.
            let kind = if at % 3 == 0 { EventKind::Hide } else { EventKind::View };
            let event = Event { item_id, kind, time: 5, value: None };
            let logged = UserEvent {
                user_id: who.clone(),
                event: event.clone(),
                event_id: String::new(),
                request_id: String::new(),
            };
            Noted { user: who, mark: Mark::of(&logged, "log", at), order: at, event }
        })
        .collect();
    for _ in 0..2 {
        store.append(&noted, Some(Place { log: "log", after: 0, last: 199 })).await.unwrap();
    }
    for (who, items) in &expected {
        let events = store.recent(who).await.unwrap();
        assert_eq!(&events.into_iter().map(|event| event.item_id).collect::<Vec<_>>(), items, "{who}");
    }
    assert_eq!(store.place("log").await.unwrap(), 199);
    assert_eq!((store.remove("user-3").await.unwrap(), store.remove("user-3").await.unwrap()), (5, 0));
    assert!(store.recent("user-3").await.unwrap().is_empty());

    // Each sort has its bound: of user-0 the items 0 and 120 are hidden, and 40, 80 and 160 viewed.
    let url = Secret::new(format!("redis://127.0.0.1:{}", redis.port));
    let small = RedisConfig { url, cluster: true, prefix: "small".into(), ..RedisConfig::default() };
    let small = HistoryConfig {
        store: StoreKind::Redis,
        redis: small,
        max_events: 1,
        max_hides: 2,
        ..HistoryConfig::default()
    };
    let small = RedisStore::new(&small).unwrap();
    small.append(&noted, Some(Place { log: "log", after: 0, last: 199 })).await.unwrap();
    let kept = small.recent("user-0").await.unwrap().into_iter().map(|event| event.item_id);
    assert_eq!(kept.collect::<Vec<_>>(), ["item-0", "item-120", "item-160"]);
}

#[tokio::test]
async fn histories_come_over_tls_from_a_redis_that_is_trusted_to_a_client_that_it_knows() {
    let home = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new(), Authority::new());
    let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
    let (server, client) = (ours.sign("127.0.0.1"), ours.sign("reg4rec"));
    write("ca.pem", &ours.pem());
    write("other.pem", &other.pem());
    write("server.pem", &server.certificate);
    write("server.key", &server.key);
    write("client.pem", &client.certificate);
    write("client.key", &client.key);
    let Some(redis) = Outside::redis_over_tls(home.path()) else { return };
    let file = |name: &str| if name.is_empty() { PathBuf::new() } else { home.path().join(name) };
    let config = |scheme: &str, ca: &str, certificate: &str, key: &str| {
        let url = Secret::new(format!("{scheme}://127.0.0.1:{}", redis.port));
        let (ca, certificate, key) = (file(ca), file(certificate), file(key));
        let redis = RedisConfig { url, ca, certificate, key, ..RedisConfig::default() };
        HistoryConfig { store: StoreKind::Redis, redis, ..HistoryConfig::default() }
    };
    let sound = config("rediss", "ca.pem", "client.pem", "client.key");
    assert_eq!(sound.validate(), Ok(()));
    let store = RedisStore::new(&sound).unwrap();
    let event = Event { item_id: "item-1".into(), kind: EventKind::View, time: 5, value: None };
    let logged =
        UserEvent { user_id: "u".into(), event: event.clone(), event_id: "e".into(), request_id: String::new() };
    let noted = Noted { user: "u".into(), mark: Mark::of(&logged, "log", 1), order: 1, event: event.clone() };
    store.append(&[noted], Some(Place { log: "log", after: 0, last: 1 })).await.unwrap();
    assert_eq!((store.recent("u").await.unwrap(), store.place("log").await.unwrap()), (vec![event], 1));

    // Another authority, no certificate of its own, and no TLS.
    for (scheme, ca, certificate, key) in
        [("rediss", "other.pem", "client.pem", "client.key"), ("rediss", "ca.pem", "", ""), ("redis", "", "", "")]
    {
        let store = RedisStore::new(&config(scheme, ca, certificate, key)).unwrap();
        let refused = store.recent("u").await;
        assert!(matches!(refused, Err(StoreError::Away(_))), "{scheme} {ca} {certificate}: {refused:?}");
    }
    let wrong = |config: HistoryConfig| config.validate().unwrap_err().remove(0).field;
    assert_eq!(wrong(config("rediss", "ca.pem", "client.pem", "")), "redis.key");
    assert_eq!(wrong(config("redis", "ca.pem", "", "")), "redis.ca");
    let nowhere = RedisStore::new(&config("rediss", "no-such.pem", "", "")).unwrap_err();
    assert!(nowhere.to_string().contains("redis.ca") && nowhere.to_string().contains("no-such.pem"), "{nowhere}");
}

/// Says something to Redis as a person would, and answers what came back within a moment.
fn redis_command(redis: &Outside, words: &[&str]) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    writeln!(stream, "{}\r", words.join(" ")).unwrap();
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}
