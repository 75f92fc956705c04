//! The log as others see it: opened, written to through its thread, read from files.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Instant;

use prometheus::Registry;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::config::EventsConfig;
use super::exposure_queue::{self, ExposureSender};
use super::forgotten::ForgottenList;
use super::ids::KnownIds;
use super::metrics::EventsMetrics;
use super::record::{Logged, Record};
use super::segment::{self, Segment, SegmentError, io_error};
use super::writer::{Command, Known, Writer};
use super::{Follower, writer};
use crate::domain::{Exposure, Forgotten, Recorded, UserEvent};

/// The file that names the log.
const NAME: &str = "name";
/// Held by whoever writes the log.
const LOCK: &str = "lock";

/// Why the log cannot be opened.
#[derive(Debug, Error)]
pub enum EventLogError {
    /// Its files.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// Another process writes it.
    #[error("{}: another process has this event log open", .0.display())]
    Taken(PathBuf),
    /// The metrics are registered already.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The system gave no thread.
    #[error("the writer's thread: {0}")]
    Thread(std::io::Error),
}

/// Why something was not recorded or forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// More requests wait than are allowed.
    #[error("too many requests wait for the event log")]
    Full,
    /// The log cannot be written; the process's log says why.
    #[error("the event log cannot be written")]
    Unwritable,
}

/// What opening found.
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    /// Events in the log.
    pub events: u64,
    /// Exposures in the log.
    pub exposures: u64,
    /// Its files.
    pub segments: usize,
    /// Bytes at the end of the last file that were no whole record, and are gone. Never acknowledged ones.
    pub cut: u64,
    /// How long reading took, in seconds.
    pub seconds: f64,
}

/// The log's handle. Dropping it lets what waits be written, and waits for that.
#[derive(Debug)]
pub struct EventLog {
    commands: Option<mpsc::Sender<Command>>,
    exposures: ExposureSender,
    name: String,
    thread: Option<JoinHandle<()>>,
}

impl EventLog {
    /// Opens the log in `config.path`, which is made when it is not there, and tells `follower` all that it holds. Reads
    /// every file: not for an async task. The config is taken as valid.
    ///
    /// # Errors
    /// When another process has it open, when a file cannot be read, or holds damage that no cut-off write explains.
    pub fn open(
        config: &EventsConfig,
        registry: &Registry,
        mut follower: Box<dyn Follower>,
    ) -> Result<(Self, Opened), EventLogError> {
        let started = Instant::now();
        let metrics = EventsMetrics::new(registry)?;
        let directory = &config.path;
        fs::create_dir_all(directory).map_err(io_error(directory))?;
        let lock = lock(directory)?;
        let name = name(directory)?;
        segment::clear_drafts(directory)?;
        let mut ids = KnownIds::new(config.known_ids);
        let mut segments = Vec::new();
        let paths = segment::list(directory)?;
        let mut cut = 0;
        for (at, path) in paths.iter().enumerate() {
            let last = at + 1 == paths.len();
            let segment = Segment::scan(path, last, &mut |record| {
                if let Record::Event(logged) = record {
                    ids.insert(&logged.event.event_id);
                    follower.recorded(&logged);
                }
            })?;
            let whole = fs::metadata(path).map_err(io_error(path))?.len();
            cut += whole - segment.bytes;
            segments.push(segment);
        }
        let opened = Opened {
            events: segments.iter().map(|segment| segment.events).sum(),
            exposures: segments.iter().map(|segment| segment.exposures).sum(),
            segments: segments.len(),
            cut,
            seconds: started.elapsed().as_secs_f64(),
        };
        let dropped = metrics.exposures_dropped.clone();
        let (exposures, shown) = exposure_queue::queue(config.max_exposure_queue, dropped);
        let known = Known { ids, forgotten: ForgottenList::open(directory)? };
        let writer = Writer::new(config.clone(), segments, known, metrics, follower, lock)?;
        let (commands, waiting) = mpsc::channel(config.max_queue);
        let clock =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(EventLogError::Thread)?;
        let thread = std::thread::Builder::new()
            .name("event-log".into())
            .spawn(move || writer::run(writer, waiting, shown, &clock));
        let thread = thread.map_err(EventLogError::Thread)?;
        Ok((Self { commands: Some(commands), exposures, name, thread: Some(thread) }, opened))
    }

    /// What the log is called, unlike any other: made up when it began.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Records the events that the log does not hold yet, all or none; resolves when they are durable and the follower
    /// was told. Dropping the future does not take them back. `now_ms`: when they arrived, in Unix milliseconds.
    ///
    /// # Errors
    /// See [`Refusal`]. The events may be sent again as they are.
    pub async fn record(&self, events: Vec<UserEvent>, now_ms: i64) -> Result<Recorded, Refusal> {
        let (done, outcome) = oneshot::channel();
        self.send(Command::Record { events, now_ms, done })?;
        outcome.await.unwrap_or(Err(Refusal::Unwritable))
    }

    /// Leaves an exposure for the writer; never waits. When too many wait already, or when it cannot be written, it is
    /// dropped and counted. Written, it survives the end of the process; that of the machine once an event after it is
    /// acknowledged. `now_ms`: when the answer was given, in Unix milliseconds.
    pub fn expose(&self, exposure: Exposure, now_ms: i64) {
        if let Some(commands) = &self.commands {
            self.exposures.send(now_ms, exposure, commands);
        }
    }

    /// Writes down exposures of other servers, which were given at these times; resolves when they are durable. Whoever reads
    /// the log counts a request once, so that they may be sent again.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub(super) async fn take_exposures(&self, exposures: Vec<(i64, Exposure)>) -> Result<(), Refusal> {
        let (done, outcome) = oneshot::channel();
        self.send(Command::Exposed { exposures, done })?;
        outcome.await.unwrap_or(Err(Refusal::Unwritable))
    }

    /// Takes every event and exposure of the user out of the log's files, and tells the follower; resolves when that is
    /// durable. The log remembers a hash of the user's id ([`ForgottenUsers`](super::ForgottenUsers)).
    ///
    /// # Errors
    /// See [`Refusal`]. A user may then be forgotten in part, and be forgotten again.
    pub async fn forget(&self, user: String) -> Result<Forgotten, Refusal> {
        let (done, outcome) = oneshot::channel();
        self.send(Command::Forget { user, done })?;
        outcome.await.unwrap_or(Err(Refusal::Unwritable))
    }

    /// [`Self::forget`] of users whom another server was asked to forget, by the hashes of their ids.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn forget_hashed(&self, hashes: HashSet<String>) -> Result<(), Refusal> {
        let (done, outcome) = oneshot::channel();
        self.send(Command::ForgetHashed { hashes, done })?;
        outcome.await.unwrap_or(Err(Refusal::Unwritable))
    }

    fn send(&self, command: Command) -> Result<(), Refusal> {
        let commands = self.commands.as_ref().ok_or(Refusal::Unwritable)?;
        commands.try_send(command).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Refusal::Full,
            mpsc::error::TrySendError::Closed(_) => Refusal::Unwritable,
        })
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        // The thread ends when nobody can send any more and all that waited is done.
        self.commands.take();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the event log's thread panicked");
        }
    }
}

/// Reads the events of a log's files; see [`read_records`].
///
/// # Errors
/// As [`read_records`].
pub fn read(directory: &Path, take: &mut dyn FnMut(Logged)) -> Result<usize, SegmentError> {
    read_records(directory, &mut |record| {
        if let Record::Event(logged) = record {
            take(logged);
        }
    })
}

/// Reads a log's files, oldest record first, and answers how many they are; what a write left unfinished at the end is
/// not told. Nothing is changed, so that a log that a server writes may be read beside it.
///
/// # Errors
/// When a file cannot be read or is damaged elsewhere.
pub fn read_records(directory: &Path, take: &mut dyn FnMut(Record)) -> Result<usize, SegmentError> {
    let paths = segment::list(directory)?;
    for (at, path) in paths.iter().enumerate() {
        Segment::scan(path, at + 1 == paths.len(), take)?;
    }
    Ok(paths.len())
}

/// [`read_records`] of what stands after `place`. Files that hold only what comes before are not opened.
///
/// # Errors
/// As [`read_records`].
pub fn read_records_after(directory: &Path, place: u64, take: &mut dyn FnMut(Record)) -> Result<(), SegmentError> {
    let paths = segment::list(directory)?;
    let begins = |path: &PathBuf| segment::first_place(path).is_some_and(|first| first <= place.saturating_add(1));
    let from = paths.iter().rposition(begins).unwrap_or(0);
    for (at, path) in paths.iter().enumerate().skip(from) {
        Segment::scan(path, at + 1 == paths.len(), &mut |record| {
            if record.sequence() > place {
                take(record);
            }
        })?;
    }
    Ok(())
}

/// What the log in `directory` is called, as [`EventLog::name`]; none for one that nobody has written since logs have names.
///
/// # Errors
/// When that cannot be read.
pub fn read_name(directory: &Path) -> Result<Option<String>, SegmentError> {
    let path = directory.join(NAME);
    match fs::read_to_string(&path) {
        // One that is empty was never told to anybody.
        Ok(name) => Ok(Some(name).filter(|name| !name.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(&path)(error)),
    }
}

/// The log's name; made up for a new one. Called by whoever holds the lock.
fn name(directory: &Path) -> Result<String, EventLogError> {
    if let Some(name) = read_name(directory)? {
        return Ok(name);
    }
    let path = directory.join(NAME);
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| io_error(&path)(std::io::Error::other(error.to_string())))?;
    let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(name.as_bytes())?;
        file.sync_all()
    });
    written.and_then(|()| segment::sync_directory(directory)).map_err(io_error(&path))?;
    Ok(name)
}

/// One process writes a log. The lock goes with the process, however that ends.
fn lock(directory: &Path) -> Result<File, EventLogError> {
    let path = directory.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io_error(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(EventLogError::Taken(directory.to_owned())),
        Err(fs::TryLockError::Error(reason)) => Err(SegmentError::Io { path, reason }.into()),
    }
}
