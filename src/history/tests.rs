//! The store: order, bounds, eviction.

use std::sync::Arc;

use prometheus::Registry;

use super::{HistoryConfig, MemoryStore};
use crate::domain::{Event, EventKind};

fn event(item: &str, time: i64) -> Event {
    Event { item_id: item.into(), kind: EventKind::View, time, value: None }
}

fn store(max_events: usize, max_users: usize) -> MemoryStore {
    MemoryStore::new(&HistoryConfig { max_events, max_users, ..HistoryConfig::default() }, &Registry::new()).unwrap()
}

fn items(store: &MemoryStore, user: &str, limit: usize) -> Vec<String> {
    store.recent(user, limit).into_iter().map(|event| event.item_id).collect()
}

#[test]
fn recent_events_come_oldest_first_and_bounded() {
    let store = store(3, 10);
    for (item, time) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
        store.append("u", event(item, time));
    }
    assert_eq!(items(&store, "u", 10), ["b", "c", "d"]);
    assert_eq!(items(&store, "u", 2), ["c", "d"]);
    assert_eq!(items(&store, "u", 0), [""; 0]);
    assert_eq!(items(&store, "nobody", 10), [""; 0]);
}

#[test]
fn late_arrivals_take_their_place_by_time() {
    let store = store(3, 10);
    for (item, time) in [("b", 20), ("d", 40), ("a", 10), ("c", 20), ("too old", 1)] {
        store.append("u", event(item, time));
    }
    assert_eq!(items(&store, "u", 10), ["b", "c", "d"]);
}

#[test]
fn an_untouched_user_makes_room() {
    let store = store(3, 3);
    for user in ["a", "b", "c"] {
        store.append(user, event("x", 1));
    }
    store.recent("a", 1);
    store.append("c", event("y", 2));
    store.append("d", event("x", 1));
    assert_eq!(store.len(), 3);
    assert!(store.recent("b", 1).is_empty(), "b was touched least recently");
    for user in ["a", "c", "d"] {
        assert!(!store.recent(user, 1).is_empty(), "{user} was dropped");
    }
}

#[test]
fn users_stay_bounded_when_all_are_touched() {
    let store = store(3, 50);
    for user in 0..1000 {
        store.append(&user.to_string(), event("x", 1));
        store.recent(&user.to_string(), 1);
    }
    assert_eq!(store.len(), 50);
}

#[test]
fn users_stay_bounded_under_concurrent_writers() {
    let registry = Registry::new();
    let store = Arc::new(
        MemoryStore::new(&HistoryConfig { max_events: 2, max_users: 64, ..HistoryConfig::default() }, &registry)
            .unwrap(),
    );
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let store = store.clone();
            scope.spawn(move || {
                for turn in 0..2000 {
                    let user = (turn * 7 + writer * 13) % 500;
                    store.append(&user.to_string(), event("x", turn));
                    store.recent(&user.to_string(), 2);
                }
            });
        }
    });
    assert!(store.len() <= 64, "{} users", store.len());
    let gathered = registry.gather();
    let users = gathered.iter().find(|family| family.name() == "reg4rec_history_users").unwrap();
    assert_eq!(users.get_metric()[0].get_gauge().get_value() as usize, store.len());
}

#[test]
fn whole_histories_load() {
    let store = store(2, 10);
    let read = store.load([
        ("u".to_string(), vec![event("a", 1), event("b", 2), event("c", 3)]),
        ("v".to_string(), vec![event("a", 1)]),
        ("empty".to_string(), vec![]),
    ]);
    assert_eq!((read, store.len()), (4, 2));
    assert_eq!(items(&store, "u", 10), ["b", "c"]);
}

#[test]
fn every_wrong_bound_is_named() {
    let wrong =
        HistoryConfig { max_events: 0, max_hides: 0, max_users: 0, ..HistoryConfig::default() }.validate().unwrap_err();
    let fields: Vec<_> = wrong.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["max_events", "max_hides", "max_users"]);
    assert!(HistoryConfig::default().validate().is_ok());
}

#[test]
fn a_removed_user_is_gone_and_leaves_no_place_behind() {
    let store = store(3, 2);
    for user in ["a", "b"] {
        store.append(user, event("x", 1));
    }
    assert_eq!((store.remove("a"), store.remove("a"), store.remove("nobody")), (1, 0, 0));
    assert!(store.recent("a", 1).is_empty());
    store.append("b", event("x", 2));
    store.remove_all(&|user| user == "b" || user == "nobody");
    assert!(store.recent("b", 1).is_empty() && store.is_empty());
    store.append("b", event("x", 1));
    store.append("c", event("x", 1));
    assert_eq!(store.len(), 2, "the removed user's place was free");
    store.append("a", event("y", 2));
    assert_eq!(items(&store, "a", 9), ["y"]);
    assert_eq!(store.len(), 2);
}
