//! From the event log into a history store that may be slow, or away for a while. The log says what happened: whatever the
//! store has missed is read from there again, from the place that the store remembers.
//!
//! The log's writer hands over what it wrote and waits a moment, so that the next request sees it. Where the store does
//! not follow in that moment, the writer goes on without it, and the feed reads the log's files until both agree again.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::{mpsc, oneshot};

use crate::events::{Follower, Logged, Record, read_records_after};
use crate::history::{HistoryStore, Mark, Noted, Place, StoreError};

/// How often a store that failed is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long after the last event a store is asked whether it still holds what it was given.
const STILL: Duration = Duration::from_secs(5);
/// Events that are read from the log and written to the store together.
const TOGETHER: usize = 2048;
/// Batches that wait for the store.
const WAITING: usize = 64;

/// What the writer and the feed share.
#[derive(Debug, Default)]
struct Shared {
    /// Set once the log is open.
    log: OnceLock<String>,
    /// The place of the last event that is in the log for sure.
    acknowledged: AtomicU64,
    /// The store is behind: the writer hands nothing over, as the feed reads the files.
    behind: AtomicBool,
}

enum Message {
    Recorded { after: u64, last: u64, events: Vec<Noted>, done: SyncSender<()> },
    Forget { user: String, done: oneshot::Sender<Result<usize, StoreError>> },
}

/// What the log's writer tells.
pub(super) struct Told {
    shared: Arc<Shared>,
    messages: mpsc::Sender<Message>,
    /// How long the writer waits for the store.
    patience: Duration,
    batch: Vec<Noted>,
    /// The place of the last event that was told.
    last: u64,
    /// And of the last one before the batch.
    before: u64,
}

/// Where a user is forgotten.
#[derive(Debug, Clone)]
pub(super) struct FeedHandle {
    messages: mpsc::Sender<Message>,
}

/// The feed itself: one task.
pub(super) struct Feed {
    store: Arc<dyn HistoryStore>,
    directory: PathBuf,
    shared: Arc<Shared>,
    messages: mpsc::Receiver<Message>,
    /// How far the store has followed. None: it must be asked, as it could not be yet, or as it failed, and what it held
    /// may have gone with that.
    applied: Option<u64>,
    /// How far it had followed when that was last known.
    followed: u64,
    metrics: FeedMetrics,
}

#[derive(Debug)]
struct FeedMetrics {
    lag: IntGauge,
    written: IntCounterVec,
}

impl FeedMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let lag = IntGauge::new(
            "reg4rec_history_lag_events",
            "Places of the event log that the history store has not followed yet",
        )?;
        let written = IntCounterVec::new(
            Opts::new("reg4rec_history_writes_total", "Batches written to the history store"),
            &["result"],
        )?;
        ["ok", "error"].iter().for_each(|result| drop(written.with_label_values(&[result])));
        registry.register(Box::new(lag.clone()))?;
        registry.register(Box::new(written.clone()))?;
        Ok(Self { lag, written })
    }
}

/// A feed from the log in `directory` into the store, and what the log's writer is to be given.
pub(super) fn feed(
    store: Arc<dyn HistoryStore>,
    directory: PathBuf,
    patience: Duration,
    registry: &Registry,
) -> Result<(Told, FeedHandle, Feed), prometheus::Error> {
    let (sender, messages) = mpsc::channel(WAITING);
    let shared = Arc::<Shared>::default();
    let metrics = FeedMetrics::new(registry)?;
    let told =
        Told { shared: Arc::clone(&shared), messages: sender.clone(), patience, batch: Vec::new(), last: 0, before: 0 };
    let feed = Feed { store, directory, shared, messages, applied: None, followed: 0, metrics };
    Ok((told, FeedHandle { messages: sender }, feed))
}

impl Follower for Told {
    fn recorded(&mut self, logged: &Logged) {
        self.last = logged.sequence;
        match self.shared.log.get() {
            Some(log) => self.batch.push(noted(log, logged)),
            // The log is being opened: the feed reads it for itself, from where the store is.
            None => {
                self.before = self.last;
                self.shared.acknowledged.store(self.last, Ordering::SeqCst);
            }
        }
    }

    fn settled(&mut self) {
        let events = std::mem::take(&mut self.batch);
        if events.is_empty() {
            return;
        }
        let (after, last) = (std::mem::replace(&mut self.before, self.last), self.last);
        self.shared.acknowledged.store(last, Ordering::SeqCst);
        if self.shared.behind.load(Ordering::SeqCst) {
            return;
        }
        let (done, followed) = sync_channel(1);
        let full = self.messages.try_send(Message::Recorded { after, last, events, done }).is_err();
        if full || followed.recv_timeout(self.patience) == Err(RecvTimeoutError::Timeout) {
            self.shared.behind.store(true, Ordering::SeqCst);
        }
    }

    /// The store is told by whoever asked for it, after the log: see [`FeedHandle::forget`].
    fn forgotten(&mut self, _user: &str) {}

    /// Here nobody asks the store. Behind all that was recorded before; where the feed has ended there is no store.
    fn forgotten_elsewhere(&mut self, users: &[String], _: &dyn Fn(&str) -> bool) {
        for user in users {
            let (done, _) = oneshot::channel();
            let _ended = self.messages.blocking_send(Message::Forget { user: user.clone(), done });
        }
    }
}

impl FeedHandle {
    /// Removes what the store holds of the user, behind all that was recorded before. Answers how many events that was.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub(super) async fn forget(&self, user: String) -> Result<usize, StoreError> {
        let ended = || StoreError::Away("the server ends".to_owned());
        let (done, outcome) = oneshot::channel();
        self.messages.send(Message::Forget { user, done }).await.map_err(|_| ended())?;
        outcome.await.unwrap_or_else(|_| Err(ended()))
    }
}

impl Feed {
    /// The log is open under this name. Lets the store follow to its end; an error says that it does not yet.
    pub(super) async fn begin(&mut self, log: String) -> Result<(), String> {
        // A feed begins once.
        let _first = self.shared.log.set(log);
        let outcome = self.catch_up().await;
        self.shared.behind.store(outcome.is_err(), Ordering::SeqCst);
        outcome
    }

    /// Follows until the log is closed.
    pub(super) async fn run(mut self) {
        loop {
            let behind = self.shared.behind.load(Ordering::SeqCst);
            let patience = if behind { AGAIN } else { STILL };
            match tokio::time::timeout(patience, self.messages.recv()).await {
                Ok(None) => return,
                Ok(Some(Message::Forget { user, done })) => {
                    // Whoever asked may be gone; the work is done all the same.
                    if let Err(Err(error)) = done.send(self.store.remove(&user).await) {
                        tracing::error!(%error, "a history stays in the store, whose user was forgotten elsewhere");
                    }
                }
                Ok(Some(Message::Recorded { after, last, events, done })) if !behind => {
                    if self.take(after, last, events).await {
                        // The writer may have gone on without.
                        let _gone = done.try_send(());
                    }
                }
                // It is in the files that are read.
                Ok(Some(Message::Recorded { .. })) => {}
                Err(_) if behind => self.try_again().await,
                Err(_) => self.look().await,
            }
            self.metrics.lag.set(i64::try_from(self.lag()).unwrap_or(i64::MAX));
        }
    }

    fn lag(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst).saturating_sub(self.followed)
    }

    /// Writes what came, and before it what is missing. False: the store did not take it.
    async fn take(&mut self, after: u64, last: u64, events: Vec<Noted>) -> bool {
        let outcome = match self.applied {
            // Read from the files meanwhile.
            Some(applied) if applied >= last => Ok(()),
            Some(applied) if applied >= after => self.write(&events, last).await,
            _ => self.catch_up().await,
        };
        if let Err(reason) = &outcome {
            tracing::warn!(reason, "the history store does not follow the event log; it will be fed from there");
            self.shared.behind.store(true, Ordering::SeqCst);
        }
        outcome.is_ok()
    }

    /// Notices that the store lost what it held while nothing happened.
    async fn look(&mut self) {
        let log = self.shared.log.get().map_or("", String::as_str);
        // One that does not answer is noticed with the next event.
        if let Ok(found) = self.store.place(log).await
            && found < self.followed
        {
            tracing::warn!(found, followed = self.followed, "the history store lost what it held; it is fed anew");
            self.applied = None;
            self.shared.behind.store(true, Ordering::SeqCst);
        }
    }

    async fn try_again(&mut self) {
        if let Err(reason) = self.catch_up().await {
            tracing::debug!(reason, "the history store does not follow yet");
            return;
        }
        self.shared.behind.store(false, Ordering::SeqCst);
        // The writer may have looked just before, and handed nothing over.
        if self.lag() > 0 {
            self.shared.behind.store(true, Ordering::SeqCst);
        } else {
            tracing::info!("the history store has followed the event log to its end");
        }
    }

    /// Reads the log from where the store is to what was acknowledged, and writes it.
    async fn catch_up(&mut self) -> Result<(), String> {
        let log = self.shared.log.get().cloned().unwrap_or_default();
        loop {
            let applied = match self.applied {
                Some(applied) => applied,
                None => self.store.place(&log).await.map_err(|error| error.to_string())?,
            };
            (self.applied, self.followed) = (Some(applied), applied);
            let until = self.shared.acknowledged.load(Ordering::SeqCst);
            if applied >= until {
                return Ok(());
            }
            let (chunks, mut read) = mpsc::channel(2);
            let directory = self.directory.clone();
            let reading = tokio::task::spawn_blocking(move || send_chunks(&directory, applied, until, &chunks));
            while let Some(chunk) = read.recv().await {
                let chunk: Vec<Logged> = chunk;
                let Some(last) = chunk.last().map(|logged| logged.sequence) else { continue };
                let events: Vec<Noted> = chunk.iter().map(|logged| noted(&log, logged)).collect();
                self.write(&events, last).await?;
            }
            reading.await.map_err(|error| error.to_string())??;
            // What is no longer there, as of forgotten users, has been passed as well.
            (self.applied, self.followed) = (Some(until), until);
        }
    }

    async fn write(&mut self, events: &[Noted], last: u64) -> Result<(), String> {
        let log = self.shared.log.get().map_or("", String::as_str);
        let after = self.applied.take().unwrap_or(0);
        let outcome = self.store.append(events, Some(Place { log, after, last })).await;
        self.metrics.written.with_label_values(&[if outcome.is_ok() { "ok" } else { "error" }]).inc();
        outcome.map_err(|error| error.to_string())?;
        (self.applied, self.followed) = (Some(last), last);
        Ok(())
    }
}

/// Reads the events after `applied` up to `until` and sends them on; stops sending when nobody takes them.
fn send_chunks(
    directory: &std::path::Path,
    applied: u64,
    until: u64,
    chunks: &mpsc::Sender<Vec<Logged>>,
) -> Result<(), String> {
    let mut chunk = Vec::new();
    let mut taken = true;
    let outcome = read_records_after(directory, applied, &mut |record| match record {
        Record::Event(logged) if taken && logged.sequence <= until => {
            chunk.push(logged);
            if chunk.len() == TOGETHER {
                taken = chunks.blocking_send(std::mem::take(&mut chunk)).is_ok();
            }
        }
        Record::Event(_) | Record::Exposure(_) => {}
    });
    if taken && !chunk.is_empty() {
        // Nobody may be there to take it: then what is missing is read again.
        let _gone = chunks.blocking_send(chunk);
    }
    outcome.map_err(|error| error.to_string())
}

fn noted(log: &str, logged: &Logged) -> Noted {
    let Logged { sequence, event, .. } = logged;
    Noted {
        user: event.user_id.clone(),
        mark: Mark::of(event, log, *sequence),
        order: *sequence,
        event: event.event.clone(),
    }
}
