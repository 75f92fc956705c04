//! Small things that the tests of this room share.

use std::path::Path;

use prometheus::Registry;

use crate::catalog::{CatalogItem, Index};
use crate::domain::{CodeShape, CodeTable, Event, EventKind, Exposure, Item, UserEvent};
use crate::events::{EventLog, EventsConfig, Follower, Logged};

/// `items` items of equal popularity, item n with entry n in each of two codebooks.
pub fn index(items: u16) -> Index {
    let rows = (0..items).map(|number| CatalogItem {
        item: Item {
            id: format!("item-{number}"),
            title: None,
            brand: None,
            categories: vec!["shop".into()],
            price: None,
            eligible: true,
        },
        category: 0,
        prior: -(f32::from(items)).ln(),
    });
    let shape = CodeShape { codebooks: 2, entries: usize::from(items.max(2)) };
    let codes = CodeTable::new(shape, (0..items).flat_map(|entry| [entry, entry]).collect()).unwrap();
    Index::build(rows.collect(), codes, vec!["shop".into()], "test".into()).unwrap()
}

/// An event of `item-N`.
pub fn event(user: &str, item: usize, time: i64, kind: EventKind) -> UserEvent {
    let event = Event { item_id: format!("item-{item}"), kind, time, value: None };
    UserEvent { user_id: user.into(), event, event_id: String::new(), request_id: String::new() }
}

struct Nobody;

impl Follower for Nobody {
    fn recorded(&mut self, _: &Logged) {}
    fn forgotten(&mut self, _: &str) {}
}

/// Writes to the log in `directory`, each list as one request.
pub fn log(directory: &Path, requests: Vec<Vec<UserEvent>>) {
    with_log(directory, |log, runtime| {
        for events in requests {
            runtime.block_on(log.record(events, 1_700_000_000_000)).unwrap();
        }
    });
}

/// Writes to the log in `directory` that `user` was shown these items as the answer to `request`.
pub fn expose(directory: &Path, request: &str, user: &str, items: &[usize]) {
    let exposure = Exposure {
        request_id: request.into(),
        user_id: user.into(),
        arms: Vec::new(),
        variant: "default".into(),
        bundle_version: "1".into(),
        item_ids: items.iter().map(|item| format!("item-{item}")).collect(),
    };
    with_log(directory, |log, _| log.expose(exposure, 1_700_000_000_000));
}

/// Takes a user out of the log in `directory`.
pub fn forget(directory: &Path, user: &str) {
    with_log(directory, |log, runtime| {
        runtime.block_on(log.forget(user.into())).unwrap();
    });
}

fn with_log(directory: &Path, work: impl FnOnce(&EventLog, &tokio::runtime::Runtime)) {
    let config = EventsConfig { path: directory.into(), ..EventsConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (log, _) = EventLog::open(&config, &Registry::new(), Box::new(Nobody)).unwrap();
    work(&log, &runtime);
}
