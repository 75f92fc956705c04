//! The one thread that writes the log.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use super::Follower;
use super::config::{EventsConfig, Sync};
use super::ids::KnownIds;
use super::log::Refusal;
use super::metrics::EventsMetrics;
use super::record::Logged;
use super::segment::{Segment, SegmentError, sync_directory};
use crate::domain::{Forgotten, Recorded, UserEvent};

/// Most requests that are written together.
const TOGETHER: usize = 1024;
const DAY_MS: i64 = 86_400_000;

/// What the thread is asked.
#[derive(Debug)]
pub(super) enum Command {
    Record { events: Vec<UserEvent>, now_ms: i64, done: oneshot::Sender<Result<Recorded, Refusal>> },
    Forget { user: String, done: oneshot::Sender<Result<Forgotten, Refusal>> },
}

/// One request of those that are written together.
struct Request {
    outcome: Recorded,
    done: oneshot::Sender<Result<Recorded, Refusal>>,
}

/// What the thread owns.
pub(super) struct Writer {
    config: EventsConfig,
    /// Closed ones, oldest first.
    closed: Vec<Segment>,
    active: Segment,
    file: File,
    ids: KnownIds,
    metrics: EventsMetrics,
    follower: Box<dyn Follower>,
    /// A sync failed: nobody knows what the disk holds, until the files are read again.
    broken: bool,
    /// Kept while the log is open.
    _lock: File,
}

/// Works until nobody can ask any more.
pub(super) fn run(mut writer: Writer, mut waiting: mpsc::Receiver<Command>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut next = Some(first);
        while let Some(command) = next.take() {
            match command {
                Command::Forget { user, done } => {
                    // Whoever asked may be gone; the work is done all the same.
                    let _gone = done.send(writer.forget(&user));
                }
                Command::Record { events, now_ms, done } => {
                    let mut batch = Batch::default();
                    batch.add(&writer, events, now_ms, done);
                    while batch.requests.len() < TOGETHER && next.is_none() {
                        match waiting.try_recv() {
                            Ok(Command::Record { events, now_ms, done }) => batch.add(&writer, events, now_ms, done),
                            Ok(other) => next = Some(other),
                            Err(_) => break,
                        }
                    }
                    writer.record(batch);
                }
            }
        }
        writer.tend();
    }
}

/// What is written together.
#[derive(Default)]
struct Batch {
    requests: Vec<Request>,
    /// New events, in order.
    events: Vec<Logged>,
    /// Their ids: a second delivery may stand in the same batch.
    ids: HashSet<String>,
}

impl Batch {
    fn add(
        &mut self,
        writer: &Writer,
        events: Vec<UserEvent>,
        now_ms: i64,
        done: oneshot::Sender<Result<Recorded, Refusal>>,
    ) {
        let mut outcome = Recorded::default();
        for event in events {
            let id = &event.event_id;
            if writer.ids.contains(id) || (!id.is_empty() && !self.ids.insert(id.clone())) {
                outcome.duplicates += 1;
                continue;
            }
            outcome.recorded += 1;
            let sequence = writer.active.last + 1 + self.events.len() as u64;
            self.events.push(Logged { sequence, arrived_ms: now_ms, event });
        }
        self.requests.push(Request { outcome, done });
    }
}

impl Writer {
    /// Goes on where the last segment ends, or begins the first.
    pub(super) fn new(
        config: EventsConfig,
        mut segments: Vec<Segment>,
        ids: KnownIds,
        metrics: EventsMetrics,
        follower: Box<dyn Follower>,
        lock: File,
    ) -> Result<Self, SegmentError> {
        let (active, file) = match segments.pop() {
            Some(mut last) => {
                let file = last.reopen()?;
                (last, file)
            }
            None => Segment::create(&config.path, 1)?,
        };
        let mut writer =
            Self { config, closed: segments, active, file, ids, metrics, follower, broken: false, _lock: lock };
        writer.tend();
        Ok(writer)
    }

    fn record(&mut self, batch: Batch) {
        let outcome = if batch.events.is_empty() { Ok(()) } else { self.write(&batch.events) };
        if let Err(error) = &outcome {
            self.metrics.failed.inc_by(batch.events.len() as u64);
            tracing::error!(path = %self.active.path.display(), %error, events = batch.events.len(), "events are lost to the log and refused");
        } else {
            for logged in &batch.events {
                self.ids.insert(&logged.event.event_id);
                self.metrics.count(logged.event.event.kind);
                self.follower.recorded(&logged.event);
            }
        }
        for Request { outcome: counted, done } in batch.requests {
            if outcome.is_ok() {
                self.metrics.duplicates.inc_by(counted.duplicates as u64);
            }
            // Whoever asked may be gone; the events are in the log all the same.
            let _gone = done.send(outcome.as_ref().map(|()| counted).map_err(|_| Refusal::Unwritable));
        }
    }

    /// Writes all of it, and syncs; or takes back what was written.
    fn write(&mut self, events: &[Logged]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("a sync failed before; a restart reads the files again"));
        }
        let started = Instant::now();
        let mut bytes = Vec::new();
        events.iter().for_each(|logged| logged.write(&mut bytes));
        if let Err(error) = self.file.write_all(&bytes) {
            // Half a record at the end would be damage once another follows it.
            self.broken = self.file.set_len(self.active.bytes).is_err();
            return Err(error);
        }
        if self.config.sync == Sync::Batch
            && let Err(error) = self.file.sync_data()
        {
            self.broken = true;
            return Err(error);
        }
        self.active.bytes += bytes.len() as u64;
        self.active.events += events.len() as u64;
        for logged in events {
            self.active.last = logged.sequence;
            self.active.newest_ms = self.active.newest_ms.max(logged.arrived_ms);
        }
        self.metrics.written.observe(started.elapsed().as_secs_f64());
        self.metrics.together.observe(events.len() as f64);
        Ok(())
    }

    fn forget(&mut self, user: &str) -> Result<Forgotten, Refusal> {
        let outcome = self.rewrite_without(user);
        if outcome.is_ok() {
            self.follower.forgotten(user);
        }
        outcome.map_err(|error| {
            tracing::error!(%error, "a user could not be forgotten");
            Refusal::Unwritable
        })
    }

    fn rewrite_without(&mut self, user: &str) -> Result<Forgotten, SegmentError> {
        // The active segment is closed first, so that only closed ones are written anew.
        if self.active.events > 0 {
            self.roll()?;
        }
        let mut forgotten = Forgotten::default();
        for segment in &mut self.closed {
            let (events, ids) = segment.without(user)?;
            if events > 0 {
                self.ids.remove_all(ids.iter().map(String::as_str));
                forgotten.logged_events += events;
                forgotten.files += 1;
            }
        }
        Ok(forgotten)
    }

    /// Closes the active segment and begins the next.
    fn roll(&mut self) -> Result<(), SegmentError> {
        let (next, file) = Segment::create(&self.config.path, self.active.last + 1)?;
        self.closed.push(std::mem::replace(&mut self.active, next));
        // The closed file's bytes are on disk already where the settings ask for that.
        self.file = file;
        Ok(())
    }

    /// Between batches: begins a new segment when the active one is full, and deletes what is too old.
    fn tend(&mut self) {
        if self.active.bytes >= self.config.segment_bytes
            && self.active.events > 0
            && let Err(error) = self.roll()
        {
            tracing::error!(%error, "the event log stays with its full segment");
        }
        if let Err(error) = self.delete_old() {
            tracing::error!(%error, "an old segment of the event log stays");
        }
        let segments = self.closed.len() + 1;
        self.metrics.segments.set(segments as i64);
        let bytes: u64 = self.closed.iter().map(|segment| segment.bytes).sum();
        self.metrics.bytes.set((bytes + self.active.bytes) as i64);
    }

    fn delete_old(&mut self) -> io::Result<()> {
        if self.config.keep_days == 0 {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let oldest = now - i64::from(self.config.keep_days) * DAY_MS;
        let before = self.closed.len();
        // From the front only: an event is never older in the log than one before it that stays.
        while let Some(first) = self.closed.first().filter(|segment| segment.newest_ms < oldest) {
            fs::remove_file(&first.path)?;
            self.closed.remove(0);
        }
        if self.closed.len() < before { sync_directory(&self.config.path) } else { Ok(()) }
    }
}
