//! The event log: events a second that are acknowledged durable, and the time to read a long log into histories: in
//! memory, in a file, and in Redis where the environment's REG4REC_REDIS names one, as in redis://127.0.0.1:6379. Its keys
//! begin with `reg4rec-bench` and a number, and stay.
//!
//!   cargo bench --bench events [-- DIR]      DIR: on the disk to measure; the system's temporary directory by default

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints and may stop")]

use std::path::Path;
use std::time::{Duration, Instant};

use prometheus::Registry;

use reg4rec::domain::{Event, EventKind, Secret, UserEvent};
use reg4rec::events::{EventsConfig, Sync};
use reg4rec::history::{Histories, HistoryConfig, RedisConfig, StoreKind};
use reg4rec::recommend::Recorder;

/// How long each rate is measured.
const WHILE: Duration = Duration::from_secs(5);
/// Events of the long log.
const LONG: usize = 1_000_000;

fn main() {
    let given = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let home = given.map_or_else(std::env::temp_dir, Into::into).join(format!("reg4rec-events-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("| sync | callers | events a request | acknowledged events/s | p50 ms | p99 ms |");
    println!("|---|---|---|---|---|---|");
    for (sync, name) in [(Sync::Batch, "batch"), (Sync::Never, "never")] {
        for (callers, size) in [(1, 1), (1, 100), (64, 1), (64, 100)] {
            let (rate, p50, p99) =
                runtime.block_on(rate(&home.join(format!("{name}-{callers}-{size}")), sync, callers, size));
            println!("| {name} | {callers} | {size} | {rate:.0} | {p50:.2} | {p99:.2} |");
        }
    }
    let long = home.join("long");
    runtime.block_on(fill(&long));
    println!("\n| history store | events | files | seconds to follow the log | events/s |");
    println!("|---|---|---|---|---|");
    for config in stores(&home) {
        let _within = runtime.enter();
        let began = Instant::now();
        let (recorder, opened) = open(&long, Sync::Batch, &config);
        let seconds = began.elapsed().as_secs_f64();
        let rate = opened.events as f64 / seconds;
        println!("| {:?} | {} | {} | {seconds:.2} | {rate:.0} |", config.store, opened.events, opened.segments);
        drop(recorder);
    }
    std::fs::remove_dir_all(&home).unwrap();
}

/// The stores that are there.
fn stores(home: &Path) -> Vec<HistoryConfig> {
    let embedded = HistoryConfig { store: StoreKind::Embedded, path: home.join("h.redb"), ..HistoryConfig::default() };
    let redis = std::env::var("REG4REC_REDIS").ok().map(|url| {
        let prefix = format!("reg4rec-bench-{}", std::process::id());
        let redis = RedisConfig { url: Secret::new(url), prefix, ..RedisConfig::default() };
        HistoryConfig { store: StoreKind::Redis, redis, ..HistoryConfig::default() }
    });
    [HistoryConfig::default(), embedded].into_iter().chain(redis).collect()
}

/// Opens the log, and lets the histories follow it to its end.
fn open(path: &Path, sync: Sync, histories: &HistoryConfig) -> (Recorder, reg4rec::events::Opened) {
    let registry = Registry::new();
    let histories = Histories::open(histories, &registry).unwrap();
    let config = EventsConfig { path: path.to_owned(), sync, ..EventsConfig::default() };
    Recorder::open(&config, histories, &registry).unwrap().unwrap()
}

fn events(caller: usize, at: usize, size: usize) -> Vec<UserEvent> {
    let one = |place: usize| {
        let event = Event {
            item_id: format!("item-{}", (at + place) % 50_000),
            kind: EventKind::Click,
            time: at as i64,
            value: None,
        };
        let event_id = format!("{caller}-{at}-{place}");
        UserEvent {
            user_id: format!("user-{}", (caller * 7919 + at + place) % 100_000),
            event,
            event_id,
            request_id: String::new(),
        }
    };
    (0..size).map(one).collect()
}

/// Events a second, and the median and 99th percentile of a request in ms, of callers that each wait for their answer.
async fn rate(path: &Path, sync: Sync, callers: usize, size: usize) -> (f64, f64, f64) {
    let (recorder, _) = open(path, sync, &HistoryConfig::default());
    let began = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let recorder = recorder.clone();
            tokio::spawn(async move {
                let mut took = Vec::new();
                while began.elapsed() < WHILE {
                    let events = events(caller, took.len(), size);
                    let asked = Instant::now();
                    recorder.record(events).await.unwrap();
                    took.push(asked.elapsed().as_secs_f64() * 1e3);
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.unwrap());
    }
    let seconds = began.elapsed().as_secs_f64();
    took.sort_by(f64::total_cmp);
    ((took.len() * size) as f64 / seconds, took[took.len() / 2], took[took.len() * 99 / 100])
}

async fn fill(path: &Path) {
    let (recorder, _) = open(path, Sync::Never, &HistoryConfig::default());
    for at in 0..LONG / 1000 {
        recorder.record(events(0, at, 1000)).await.unwrap();
    }
}
