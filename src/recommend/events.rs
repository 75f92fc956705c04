//! Events that arrive while the service runs: into the log, and from there into the histories. What experiments showed
//! goes into the log too, for their report.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::Registry;

use crate::domain::{Exposure, Failure, Forgotten, Overload, Recorded, UserEvent};
use crate::events::{EventLog, EventLogError, EventsConfig, Follower, Opened, Refusal};
use crate::history::HistoryStore;

/// Takes events down. Clones share everything.
#[derive(Debug, Clone)]
pub struct Recorder {
    log: Arc<EventLog>,
}

impl Recorder {
    /// Opens the log and fills `histories` with what it holds. Not for an async task. None: the settings name no log.
    ///
    /// # Errors
    /// See [`EventLog::open`].
    pub fn open(
        config: &EventsConfig,
        histories: Arc<HistoryStore>,
        registry: &Registry,
    ) -> Result<Option<(Self, Opened)>, EventLogError> {
        if config.path == Path::new("") {
            return Ok(None);
        }
        let (log, opened) = EventLog::open(config, registry, Box::new(Histories(histories)))?;
        Ok(Some((Self { log: Arc::new(log) }, opened)))
    }

    /// Takes the events down; when this resolves they are in the log and in the histories.
    ///
    /// # Errors
    /// `Overloaded` when too many wait, `NotReady` when the log cannot be written. They may be sent again.
    pub async fn record(&self, events: Vec<UserEvent>) -> Result<Recorded, Failure> {
        self.log.record(events, now_ms()).await.map_err(failure)
    }

    /// Leaves what an experiment showed for the log; never waits, and drops it when too many wait already.
    pub fn expose(&self, exposure: Exposure) {
        self.log.expose(exposure, now_ms());
    }

    /// Removes all that is stored of the user: events and exposures from the log's files, and the history, which it does
    /// not count.
    ///
    /// # Errors
    /// As [`Recorder::record`].
    pub async fn forget(&self, user: String) -> Result<Forgotten, Failure> {
        self.log.forget(user).await.map_err(failure)
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

fn failure(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Full => Failure::Overloaded { reason: Overload::LogFull, retry_after: Duration::from_millis(100) },
        Refusal::Unwritable => {
            Failure::NotReady { reason: "the event log cannot be written", retry_after: Duration::from_secs(5) }
        }
    }
}

/// Histories follow the log.
struct Histories(Arc<HistoryStore>);

impl Follower for Histories {
    fn recorded(&mut self, event: &UserEvent) {
        self.0.append(&event.user_id, event.event.clone());
    }

    fn forgotten(&mut self, user: &str) {
        self.0.remove(user);
    }
}
