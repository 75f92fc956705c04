//! Exposures in the log: beside events, in bounds, gone when forgotten; and logs from before there were any.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use prometheus::{Registry, TextEncoder};

use super::tests::{Told, config, event, files, open, open_with, record};
use super::{EventLog, EventsConfig, Follower, Logged, Record, read, read_records};
use crate::domain::{AssignmentReason, Design, EventKind, ExposedArm, Exposure, Forgotten};

pub(super) fn exposure(user: &str, request: &str) -> Exposure {
    let design = Arc::new(Design {
        experiment: "search".into(),
        version: "0123456789ab".into(),
        arms: vec!["control".into(), "exact".into()],
        weights: vec![0.25, 0.75],
    });
    let forced = Design { experiment: "other".into(), ..Design::clone(&design) };
    let arms = vec![
        ExposedArm { design, arm: 1, unit: None, reason: AssignmentReason::Assigned },
        ExposedArm { design: Arc::new(forced), arm: 0, unit: Some("ab12".into()), reason: AssignmentReason::Killed },
    ];
    Exposure {
        request_id: request.into(),
        user_id: user.into(),
        arms,
        variant: "main".into(),
        bundle_version: "7".into(),
        item_ids: vec!["i1".into(), "ü".into()],
    }
}

fn records(path: &Path) -> Vec<Record> {
    let mut found = Vec::new();
    read_records(path, &mut |record| found.push(record)).unwrap();
    found
}

/// The value of one series.
fn series(registry: &Registry, name: &str) -> f64 {
    let page = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap()
}

#[tokio::test]
async fn an_exposure_is_read_as_it_was_left_and_no_event_is_made_of_it() {
    let home = tempfile::tempdir().unwrap();
    let (log, _, told) = open(home.path());
    record(&log, &[event("u", "first", "e1")]).await;
    log.expose(exposure("u", "r1"), 2_000);
    log.expose(exposure("v", "r2"), 3_000);
    drop(log);
    let (log, opened, again) = open(home.path());
    assert_eq!((opened.events, opened.exposures, opened.segments, opened.cut), (1, 2, 1, 0));
    assert_eq!((told.all(), again.all()), (vec!["u:first".into()], vec!["u:first".to_owned()]));
    record(&log, &[event("u", "second", "e2")]).await;
    drop(log);
    let found = records(home.path());
    let places: Vec<_> = found.iter().map(|one| (one.sequence(), one.arrived_ms(), one.user_id())).collect();
    assert_eq!(places, [(1, 1_000, "u"), (2, 2_000, "u"), (3, 3_000, "v"), (4, 1_000, "u")]);
    let Record::Exposure(second) = &found[2] else { panic!("{found:?}") };
    assert_eq!(second.exposure, exposure("v", "r2"));
    let mut events = Vec::new();
    read(home.path(), &mut |logged| events.push(logged.event.event.item_id)).unwrap();
    assert_eq!(events, ["first", "second"]);
}

#[tokio::test]
async fn a_log_from_before_there_were_exposures_is_read_and_written_on() {
    let home = tempfile::tempdir().unwrap();
    let before = b"R4EV\x01\0\0\0\x12\0\0\0\x1b\x48\x86\x10\x08\x01\x10\xe8\x07\x1a\x01u\"\x01i(\x01\x30\x0aB\x01e";
    let file = home.path().join("00000000000000000001.events");
    fs::write(&file, before).unwrap();
    let (log, opened, told) = open(home.path());
    assert_eq!((opened.events, opened.exposures, opened.cut, told.all()), (1, 0, 0, vec!["u:i".into()]));
    assert_eq!(record(&log, &[event("u", "i", "e")]).await, (0, 1), "its id is known");
    log.expose(exposure("u", "r1"), 2_000);
    drop(log);
    let found = records(home.path());
    let Record::Event(old) = &found[0] else { panic!("{found:?}") };
    assert_eq!((old.arrived_ms, old.event.event.kind, old.event.event.time), (1_000, EventKind::Click, 5));
    assert_eq!(found.len(), 2);
    assert!(fs::read(&file).unwrap().starts_with(before));
}

/// Keeps the writer from going on while somebody holds the lock.
struct Held(Arc<Mutex<()>>);

impl Follower for Held {
    fn recorded(&mut self, _: &Logged) {
        drop(self.0.lock().unwrap());
    }

    fn forgotten(&mut self, _: &str) {}
}

#[tokio::test]
async fn what_a_full_queue_cannot_take_is_dropped_and_counted_and_events_are_not() {
    let home = tempfile::tempdir().unwrap();
    let (registry, held) = (Registry::new(), Arc::<Mutex<()>>::default());
    let small = EventsConfig { max_exposure_queue: 4, ..config(home.path()) };
    let (log, _) = EventLog::open(&small, &registry, Box::new(Held(held.clone()))).unwrap();
    let log = Arc::new(log);
    let lock = held.lock().unwrap();
    let recorder = Arc::clone(&log);
    let waits = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(record(&recorder, &[event("u", "i", "e1")]))
    });
    // The writer holds still once the event is in the file, before it looks at exposures again.
    while series(&registry, "reg4rec_events_write_seconds_count") < 1.0 {
        std::thread::yield_now();
    }
    for at in 0..10 {
        log.expose(exposure("u", &format!("r{at}")), at);
    }
    assert_eq!(series(&registry, "reg4rec_exposures_dropped_total"), 6.0);
    drop(lock);
    assert_eq!(waits.join().unwrap(), (1, 0));
    // Once it has gone on there is room again.
    log.forget("nobody".into()).await.unwrap();
    log.expose(exposure("u", "later"), 10);
    drop(log);
    assert_eq!(series(&registry, "reg4rec_exposures_total"), 5.0);
    assert_eq!(series(&registry, "reg4rec_exposures_dropped_total"), 6.0);
    let found = records(home.path());
    let requests = found.iter().map(|one| match one {
        Record::Exposure(one) => one.exposure.request_id.as_str(),
        Record::Event(one) => one.event.event_id.as_str(),
    });
    assert_eq!(requests.collect::<Vec<_>>(), ["e1", "r0", "r1", "r2", "r3", "later"]);
}

#[tokio::test]
async fn an_exposure_that_no_record_can_hold_is_dropped_and_counted() {
    let home = tempfile::tempdir().unwrap();
    let registry = Registry::new();
    let (log, _) = EventLog::open(&config(home.path()), &registry, Box::new(Told::default())).unwrap();
    log.expose(exposure("u", &"x".repeat(2 << 20)), 1);
    log.expose(exposure("u", "short"), 2);
    drop(log);
    let counted = ["reg4rec_exposures_total", "reg4rec_exposures_dropped_total"].map(|name| series(&registry, name));
    assert_eq!(counted, [1.0, 1.0]);
    assert_eq!(open(home.path()).1.exposures, 1);
}

#[tokio::test]
async fn a_forgotten_users_exposures_are_in_no_file_also_those_that_waited() {
    let home = tempfile::tempdir().unwrap();
    let small = EventsConfig { segment_bytes: 4096, ..config(home.path()) };
    let (log, _, _) = open_with(&small);
    for at in 0..100 {
        log.expose(exposure(["keeper", "leaver"][at % 2], &format!("request-{at}")), 1_000);
        if at % 10 == 0 {
            record(&log, &[event("keeper", "i", &format!("e{at}"))]).await;
        }
    }
    let Forgotten { logged_events, logged_exposures, files: written, .. } = log.forget("leaver".into()).await.unwrap();
    assert_eq!((logged_events, logged_exposures), (0, 50));
    assert!(written > 2, "{written} files");
    for file in files(home.path()) {
        let bytes = fs::read(&file).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"leaver"), "{}", file.display());
    }
    log.expose(exposure("leaver", "back"), 2_000);
    drop(log);
    let (_log, opened, _) = open_with(&small);
    assert_eq!((opened.events, opened.exposures), (10, 51));
}
