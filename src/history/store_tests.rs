//! What holds of every store, and of the face that requests see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arrow_array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray};
use async_trait::async_trait;
use parquet::arrow::ArrowWriter;
use prometheus::Registry;
use proptest::prelude::*;

use super::{
    EmbeddedStore, Histories, HistoryConfig, HistoryStore, KindWeights, Lookup, Mark, MemoryStore, Noted, Place,
    RedisConfig, RedisStore, StoreError, StoreKind, load_table,
};
use crate::domain::{Event, EventKind, Secret, UserEvent};

fn event(item: &str, time: i64) -> Event {
    Event { item_id: item.into(), kind: EventKind::View, time, value: None }
}

/// Events of the log "l", at places from `from` on.
fn logged(user: &str, from: u64, events: &[(&str, i64)]) -> Vec<Noted> {
    let one = |(at, (item, time)): (usize, &(&str, i64))| {
        let event = event(item, *time);
        let logged = UserEvent {
            user_id: user.into(),
            event: event.clone(),
            event_id: String::new(),
            request_id: String::new(),
        };
        let order = from + at as u64;
        Noted { user: user.into(), mark: Mark::of(&logged, "l", order), order, event }
    };
    events.iter().enumerate().map(one).collect()
}

fn at(last: u64) -> Option<Place<'static>> {
    Some(Place { log: "l", after: 0, last })
}

fn config(path: &std::path::Path, max_events: usize) -> HistoryConfig {
    HistoryConfig { store: StoreKind::Embedded, path: path.to_owned(), max_events, ..HistoryConfig::default() }
}

async fn items(store: &dyn HistoryStore, user: &str) -> Vec<String> {
    store.recent(user).await.unwrap().into_iter().map(|event| event.item_id).collect()
}

#[tokio::test]
async fn a_file_keeps_order_bound_and_place_and_takes_nothing_in_twice() {
    let home = tempfile::tempdir().unwrap();
    let config = config(&home.path().join("deep/er/histories.redb"), 3);
    let store = EmbeddedStore::open(&config).unwrap();
    assert_eq!((items(&store, "ann").await, store.place("l").await.unwrap()), (vec![], 0));
    let batch = logged("ann", 1, &[("b", 20), ("d", 40), ("a", 10), ("c", 20)]);
    for _ in 0..2 {
        store.append(&batch, at(4)).await.unwrap();
        assert_eq!(items(&store, "ann").await, ["b", "c", "d"]);
    }
    store.append(&logged("bob", 5, &[("x", 1)]), at(5)).await.unwrap();
    assert_eq!((store.place("l").await.unwrap(), store.place("other").await.unwrap()), (5, 0));
    let taken = EmbeddedStore::open(&config).unwrap_err().to_string();
    assert!(taken.contains("histories.redb"), "{taken}");
    drop(store);

    let store = EmbeddedStore::open(&config).unwrap();
    assert_eq!(
        (items(&store, "ann").await, store.place("l").await.unwrap()),
        (vec!["b".into(), "c".into(), "d".into()], 5)
    );
    assert_eq!((store.remove("ann").await.unwrap(), store.remove("ann").await.unwrap()), (3, 0));
    assert_eq!((items(&store, "ann").await.len(), items(&store, "bob").await), (0, vec!["x".to_owned()]));
}

#[tokio::test]
async fn no_file_names_a_user_and_one_of_another_version_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let config = config(&home.path().join("h.redb"), 10);
    let store = EmbeddedStore::open(&config).unwrap();
    store.append(&logged("a-user-to-be-found", 1, &[("item", 1)]), None).await.unwrap();
    drop(store);
    let bytes = std::fs::read(&config.path).unwrap();
    let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds("item") && !holds("a-user-to-be-found"));

    let other = redb::Database::create(home.path().join("other.redb")).unwrap();
    let transaction = other.begin_write().unwrap();
    let table = redb::TableDefinition::<&str, u64>::new("format");
    transaction.open_table(table).unwrap().insert("events", 9).unwrap();
    transaction.commit().unwrap();
    drop(other);
    let other = HistoryConfig { path: home.path().join("other.redb"), ..config };
    let refused = EmbeddedStore::open(&other).unwrap_err().to_string();
    assert!(refused.contains("other.redb") && refused.contains("version 9, expected 1"), "{refused}");
    std::fs::write(&other.path, "no database at all").unwrap();
    assert!(matches!(EmbeddedStore::open(&other), Err(StoreError::File { .. })));
}

/// Of a store that keeps 3 events and 2 hides of a user: "hide-1" is older than all else.
async fn hides_have_a_bound_of_their_own(store: &dyn HistoryStore) {
    let hide = |place: u64, item: &str, time: i64| {
        let mut noted = logged("ann", place, &[(item, time)]);
        noted[0].event.kind = EventKind::Hide;
        noted
    };
    store.append(&hide(1, "hide-1", 1), at(1)).await.unwrap();
    store.append(&logged("ann", 2, &[("a", 2), ("b", 3), ("c", 4), ("d", 6)]), at(5)).await.unwrap();
    assert_eq!(items(store, "ann").await, ["hide-1", "b", "c", "d"]);
    store.append(&hide(6, "hide-2", 5), at(6)).await.unwrap();
    assert_eq!(items(store, "ann").await, ["hide-1", "b", "c", "hide-2", "d"]);
    store.append(&hide(7, "hide-3", 7), at(7)).await.unwrap();
    store.append(&logged("ann", 8, &[("too old", 0)]), at(8)).await.unwrap();
    assert_eq!(items(store, "ann").await, ["b", "c", "hide-2", "d", "hide-3"]);
    assert_eq!(store.remove("ann").await.unwrap(), 5);
    assert!(items(store, "ann").await.is_empty());
}

#[tokio::test]
async fn what_was_hidden_stays_so_however_much_is_done_after_it() {
    let home = tempfile::tempdir().unwrap();
    let config = HistoryConfig { max_hides: 2, ..config(&home.path().join("h.redb"), 3) };
    hides_have_a_bound_of_their_own(&MemoryStore::new(&config, &Registry::new()).unwrap()).await;
    hides_have_a_bound_of_their_own(&EmbeddedStore::open(&config).unwrap()).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn a_file_holds_what_memory_does(events in prop::collection::vec((0..3usize, 0..9i64, any::<bool>()), 1..40), cuts in prop::collection::vec(1..9usize, 1..9)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let home = tempfile::tempdir().unwrap();
        let config = HistoryConfig { max_hides: 2, ..config(&home.path().join("h.redb"), 5) };
        let memory = MemoryStore::new(&config, &Registry::new()).unwrap();
        let file = EmbeddedStore::open(&config).unwrap();
        let names: Vec<String> = (0..events.len()).map(|at| format!("i{at}")).collect();
        let noted: Vec<Noted> = events.iter().zip(&names).enumerate()
            .flat_map(|(at, ((user, time, hides), name))| {
                let mut noted = logged(["a", "b", "c"][*user], at as u64 + 1, &[(name, *time)]);
                noted[0].event.kind = if *hides { EventKind::Hide } else { EventKind::View };
                noted
            })
            .collect();
        runtime.block_on(async {
            let mut rest = &noted[..];
            for cut in cuts.iter().cycle() {
                let (head, tail) = rest.split_at((*cut).min(rest.len()));
                HistoryStore::append(&memory, head, at(1)).await.unwrap();
                file.append(head, at(1)).await.unwrap();
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            // As after a crash: all of it once more. Those that were dropped as too old are dropped again.
            file.append(&noted, at(1)).await.unwrap();
            for user in ["a", "b", "c"] {
                assert_eq!(items(&file, user).await, items(&memory, user).await, "{user}");
            }
        });
    }
}

/// A store that fails, or hangs, when told to.
#[derive(Debug, Default)]
struct Moody {
    away: AtomicBool,
    hangs: AtomicBool,
    asked: AtomicUsize,
}

#[async_trait]
impl HistoryStore for Moody {
    async fn recent(&self, _: &str) -> Result<Vec<Event>, StoreError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.away.load(Ordering::SeqCst) {
            return Err(StoreError::Away("on holiday".into()));
        }
        Ok(vec![event("a", 1), event("a", 2), event("b", 3)])
    }

    async fn append(&self, _: &[Noted], _: Option<Place<'_>>) -> Result<(), StoreError> {
        Ok(())
    }

    async fn place(&self, _: &str) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn remove(&self, _: &str) -> Result<usize, StoreError> {
        Ok(0)
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_or_hangs_is_missed_left_alone_and_asked_again() {
    let (registry, store) = (Registry::new(), Arc::new(Moody::default()));
    let config = HistoryConfig { timeout_ms: 20, retry_ms: 40, repeats_within_s: 1, ..HistoryConfig::default() };
    let histories = Histories::over(&config, store.clone(), &registry).unwrap();
    let known = histories.recent("u").await;
    assert_eq!((known.events, known.missed), (vec![event("a", 2), event("b", 3)], false));
    store.away.store(true, Ordering::SeqCst);
    let missed = Lookup { events: vec![], missed: true };
    for _ in 0..5 {
        assert_eq!(histories.recent("u").await, missed);
    }
    assert_eq!(store.asked.load(Ordering::SeqCst), 4, "three failures are enough");
    tokio::time::sleep(Duration::from_millis(60)).await;
    store.away.store(false, Ordering::SeqCst);
    assert!(!histories.recent("u").await.missed);
    store.hangs.store(true, Ordering::SeqCst);
    assert_eq!(histories.recent("u").await, missed);
    let gathered = registry.gather();
    let family = gathered.iter().find(|family| family.name() == "reg4rec_history_lookups_total").unwrap();
    let count = |result: &str| {
        let metric = family.get_metric().iter().find(|metric| metric.get_label()[0].value() == result).unwrap();
        metric.get_counter().get_value()
    };
    assert_eq!(["hit", "miss", "error", "timeout", "skipped"].map(count), [2.0, 0.0, 3.0, 1.0, 2.0]);
}

#[tokio::test]
async fn a_redis_that_is_not_there_is_away_and_a_url_that_is_none_is_refused_without_being_shown() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let with = |url: String, cluster: bool| {
        let redis = RedisConfig { url: Secret::new(url), cluster, ..RedisConfig::default() };
        HistoryConfig { store: StoreKind::Redis, redis, ..HistoryConfig::default() }
    };
    for cluster in [false, true] {
        let store = RedisStore::new(&with(format!("redis://{free}"), cluster)).unwrap();
        for outcome in [store.recent("u").await.map(drop), store.remove("u").await.map(drop)] {
            assert!(matches!(outcome, Err(StoreError::Away(_))), "{outcome:?}");
        }
        let refused = RedisStore::new(&with("no url: hunter2".into(), cluster)).unwrap_err().to_string();
        assert!(refused.contains("history.redis.url") && !refused.contains("hunter2"), "{refused}");
    }
}

#[test]
fn every_wrong_setting_of_stores_is_named() {
    let wrong = HistoryConfig {
        store: StoreKind::Redis,
        timeout_ms: 0,
        retry_ms: 0,
        repeats_within_s: u64::MAX,
        kind_weights: KindWeights { cart: -1.0, rating: f32::NAN, ..KindWeights::default() },
        redis: RedisConfig { pool: 0, keep_days: 99_999, prefix: "a b".into(), ..RedisConfig::default() },
        ..HistoryConfig::default()
    };
    let fields: Vec<String> = wrong.validate().unwrap_err().into_iter().map(|wrong| wrong.field).collect();
    let expected = [
        "timeout_ms",
        "retry_ms",
        "repeats_within_s",
        "redis.pool",
        "redis.keep_days",
        "kind_weights.cart",
        "kind_weights.rating",
        "redis.prefix",
        "redis.url",
    ];
    assert_eq!(fields, expected);
    let embedded = HistoryConfig { store: StoreKind::Embedded, ..HistoryConfig::default() };
    assert_eq!(embedded.validate().unwrap_err()[0].field, "path");
}

fn table(path: &std::path::Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

#[test]
fn a_table_loads_once_however_often_and_what_is_wrong_with_one_is_named() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("events.parquet");
    let store = EmbeddedStore::open(&config(&home.path().join("h.redb"), 10)).unwrap();
    let times: ArrayRef = Arc::new(Int64Array::from(vec![3, 1, 2, 2]));
    table(
        &path,
        vec![
            ("item_id", texts(&[Some("c"), Some("a"), Some("b"), Some("b")])),
            ("user_id", texts(&[Some("ann"); 4])),
            ("time", times.clone()),
            ("kind", texts(&[Some("purchase"), None, Some("exposure"), Some("rating")])),
            ("value", Arc::new(Float32Array::from(vec![None, None, None, Some(4.5)]))),
            ("color", texts(&[None; 4])),
        ],
    );
    for _ in 0..2 {
        assert_eq!(load_table(&path, &store, runtime.handle(), &|_| false).unwrap(), 3);
        let events = runtime.block_on(store.recent("ann")).unwrap();
        let told: Vec<_> = events.iter().map(|event| (event.item_id.as_str(), event.kind, event.value)).collect();
        let expected =
            [("a", EventKind::View, None), ("b", EventKind::Rating, Some(4.5)), ("c", EventKind::Purchase, None)];
        assert_eq!(told, expected);
    }
    runtime.block_on(store.remove("ann")).unwrap();
    assert_eq!(load_table(&path, &store, runtime.handle(), &|user| user == "ann").unwrap(), 0);
    assert!(runtime.block_on(store.recent("ann")).unwrap().is_empty(), "who was forgotten is brought back");
    let refused = |columns: Vec<(&str, ArrayRef)>| {
        table(&path, columns);
        load_table(&path, &store, runtime.handle(), &|_| false).unwrap_err().to_string()
    };
    let (users, items) = (texts(&[Some("u"); 4]), texts(&[Some("i"); 4]));
    let told = refused(vec![("user_id", users.clone()), ("item_id", items.clone())]);
    assert!(told.contains("column time is not there"), "{told}");
    let told = refused(vec![("user_id", users.clone()), ("item_id", items.clone()), ("time", users.clone())]);
    assert!(told.contains("column time is of type Utf8, expected int64"), "{told}");
    let kinds = texts(&[None, Some("stare"), None, None]);
    let told = refused(vec![("user_id", users), ("item_id", items.clone()), ("time", times.clone()), ("kind", kinds)]);
    assert!(told.contains("row 1, column kind: \"stare\", expected one of view"), "{told}");
    let users = texts(&[Some("u"), None, Some("u"), Some("u")]);
    let told = refused(vec![("user_id", users), ("item_id", items), ("time", times)]);
    assert!(told.contains("row 1, column user_id: 0 bytes"), "{told}");
    std::fs::write(&path, "no table").unwrap();
    assert!(
        load_table(&path, &store, runtime.handle(), &|_| false).unwrap_err().to_string().contains("events.parquet")
    );
}
