//! The log: order, second deliveries, cut-off writes, damage, forgetting, bounds.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use prometheus::Registry;

use super::forgotten::hex;
use super::{
    EventLog, EventLogError, EventsConfig, Follower, ForgottenUsers, Logged, Opened, Refusal, read, read_records,
    read_records_after,
};
use crate::domain::{Event, EventKind, Forgotten, Recorded, UserEvent};

/// What a follower was told: events, and forgotten users as `-user`.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(Arc<Mutex<Vec<String>>>);

impl Follower for Told {
    fn recorded(&mut self, Logged { event, .. }: &Logged) {
        self.0.lock().unwrap().push(format!("{}:{}", event.user_id, event.event.item_id));
    }

    fn forgotten(&mut self, user: &str) {
        self.0.lock().unwrap().push(format!("-{user}"));
    }
}

impl Told {
    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

pub(super) fn config(path: &Path) -> EventsConfig {
    EventsConfig { path: path.to_owned(), ..EventsConfig::default() }
}

pub(super) fn open_with(config: &EventsConfig) -> (EventLog, Opened, Told) {
    let told = Told::default();
    let (log, opened) = EventLog::open(config, &Registry::new(), Box::new(told.clone())).unwrap();
    (log, opened, told)
}

pub(super) fn open(path: &Path) -> (EventLog, Opened, Told) {
    open_with(&config(path))
}

pub(super) fn event(user: &str, item: &str, id: &str) -> UserEvent {
    let event = Event { item_id: item.into(), kind: EventKind::Click, time: 5, value: None };
    UserEvent { user_id: user.into(), event, event_id: id.into(), request_id: String::new() }
}

pub(super) async fn record(log: &EventLog, events: &[UserEvent]) -> (usize, usize) {
    let Recorded { recorded, duplicates } = log.record(events.to_vec(), 1_000).await.unwrap();
    (recorded, duplicates)
}

pub(super) fn files(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some());
    files.sort();
    files
}

#[tokio::test]
async fn what_was_acknowledged_is_told_again_at_the_next_opening_whole_and_in_order() {
    let home = tempfile::tempdir().unwrap();
    let mut rated = event("ü", "second", "e2");
    rated.event = Event { kind: EventKind::Rating, time: -7, value: Some(4.5), ..rated.event };
    rated.request_id = "r".into();
    let (log, opened, told) = open(home.path());
    assert_eq!((opened.events, opened.segments, opened.cut), (0, 0, 0));
    assert_eq!(record(&log, &[event("a", "first", "e1"), rated.clone()]).await, (2, 0));
    assert_eq!(told.all(), ["a:first", "ü:second"], "told before it is acknowledged");
    drop(log);

    let (log, opened, told) = open(home.path());
    assert_eq!((opened.events, opened.segments, opened.cut), (2, 1, 0));
    assert_eq!(told.all(), ["a:first", "ü:second"]);
    assert_eq!(record(&log, &[event("a", "third", "e3")]).await, (1, 0));
    drop(log);
    let mut logged = Vec::new();
    assert_eq!(read(home.path(), &mut |one| logged.push(one)).unwrap(), 1);
    assert_eq!(
        logged.iter().map(|one| (one.sequence, one.arrived_ms)).collect::<Vec<_>>(),
        [1, 2, 3].map(|at| (at, 1_000))
    );
    assert_eq!(logged[1].event, rated);
}

#[tokio::test]
async fn an_event_that_is_sent_again_counts_once_and_one_without_a_name_every_time() {
    let home = tempfile::tempdir().unwrap();
    let (log, _, told) = open(home.path());
    let twice = [event("u", "a", "x"), event("u", "a", "x"), event("u", "b", ""), event("u", "b", "")];
    assert_eq!(record(&log, &twice).await, (3, 1));
    assert_eq!(record(&log, &twice[..1]).await, (0, 1));
    drop(log);
    let (log, _, _) = open(home.path());
    assert_eq!(record(&log, &twice[..1]).await, (0, 1), "known after a restart");
    assert_eq!(told.all(), ["u:a", "u:b", "u:b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_share_writes_and_none_is_lost_or_doubled() {
    let home = tempfile::tempdir().unwrap();
    let (log, _, _) = open(home.path());
    let log = Arc::new(log);
    let senders: Vec<_> = (0..64)
        .map(|user| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                // Half of the ids are another sender's too.
                let events: Vec<_> = (0..10).map(|at| event("u", "i", &format!("{}-{at}", user / 2))).collect();
                record(&log, &events).await
            })
        })
        .collect();
    let mut sums = (0, 0);
    for sender in senders {
        let (recorded, duplicates) = sender.await.unwrap();
        sums = (sums.0 + recorded, sums.1 + duplicates);
    }
    assert_eq!(sums, (320, 320));
    drop(log);
    assert_eq!(open(home.path()).1.events, 320);
}

#[tokio::test]
async fn a_write_that_was_cut_off_anywhere_takes_nothing_else_with_it() {
    let home = tempfile::tempdir().unwrap();
    let (log, _, _) = open(home.path());
    record(&log, &[event("u", "kept", "e1")]).await;
    let file = files(home.path()).pop().unwrap();
    let kept = fs::metadata(&file).unwrap().len() as usize;
    record(&log, &[event("u", "cut", "e2")]).await;
    drop(log);
    let whole = fs::read(&file).unwrap();
    for length in (0..8).chain(kept..whole.len()) {
        for zeros in [0, 16] {
            let mut left = whole[..length].to_vec();
            // A file system may have made the file longer than what it wrote.
            if length == kept {
                left.extend(vec![0; zeros]);
            }
            fs::write(&file, &left).unwrap();
            let (log, opened, told) = open(home.path());
            let remains: &[&str] = if length < 8 { &[] } else { &["u:kept"] };
            assert_eq!(told.all(), remains, "{length} bytes");
            assert_eq!(opened.cut as usize, if length < 8 { left.len() } else { left.len() - kept });
            assert_eq!(record(&log, &[event("u", "cut", "e2")]).await, (1, 0), "what was not acknowledged is new");
            drop(log);
            assert_eq!(open(home.path()).1.events as usize, remains.len() + 1, "{length} bytes");
        }
    }
}

#[tokio::test]
async fn damage_is_refused_by_file_and_byte_and_left_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let (log, _, _) = open(home.path());
    record(&log, &[event("u", "one", "e1"), event("u", "two", "e2")]).await;
    drop(log);
    let file = files(home.path()).pop().unwrap();
    let whole = fs::read(&file).unwrap();
    for (at, told) in
        [(0, "begins with"), (12, "byte 8: the checksum"), (20, "byte 8: the checksum"), (11, "byte 8: a length")]
    {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        fs::write(&file, &damaged).unwrap();
        let refused = EventLog::open(&config(home.path()), &Registry::new(), Box::new(Told::default())).unwrap_err();
        let refused = refused.to_string();
        assert!(refused.contains(told) && refused.contains("00000000000000000001.events"), "{refused}");
        assert_eq!(fs::read(&file).unwrap(), damaged);
    }
}

#[tokio::test]
async fn a_forgotten_user_is_in_no_file_and_everybody_else_still_is() {
    let home = tempfile::tempdir().unwrap();
    let small = EventsConfig { segment_bytes: 4096, ..config(home.path()) };
    let (log, _, told) = open_with(&small);
    for at in 0..100 {
        let (who, id) = (["keeper", "leaver"][at % 2], format!("id-{at}"));
        record(&log, &[event(who, &format!("item-of-{who}-{at}-{}", "x".repeat(100)), &id)]).await;
    }
    assert!(files(home.path()).len() > 3);
    let Forgotten { logged_events, files: written, .. } = log.forget("leaver".into()).await.unwrap();
    assert_eq!((logged_events, written), (50, files(home.path()).len() - 1));
    assert_eq!(told.all().last().unwrap(), "-leaver");
    for file in files(home.path()) {
        let bytes = fs::read(&file).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"leaver"), "{}", file.display());
    }
    assert_eq!(log.forget("leaver".into()).await.unwrap(), Forgotten::default());
    assert_eq!(record(&log, &[event("keeper", "again", "id-0"), event("leaver", "back", "id-1")]).await, (1, 1));
    drop(log);
    let (_log, opened, told) = open_with(&small);
    assert_eq!(opened.events, 51);
    assert_eq!(told.all().iter().filter(|told| told.starts_with("leaver")).count(), 1);
}

#[tokio::test]
async fn whom_another_server_forgot_is_forgotten_by_a_hash_and_the_log_remembers_that() {
    let home = tempfile::tempdir().unwrap();
    let (log, _, told) = open(home.path());
    record(&log, &[event("leaver", "a", "e1"), event("keeper", "b", "e2")]).await;
    let hashes = ["leaver", "stranger"].map(|user| hex(user.as_bytes()));
    log.forget_hashed(hashes.clone().into()).await.unwrap();
    assert_eq!(told.all().last().unwrap(), "-leaver");
    assert_eq!(told.all().iter().filter(|told| told.starts_with('-')).count(), 1);
    for entry in fs::read_dir(home.path()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"leaver"));
    }
    // Who comes back is there.
    assert_eq!(record(&log, &[event("leaver", "c", "e1")]).await, (1, 0));
    log.forget("asked".into()).await.unwrap();
    drop(log);
    assert_eq!(open(home.path()).1.events, 2);
    let forgotten = ForgottenUsers::read(home.path()).unwrap();
    let known = ["leaver", "stranger", "asked", "keeper"].map(|user| forgotten.contains(user));
    assert_eq!(known, [true, true, true, false]);
}

#[tokio::test]
async fn one_process_writes_a_log_and_an_unfinished_draft_is_gone() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("00000000000000000001.draft"), "leaver").unwrap();
    let (_log, _, _) = open(home.path());
    assert_eq!(files(home.path()).len(), 1);
    let second = EventLog::open(&config(home.path()), &Registry::new(), Box::new(Told::default())).unwrap_err();
    assert!(matches!(second, EventLogError::Taken(_)), "{second}");
}

#[tokio::test]
async fn closed_files_are_deleted_when_all_they_hold_is_too_old() {
    let home = tempfile::tempdir().unwrap();
    let brief = EventsConfig { segment_bytes: 4096, keep_days: 1, ..config(home.path()) };
    let (log, _, _) = open_with(&brief);
    let filling: Vec<_> = (0..100).map(|at| event("u", &"x".repeat(50), &format!("old-{at}"))).collect();
    // Arrived in 1970, and closes its segment.
    record(&log, &filling).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    for part in 0..2 {
        let filling: Vec<_> = (0..100).map(|at| event("u", &"x".repeat(50), &format!("new-{part}-{at}"))).collect();
        log.record(filling, now).await.unwrap();
    }
    drop(log);
    let (_log, opened, _) = open_with(&brief);
    assert_eq!(opened.events, 200);
}

fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

#[tokio::test]
async fn a_file_that_is_far_from_full_is_closed_by_age_and_deleted_when_it_is_too_old() {
    const HOUR: i64 = 3_600_000;
    let home = tempfile::tempdir().unwrap();
    let brief = EventsConfig { keep_days: 1, ..config(home.path()) };
    let (log, _, _) = open_with(&brief);
    // One within a quarter of a day, and one beyond it that came late from elsewhere.
    log.record(vec![event("u", "young", "e1")], now_ms() - 5 * HOUR).await.unwrap();
    log.record(vec![event("u", "younger", "e2")], now_ms()).await.unwrap();
    assert_eq!(files(home.path()).len(), 1);
    log.record(vec![event("u", "older", "e3")], now_ms() - 7 * HOUR).await.unwrap();
    // Tended between two requests.
    log.record(vec![event("u", "next", "e4")], now_ms()).await.unwrap();
    assert_eq!(files(home.path()).len(), 2);
    drop(log);
    assert_eq!(open_with(&brief).1.events, 4, "the closed file holds a young event");
    let forever = tempfile::tempdir().unwrap();
    let (log, _, _) = open(forever.path());
    record(&log, &[event("u", "of 1970", "e1")]).await;
    record(&log, &[event("u", "of 1970", "e2")]).await;
    assert_eq!(files(forever.path()).len(), 1, "without a retention age closes nothing");
}

#[tokio::test]
async fn an_idle_log_lets_go_of_what_grows_too_old() {
    let home = tempfile::tempdir().unwrap();
    let brief = EventsConfig { keep_days: 1, tend_ms: 10, ..config(home.path()) };
    let (log, _, _) = open_with(&brief);
    // It is a day old in half a second, when nobody asks for anything.
    log.record(vec![event("u", "a", "e1")], now_ms() - 86_400_000 + 500).await.unwrap();
    let began = std::time::Instant::now();
    while files(home.path()).iter().any(|file| file.ends_with("00000000000000000001.events")) {
        assert!(began.elapsed().as_secs() < 60, "the old file stays");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    log.record(vec![event("u", "b", "e2")], now_ms()).await.unwrap();
    drop(log);
    let mut places = Vec::new();
    read(home.path(), &mut |logged| places.push(logged.sequence)).unwrap();
    assert_eq!(places, [2], "a place is given once");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_refuses_and_takes_in_again_when_it_can() {
    // A limit on file sizes would hold for the whole test process; a directory in the next file's place fails the same way.
    let home = tempfile::tempdir().unwrap();
    let small = EventsConfig { segment_bytes: 4096, ..config(home.path()) };
    let (log, _, _) = open_with(&small);
    record(&log, &[event("u", "a", "e1")]).await;
    fs::create_dir(home.path().join("00000000000000000002.events")).unwrap();
    assert_eq!(log.forget("u".into()).await, Err(Refusal::Unwritable));
    assert_eq!(record(&log, &[event("u", "b", "e2")]).await, (1, 0));
    fs::remove_dir(home.path().join("00000000000000000002.events")).unwrap();
    assert_eq!(log.forget("u".into()).await.unwrap().logged_events, 2);
}

#[test]
fn settings_out_of_range_are_named() {
    let wrong = EventsConfig {
        segment_bytes: 1,
        max_queue: 0,
        max_exposure_queue: 0,
        known_ids: 0,
        keep_days: 40_000,
        tend_ms: 0,
        ..EventsConfig::default()
    };
    let wrong: Vec<String> = wrong.validate().unwrap_err().into_iter().map(|wrong| wrong.field).collect();
    assert_eq!(wrong, ["segment_bytes", "max_queue", "max_exposure_queue", "known_ids", "keep_days", "tend_ms"]);
    EventsConfig::default().validate().unwrap();
}

#[tokio::test]
async fn what_stands_after_a_place_is_read_without_the_files_before_it() {
    let home = tempfile::tempdir().unwrap();
    let (log, _, _) = open_with(&EventsConfig { segment_bytes: 4096, ..config(home.path()) });
    for at in 0..20 {
        let events: Vec<UserEvent> = (0..20).map(|nth| event("a", "item", &format!("{at}-{nth}"))).collect();
        record(&log, &events).await;
    }
    drop(log);
    let mut places = Vec::new();
    let segments = read_records(home.path(), &mut |record| places.push(record.sequence())).unwrap();
    assert!(segments > 2 && places.len() == 400, "{segments} files");
    let after = |place: u64| {
        let mut found = Vec::new();
        read_records_after(home.path(), place, &mut |record| found.push(record.sequence())).map(|()| found)
    };
    for place in [0, 1, 57, 200, 399, 400, 9_999] {
        let wanted: Vec<u64> = places.iter().copied().filter(|&found| found > place).collect();
        assert_eq!(after(place).unwrap(), wanted, "after {place}");
    }
    fs::write(&files(home.path())[0], "no log").unwrap();
    assert!(after(0).is_err());
    assert_eq!(after(399).unwrap(), [400]);
}
