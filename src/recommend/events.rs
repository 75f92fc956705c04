//! Events that arrive while the service runs: into the log, and from there into the histories. What experiments showed
//! goes into the log too, for their report.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::Registry;

use crate::domain::{Exposure, Failure, Forgotten, Overload, Recorded, UserEvent};
use crate::events::{
    EventLog, EventLogError, EventStream, EventsConfig, ExposureCarrier, Follower, Logged, Opened, Refusal, StreamError,
};
use crate::history::{Histories, MemoryStore, StoreError};

use super::feed::{FeedHandle, feed};

/// Takes events down. Clones share everything.
#[derive(Debug, Clone)]
pub struct Recorder {
    log: Arc<EventLog>,
    follows: Follows,
    /// None: events are recorded by this server alone.
    stream: Option<EventStream>,
    /// Where exposures are left for other servers.
    carrier: Option<ExposureCarrier>,
}

/// How the histories follow the log.
#[derive(Debug, Clone)]
enum Follows {
    /// At once, on the log's own thread.
    Memory(Arc<MemoryStore>),
    /// As soon as the store can.
    Feed(FeedHandle),
}

impl Recorder {
    /// Opens the log and lets the histories follow what it holds. Not for an async task, but within a tokio runtime. None:
    /// the settings name no log. A store that does not answer is waited for while the recorder works.
    ///
    /// # Errors
    /// See [`EventLog::open`].
    pub fn open(
        config: &EventsConfig,
        histories: Histories,
        registry: &Registry,
    ) -> Result<Option<(Self, Opened)>, EventLogError> {
        if config.path == Path::new("") {
            return Ok(None);
        }
        if let Some(memory) = histories.memory() {
            let (log, opened) = EventLog::open(config, registry, Box::new(Remembered(Arc::clone(memory))))?;
            let follows = Follows::Memory(Arc::clone(memory));
            return Ok(Some((Self { log: Arc::new(log), follows, stream: None, carrier: None }, opened)));
        }
        let store = Arc::clone(histories.store());
        let (told, handle, mut feed) = feed(store, config.path.clone(), histories.config().timeout(), registry)?;
        let (log, opened) = EventLog::open(config, registry, Box::new(told))?;
        let runtime = tokio::runtime::Handle::current();
        if let Err(reason) = runtime.block_on(feed.begin(log.name().to_owned())) {
            tracing::warn!(reason, "the history store does not follow the event log yet");
        }
        runtime.spawn(feed.run());
        let follows = Follows::Feed(handle);
        Ok(Some((Self { log: Arc::new(log), follows, stream: None, carrier: None }, opened)))
    }

    /// Sends events through a stream that servers share from here on, and follows what it brings. Called within a tokio
    /// runtime.
    pub fn through(mut self, stream: EventStream) -> Self {
        tokio::spawn(stream.clone().follow(Arc::downgrade(&self.log)));
        self.carrier = Some(stream.carrier(self.log.name()));
        self.stream = Some(stream);
        self
    }

    /// Takes the events down; when this resolves they are in the stream, where there is one, or else in the log, and in
    /// the histories.
    ///
    /// # Errors
    /// `Overloaded` when too many wait, `NotReady` when the stream does not acknowledge them or the log cannot be written.
    /// They may be sent again.
    pub async fn record(&self, mut events: Vec<UserEvent>) -> Result<Recorded, Failure> {
        let now = now_ms();
        let Some(stream) = &self.stream else { return self.log.record(events, now).await.map_err(failure) };
        let published = stream.publish(&mut events, now).await.map_err(|error| unpublished(&error))?;
        // So that the next request sees them; where that fails, they come by the stream.
        if let Err(refusal) = self.log.record(events, now).await {
            tracing::debug!(%refusal, "events will come into the log by the stream");
        }
        Ok(published)
    }

    /// Leaves what an experiment showed for the log, and for the stream where there is one; never waits, and drops it when too
    /// many wait already.
    pub fn expose(&self, exposure: Exposure) {
        let now = now_ms();
        if let Some(carrier) = &self.carrier {
            carrier.leave(exposure.clone(), now);
        }
        self.log.expose(exposure, now);
    }

    /// Removes all that is stored of the user: events and exposures from the log's files, and then the history.
    ///
    /// # Errors
    /// As [`Recorder::record`]; of a stream the user's messages are erased first, and other servers clear their logs when they
    /// hear of it.
    /// And `NotReady` when the history store cannot be reached: then the log holds nothing of the
    /// user any more, and the store may be asked again by the same call.
    pub async fn forget(&self, user: String) -> Result<Forgotten, Failure> {
        match &self.follows {
            Follows::Memory(memory) => {
                let history_events = memory.count(&user);
                Ok(Forgotten { history_events, ..self.forget_logged(&user).await? })
            }
            Follows::Feed(feed) => {
                let forgotten = self.forget_logged(&user).await?;
                let outcome = tokio::time::timeout(FORGET, feed.forget(user)).await;
                let outcome = outcome.unwrap_or_else(|_| Err(StoreError::Away(format!("no answer within {FORGET:?}"))));
                Ok(Forgotten { history_events: outcome.map_err(|error| away(&error))?, ..forgotten })
            }
        }
    }

    async fn forget_logged(&self, user: &str) -> Result<Forgotten, Failure> {
        let log = self.log.forget(user.to_owned());
        let outcome = match &self.stream {
            Some(stream) => stream.forget(user, self.log.name(), log).await.map_err(|error| unpublished(&error))?,
            None => log.await,
        };
        outcome.map_err(failure)
    }
}

/// The stream did not take events in, or did not let go of them.
fn unpublished(error: &StreamError) -> Failure {
    tracing::warn!(%error, "events are refused");
    Failure::NotReady { reason: "the event stream does not answer", retry_after: Duration::from_secs(1) }
}

/// How long a store may take to forget somebody.
const FORGET: Duration = Duration::from_secs(10);

/// The history store failed an operator.
pub(super) fn away(error: &StoreError) -> Failure {
    tracing::error!(%error, "a history could not be removed");
    let reason = "the history store cannot be reached; what is in it of the user stays until this is asked again";
    Failure::NotReady { reason, retry_after: Duration::from_secs(5) }
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

/// Histories in memory follow the log.
struct Remembered(Arc<MemoryStore>);

impl Follower for Remembered {
    fn recorded(&mut self, Logged { event, .. }: &Logged) {
        self.0.append(&event.user_id, event.event.clone());
    }

    fn forgotten(&mut self, user: &str) {
        self.0.remove(user);
    }

    fn forgotten_elsewhere(&mut self, _: &[String], is_one: &dyn Fn(&str) -> bool) {
        // Also who is in no log, as histories may come from a file.
        self.0.remove_all(is_one);
    }
}
