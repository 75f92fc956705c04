//! The one thread that writes the log.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Follower;
use super::config::{EventsConfig, Sync};
use super::exposure_queue::ExposureReceiver;
use super::forgotten::{ForgottenList, hex};
use super::ids::KnownIds;
use super::log::{Refusal, read_records};
use super::metrics::EventsMetrics;
use super::record::{Exposed, Logged, Record};
use super::segment::{Removed, Segment, SegmentError, io_error, sync_directory};
use super::table;
use crate::domain::{Exposure, Forgotten, Recorded, UserEvent};

/// Most requests that are written together, ...
const TOGETHER: usize = 1024;
/// ... and how many events there may be before one more request joins them.
const FULL: usize = 16_384;
const DAY_MS: i64 = 86_400_000;

/// What the thread is asked.
#[derive(Debug)]
pub(super) enum Command {
    Record {
        events: Vec<UserEvent>,
        now_ms: i64,
        done: oneshot::Sender<Result<Recorded, Refusal>>,
    },
    Forget {
        user: String,
        done: oneshot::Sender<Result<Forgotten, Refusal>>,
    },
    /// The users whose ids have these hashes.
    ForgetHashed {
        hashes: HashSet<String>,
        done: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Exposures wait in their own queue.
    Expose,
    /// Exposures that somebody waits for.
    Exposed {
        exposures: Vec<(i64, Exposure)>,
        done: oneshot::Sender<Result<(), Refusal>>,
    },
}

/// One request of those that are written together.
struct Request {
    outcome: Recorded,
    done: oneshot::Sender<Result<Recorded, Refusal>>,
}

/// What the log remembers beside its events.
pub(super) struct Known {
    pub(super) ids: KnownIds,
    pub(super) forgotten: ForgottenList,
}

/// What the thread owns.
pub(super) struct Writer {
    config: EventsConfig,
    /// Closed ones, oldest first.
    closed: Vec<Segment>,
    /// Of the closed ones, from the first, those that were looked at for their table.
    tabled: usize,
    active: Segment,
    file: File,
    ids: KnownIds,
    forgotten: ForgottenList,
    metrics: EventsMetrics,
    follower: Box<dyn Follower>,
    /// A sync failed: nobody knows what the disk holds, until the files are read again.
    broken: bool,
    /// Exposures were written that no sync has followed yet.
    unsynced: bool,
    /// The last exposures could not be written: said once.
    losing: bool,
    /// Kept while the log is open.
    _lock: File,
}

/// Works until nobody can ask any more. `clock` is the thread's own, for waiting with an end.
pub(super) fn run(
    mut writer: Writer,
    mut waiting: mpsc::Receiver<Command>,
    mut shown: ExposureReceiver,
    clock: &Runtime,
) {
    let pause = Duration::from_millis(writer.config.tend_ms);
    loop {
        let mut next = match clock.block_on(async { timeout(pause, waiting.recv()).await }) {
            Ok(Some(first)) => Some(first),
            Ok(None) => break,
            // Nobody asked anything: what is there grows old all the same.
            Err(_) => None,
        };
        while let Some(command) = next.take() {
            match command {
                Command::Forget { user, done } => {
                    // What was shown before is in a file by then, to be found there.
                    writer.expose(&mut shown);
                    // Whoever asked may be gone; the work is done all the same.
                    let _gone = done.send(writer.forget(&user));
                }
                Command::ForgetHashed { hashes, done } => {
                    writer.expose(&mut shown);
                    let _gone = done.send(writer.forget_hashed(&hashes));
                }
                Command::Record { events, now_ms, done } => {
                    let mut batch = Batch::default();
                    batch.add(&writer, events, now_ms, done);
                    while batch.has_room() && next.is_none() {
                        match waiting.try_recv() {
                            Ok(Command::Record { events, now_ms, done }) => batch.add(&writer, events, now_ms, done),
                            // They are looked for below anyway, and events go on sharing a sync.
                            Ok(Command::Expose) => {}
                            Ok(other) => next = Some(other),
                            Err(_) => break,
                        }
                    }
                    writer.record(batch);
                }
                Command::Expose => {}
                Command::Exposed { exposures, done } => {
                    let outcome = writer.write_exposures(exposures).and_then(|()| writer.settle());
                    // Whoever asked may be gone; they may come again.
                    let _gone = done.send(outcome.map_err(|_| Refusal::Unwritable));
                }
            }
        }
        writer.expose(&mut shown);
        writer.tend();
    }
    writer.expose(&mut shown);
    if let Err(error) = writer.settle() {
        tracing::error!(%error, "the event log's last exposures may not be on disk");
    }
}

/// What is written together.
#[derive(Default)]
struct Batch {
    requests: Vec<Request>,
    /// New events, in order.
    events: Vec<Record>,
    /// Their ids: a second delivery may stand in the same batch.
    ids: HashSet<String>,
}

impl Batch {
    fn has_room(&self) -> bool {
        self.requests.len() < TOGETHER && self.events.len() < FULL
    }

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
            self.events.push(Record::Event(Logged { sequence, arrived_ms: now_ms, event }));
        }
        self.requests.push(Request { outcome, done });
    }
}

impl Writer {
    /// Goes on where the last segment ends, or begins the first.
    pub(super) fn new(
        config: EventsConfig,
        mut segments: Vec<Segment>,
        Known { ids, forgotten }: Known,
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
        let mut writer = Self {
            config,
            closed: segments,
            tabled: 0,
            active,
            file,
            ids,
            forgotten,
            metrics,
            follower,
            broken: false,
            unsynced: false,
            losing: false,
            _lock: lock,
        };
        writer.tend();
        Ok(writer)
    }

    fn record(&mut self, batch: Batch) {
        let outcome = if batch.events.is_empty() { Ok(()) } else { self.write_events(&batch.events) };
        if let Err(error) = &outcome {
            self.metrics.failed.inc_by(batch.events.len() as u64);
            tracing::error!(path = %self.active.path.display(), %error, events = batch.events.len(), "events are lost to the log and refused");
        } else {
            for record in &batch.events {
                let Record::Event(logged) = record else { continue };
                self.ids.insert(&logged.event.event_id);
                self.metrics.count(logged.event.event.kind);
                self.follower.recorded(logged);
            }
            self.follower.settled();
        }
        for Request { outcome: counted, done } in batch.requests {
            if outcome.is_ok() {
                self.metrics.duplicates.inc_by(counted.duplicates as u64);
            }
            // Whoever asked may be gone; the events are in the log all the same.
            let _gone = done.send(outcome.as_ref().map(|()| counted).map_err(|_| Refusal::Unwritable));
        }
    }

    /// Writes events, so that they last as long as the settings ask.
    fn write_events(&mut self, events: &[Record]) -> io::Result<()> {
        let started = Instant::now();
        let before = self.active.clone();
        self.write(events)?;
        if let Err(error) = self.sync() {
            // Not acknowledged; whether they are in the file a restart finds out.
            self.active = before;
            return Err(error);
        }
        self.metrics.written.observe(started.elapsed().as_secs_f64());
        self.metrics.together.observe(events.len() as f64);
        Ok(())
    }

    /// Writes the exposures that wait. They are synced with the next events: nobody waits for them, and events should not
    /// wait for their sync.
    fn expose(&mut self, shown: &mut ExposureReceiver) {
        let waiting = shown.take();
        if !waiting.is_empty() {
            // Told and counted; nobody waits.
            let _lost = self.write_exposures(waiting);
        }
    }

    fn write_exposures(&mut self, waiting: Vec<(i64, Exposure)>) -> io::Result<()> {
        let first = self.active.last + 1;
        let record = |(sequence, (arrived_ms, exposure))| Record::Exposure(Exposed { sequence, arrived_ms, exposure });
        let (records, long): (Vec<_>, Vec<_>) = (first..).zip(waiting).map(record).partition(|record| record.fits());
        let outcome = self.write(&records);
        let written = if outcome.is_ok() { records.len() } else { 0 };
        self.unsynced |= written > 0;
        self.metrics.exposures.inc_by(written as u64);
        self.metrics.exposures_dropped.inc_by((records.len() + long.len() - written) as u64);
        if let (Err(error), false) = (&outcome, self.losing) {
            tracing::error!(path = %self.active.path.display(), %error, "exposures are lost to the log, until it can be written");
        }
        self.losing = outcome.is_err();
        outcome
    }

    /// Appends all of it to the active segment, or nothing.
    fn write(&mut self, records: &[Record]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("a sync failed before; a restart reads the files again"));
        }
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.write(&mut bytes));
        if let Err(error) = self.file.write_all(&bytes) {
            // Half a record at the end would be damage once another follows it.
            self.broken = self.file.set_len(self.active.bytes).is_err();
            return Err(error);
        }
        self.active.bytes += bytes.len() as u64;
        records.iter().for_each(|record| self.active.count(record));
        Ok(())
    }

    /// Waits until the disk holds the active segment, where the settings ask for that.
    fn sync(&mut self) -> io::Result<()> {
        if self.config.sync == Sync::Batch {
            self.file.sync_data().inspect_err(|_| self.broken = true)?;
        }
        self.unsynced = false;
        Ok(())
    }

    /// Syncs exposures that no event has followed.
    fn settle(&mut self) -> io::Result<()> {
        if self.unsynced && !self.broken { self.sync() } else { Ok(()) }
    }

    fn forget(&mut self, user: &str) -> Result<Forgotten, Refusal> {
        let outcome = self.forgotten.add(&[hex(user.as_bytes())]).and_then(|()| self.rewrite_without(user));
        if outcome.is_ok() {
            self.follower.forgotten(user);
        }
        outcome.map_err(|error| not_forgotten(&error))
    }

    fn forget_hashed(&mut self, hashes: &HashSet<String>) -> Result<(), Refusal> {
        let outcome = self.forgotten.add(hashes).and_then(|()| {
            let users = self.users_of(hashes)?;
            users.iter().try_for_each(|user| self.rewrite_without(user).map(drop))?;
            Ok(users)
        });
        let users = outcome.map_err(|error| not_forgotten(&error))?;
        self.follower.forgotten_elsewhere(&users, &|user| hashes.contains(&hex(user.as_bytes())));
        Ok(())
    }

    /// The users in the log whose ids have these hashes.
    fn users_of(&self, hashes: &HashSet<String>) -> Result<Vec<String>, SegmentError> {
        let (mut users, mut seen) = (Vec::new(), HashSet::new());
        read_records(&self.config.path, &mut |record| {
            let user = record.user_id();
            if !seen.contains(user) {
                seen.insert(user.to_owned());
                users.extend(hashes.contains(&hex(user.as_bytes())).then(|| user.to_owned()));
            }
        })?;
        Ok(users)
    }

    fn rewrite_without(&mut self, user: &str) -> Result<Forgotten, SegmentError> {
        // The active segment is closed first, so that only closed ones are written anew.
        if !self.active.is_empty() {
            self.roll()?;
        }
        let mut forgotten = Forgotten::default();
        // Those of segments that are written anew go.
        self.tabled = 0;
        for segment in &mut self.closed {
            let Removed { events, exposures, ids } = segment.without(user)?;
            if events + exposures > 0 {
                self.ids.remove_all(ids.iter().map(String::as_str));
                forgotten.logged_events += events;
                forgotten.logged_exposures += exposures;
                forgotten.files += 1;
            }
        }
        Ok(forgotten)
    }

    /// Closes the active segment and begins the next.
    fn roll(&mut self) -> Result<(), SegmentError> {
        self.settle().map_err(io_error(&self.active.path.clone()))?;
        let (next, file) = Segment::create(&self.config.path, self.active.last + 1)?;
        self.closed.push(std::mem::replace(&mut self.active, next));
        // The closed file's bytes are on disk already where the settings ask for that.
        self.file = file;
        Ok(())
    }

    /// Between batches, and now and then without any: begins a new segment when the active one is full or reaches far back,
    /// and deletes what is too old.
    fn tend(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let keep = i64::from(self.config.keep_days) * DAY_MS;
        // A segment goes as a whole: so nothing is kept for longer than a quarter, or a day, beyond what is asked for.
        let reaches_back = keep > 0 && self.active.oldest_ms < now.saturating_sub((keep / 4).min(DAY_MS));
        if (self.active.bytes >= self.config.segment_bytes || reaches_back)
            && !self.active.is_empty()
            && let Err(error) = self.roll()
        {
            tracing::error!(%error, "the event log stays with its full or old segment");
        }
        if let Err(error) = self.delete_older(now.saturating_sub(keep)) {
            tracing::error!(%error, "an old segment of the event log stays");
        }
        if self.config.parquet
            && let Err(error) = self.write_tables()
        {
            tracing::error!(%error, "a closed segment of the event log has no table");
        }
        let segments = self.closed.len() + 1;
        self.metrics.segments.set(segments as i64);
        let bytes: u64 = self.closed.iter().map(|segment| segment.bytes).sum();
        self.metrics.bytes.set((bytes + self.active.bytes) as i64);
    }

    /// Writes the tables of closed segments that have none.
    fn write_tables(&mut self) -> Result<(), SegmentError> {
        while let Some(segment) = self.closed.get(self.tabled) {
            // One that cannot be written is left to the next opening: to read its segment at every batch would stop the log.
            self.tabled += 1;
            if !table::path(&segment.path).exists() {
                table::write(&segment.path)?;
            }
        }
        Ok(())
    }

    fn delete_older(&mut self, oldest: i64) -> io::Result<()> {
        if self.config.keep_days == 0 {
            return Ok(());
        }
        let before = self.closed.len();
        // From the front only: an event is never older in the log than one before it that stays.
        while let Some(first) = self.closed.first().filter(|segment| segment.newest_ms < oldest) {
            table::remove(&first.path)?;
            fs::remove_file(&first.path)?;
            self.closed.remove(0);
            self.tabled = self.tabled.saturating_sub(1);
        }
        if self.closed.len() < before { sync_directory(&self.config.path) } else { Ok(()) }
    }
}

fn not_forgotten(error: &SegmentError) -> Refusal {
    tracing::error!(%error, "a user could not be forgotten");
    Refusal::Unwritable
}
