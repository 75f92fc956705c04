//! The log and a store that comes and goes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use prometheus::Registry;

use super::Recorder;
use super::feed::feed;
use super::tests::{ids, series};
use super::{RecommendConfig, Recommender};
use crate::domain::{Event, EventKind, Failure, RecommendRequest, UserEvent};
use crate::engine::EngineMetrics;
use crate::engine::fake::{FakeModel, index};
use crate::events::{EventsConfig, Follower};
use crate::history::{Histories, HistoryConfig, HistoryStore, Mark, Noted, Place, StoreError};

/// Remembers like a file does, unless it is away; may take its time.
#[derive(Debug, Default)]
struct Distant {
    away: AtomicBool,
    slow: AtomicBool,
    users: Mutex<HashMap<String, Vec<(Mark, Event)>>>,
    places: Mutex<HashMap<String, u64>>,
    /// Events that were offered again.
    again: Mutex<usize>,
}

impl Distant {
    async fn reach(&self) -> Result<(), StoreError> {
        if self.slow.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        if self.away.load(Ordering::SeqCst) { Err(StoreError::Away("away".into())) } else { Ok(()) }
    }

    fn leave(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }
}

#[async_trait]
impl HistoryStore for Distant {
    async fn recent(&self, user: &str) -> Result<Vec<Event>, StoreError> {
        self.reach().await?;
        let users = self.users.lock().unwrap();
        Ok(users.get(user).map_or_else(Vec::new, |events| events.iter().map(|(_, event)| event.clone()).collect()))
    }

    async fn append(&self, events: &[Noted], place: Option<Place<'_>>) -> Result<(), StoreError> {
        self.reach().await?;
        let mut users = self.users.lock().unwrap();
        for Noted { user, mark, event, .. } in events {
            let kept = users.entry(user.clone()).or_default();
            if kept.iter().any(|(other, _)| other == mark) {
                *self.again.lock().unwrap() += 1;
            } else {
                kept.push((*mark, event.clone()));
            }
        }
        let Place { log, after, last } = place.unwrap();
        let mut places = self.places.lock().unwrap();
        let found = places.get(log).copied().unwrap_or(0);
        if found < after {
            return Err(StoreError::Lost { found, after });
        }
        places.insert(log.into(), last);
        Ok(())
    }

    async fn place(&self, log: &str) -> Result<u64, StoreError> {
        self.reach().await?;
        Ok(self.places.lock().unwrap().get(log).copied().unwrap_or(0))
    }

    async fn remove(&self, user: &str) -> Result<usize, StoreError> {
        self.reach().await?;
        Ok(self.users.lock().unwrap().remove(user).map_or(0, |events| events.len()))
    }
}

fn click(user: &str, item: u32) -> UserEvent {
    let event = Event { item_id: format!("i{item}"), kind: EventKind::Click, time: i64::from(item), value: None };
    UserEvent { user_id: user.into(), event, event_id: String::new(), request_id: String::new() }
}

fn histories(store: &Arc<Distant>) -> Histories {
    let config = HistoryConfig { timeout_ms: 20, retry_ms: 10, ..HistoryConfig::default() };
    Histories::over(&config, Arc::clone(store) as _, &Registry::new()).unwrap()
}

async fn open(log: &Path, store: &Arc<Distant>) -> Recorder {
    let config = EventsConfig { path: log.to_owned(), segment_bytes: 4096, ..EventsConfig::default() };
    let histories = histories(store);
    let opened = tokio::task::spawn_blocking(move || Recorder::open(&config, histories, &Registry::new()));
    opened.await.unwrap().unwrap().unwrap().0
}

/// What the store holds of a user, once that is as many events as expected.
async fn followed(store: &Distant, user: &str, count: usize) -> Vec<String> {
    let began = Instant::now();
    loop {
        let events: Vec<String> = {
            let users = store.users.lock().unwrap();
            users.get(user).into_iter().flatten().map(|(_, event)| event.item_id.clone()).collect()
        };
        if events.len() >= count || began.elapsed() > Duration::from_secs(20) {
            return events;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn named(items: std::ops::Range<u32>) -> Vec<String> {
    items.map(|item| format!("i{item}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_emptied_between_two_events_gets_them_all_again() {
    let home = tempfile::tempdir().unwrap();
    let store = Arc::new(Distant::default());
    let recorder = open(home.path(), &store).await;
    for item in 0..7 {
        recorder.record(vec![click("ann", item)]).await.unwrap();
    }
    assert_eq!(followed(&store, "ann", 7).await, named(0..7));
    // It answers all the while.
    let empty = || {
        store.users.lock().unwrap().clear();
        store.places.lock().unwrap().clear();
    };
    empty();
    recorder.record(vec![click("ann", 7)]).await.unwrap();
    let mut found = followed(&store, "ann", 8).await;
    found.sort();
    assert_eq!(found, named(0..8));
    // Nor is another event needed.
    empty();
    assert_eq!(followed(&store, "ann", 8).await, named(0..8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_store_missed_while_it_was_away_it_gets_in_order_and_once() {
    let home = tempfile::tempdir().unwrap();
    let store = Arc::new(Distant::default());
    // Away from the start: not even its place is known.
    store.leave(true);
    let recorder = open(home.path(), &store).await;
    let record = |items: std::ops::Range<u32>| {
        let recorder = recorder.clone();
        async move {
            for item in items {
                recorder.record(vec![click("ann", item)]).await.unwrap();
            }
        }
    };
    record(0..50).await;
    assert!(store.users.lock().unwrap().is_empty());
    store.leave(false);
    assert_eq!(followed(&store, "ann", 50).await, named(0..50));
    record(50..60).await;
    assert_eq!(followed(&store, "ann", 60).await, named(0..60));
    store.leave(true);
    record(60..90).await;
    store.leave(false);
    record(90..100).await;
    assert_eq!(followed(&store, "ann", 100).await, named(0..100));

    // Too slow for the writer, but not away: no event waits longer than the store may take.
    store.slow.store(true, Ordering::SeqCst);
    record(100..110).await;
    store.slow.store(false, Ordering::SeqCst);
    assert_eq!(followed(&store, "ann", 110).await, named(0..110));

    // A process that ends while the store is away has its successor feed it.
    store.leave(true);
    record(110..120).await;
    tokio::task::spawn_blocking(move || drop(recorder)).await.unwrap();
    store.leave(false);
    let recorder = open(home.path(), &store).await;
    assert_eq!(followed(&store, "ann", 0).await, named(0..120), "an open recorder has been followed");
    recorder.record(vec![click("ann", 120)]).await.unwrap();
    assert_eq!(followed(&store, "ann", 121).await, named(0..121));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_forgotten_is_gone_from_a_store_that_is_there_and_an_absent_one_is_told_of() {
    let home = tempfile::tempdir().unwrap();
    let store = Arc::new(Distant::default());
    let recorder = open(home.path(), &store).await;
    for item in 0..5 {
        recorder.record(vec![click("ann", item), click("bob", item)]).await.unwrap();
    }
    let gone = recorder.forget("ann".into()).await.unwrap();
    assert_eq!((gone.history_events, gone.logged_events), (5, 5));
    store.leave(true);
    recorder.record(vec![click("bob", 5), click("cid", 1)]).await.unwrap();
    let refused = recorder.forget("cid".into()).await.unwrap_err();
    assert!(matches!(refused, Failure::NotReady { reason, .. } if reason.contains("history store")), "{refused}");
    store.leave(false);
    assert_eq!(followed(&store, "bob", 6).await, named(0..6));
    assert_eq!(recorder.forget("cid".into()).await.unwrap().history_events, 0, "it never came to the store");
    assert!(followed(&store, "ann", 0).await.is_empty() && followed(&store, "cid", 0).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_forgotten_elsewhere_is_gone_from_the_store_too() {
    let store = Arc::new(Distant::default());
    let noted = ["ann", "bob"].map(|user| {
        let event = click(user, 1);
        Noted { user: user.into(), mark: Mark::of(&event, "l", 1), order: 1, event: event.event }
    });
    store.append(&noted, Some(Place { log: "l", after: 0, last: 1 })).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let (mut told, _handle, feed) =
        feed(Arc::clone(&store) as _, home.path().to_owned(), Duration::from_millis(20), &Registry::new()).unwrap();
    let running = tokio::spawn(feed.run());
    let hears = move || told.forgotten_elsewhere(&["ann".to_owned()], &|user| user == "ann");
    tokio::task::spawn_blocking(hears).await.unwrap();
    let began = Instant::now();
    while store.users.lock().unwrap().contains_key("ann") {
        assert!(began.elapsed() < Duration::from_secs(20), "the history stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(store.users.lock().unwrap().contains_key("bob"));
    running.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_store_a_request_is_answered_and_flagged() {
    let (registry, store) = (Registry::new(), Arc::new(Distant::default()));
    let metrics = EngineMetrics::new(&registry).unwrap();
    let main = super::tests::variant("main", FakeModel::default(), index(300), &metrics).await;
    let recommender =
        Recommender::new(vec![main], "main".into(), histories(&store), RecommendConfig::default(), &registry).unwrap();
    let place = Some(Place { log: "l", after: 0, last: 1 });
    let noted = [7, 9].map(|item| {
        let event = click("ann", item);
        Noted { user: "ann".into(), mark: Mark::of(&event, "l", item.into()), order: item.into(), event: event.event }
    });
    store.append(&noted, place).await.unwrap();
    let ask = || {
        let request = RecommendRequest { user_id: "ann".into(), k: 5, ..RecommendRequest::default() };
        let recommender = recommender.clone();
        async move { recommender.recommend(request, None).await.unwrap() }
    };
    let known = ask().await;
    assert_eq!((known.cold_start, known.history_missed, known.degraded), (false, false, false));
    for slow in [false, true] {
        store.leave(!slow);
        store.slow.store(slow, Ordering::SeqCst);
        let missed = ask().await;
        assert_eq!((missed.cold_start, missed.history_missed, missed.degraded), (true, true, true), "slow: {slow}");
        assert_eq!(missed.items.len(), 5);
        assert!(recommender.ready());
    }
    store.slow.store(false, Ordering::SeqCst);
    assert_eq!(ids(&ask().await), ids(&known));
    assert_eq!(series(&registry, "reg4rec_cold_start_total"), 2.0);
}
