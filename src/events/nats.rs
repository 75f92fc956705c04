//! Events through a NATS JetStream that servers share: published to it, acknowledged by it, and written from it into this
//! server's own log.
//!
//! A message is one event, as a record of the log; its subject ends with a hash of the user's id, and its `Nats-Msg-Id` is
//! the event's id, so that the stream leaves out what it took in a while ago. The log leaves out what it holds by the same
//! id: a message that is delivered again, as after a crash between writing and telling, counts once. The consumer is
//! durable and called as the log. Exposures go the same way ([`super::carrier`]), but into the own log at once.
//!
//! A user who is forgotten leaves a notice behind on the subject, which holds a hash: whoever follows the stream forgets the
//! user when it comes.

use std::collections::HashMap;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context, stream};
use async_nats::{ConnectOptions, ServerAddr};
use prometheus::{IntCounter, IntGauge, Registry};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio_stream::StreamExt;

use super::carrier::ORIGIN;
use super::config::NatsConfig;
use super::forgotten::hex;
use super::log::EventLog;
use super::record::{Found, Logged, Record};
use crate::domain::{Forgotten, Recorded, UserEvent};

/// Messages that are written into the log together.
const TOGETHER: usize = 1000;
/// How long one look into an empty stream lasts.
const LOOK: Duration = Duration::from_secs(1);
/// How long further messages are waited for once one has come.
const SOON: Duration = Duration::from_millis(2);
/// How long to wait after a failure.
pub(super) const AGAIN: Duration = Duration::from_millis(200);
/// A message that was not acknowledged by then is delivered again.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// The header of a notice that the user of its subject is forgotten; the message holds nothing.
const NOTICE: &str = "Reg4rec-Forget";
/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// Why the stream did not do it.
#[derive(Debug, Error)]
pub enum StreamError {
    /// Its settings are not usable.
    #[error("events.nats.{field}: {reason}")]
    Settings {
        /// The setting.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// It does not answer, or not as expected. It may be asked again.
    #[error("the event stream: {0}")]
    Away(String),
    /// The metrics are registered already.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The stream that servers share. Clones share everything.
#[derive(Debug, Clone)]
pub struct EventStream {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: NatsConfig,
    pub(super) context: Context,
    /// Of users that were forgotten: up to which place of the stream their messages are gone. Held while messages are
    /// written into the log, so that none is written behind a user's back.
    forgotten: Mutex<HashMap<String, u64>>,
    pub(super) metrics: StreamMetrics,
}

#[derive(Debug)]
pub(super) struct StreamMetrics {
    published: IntCounter,
    failed: IntCounter,
    pub(super) exposures_dropped: IntCounter,
    pending: IntGauge,
}

impl StreamMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let published = IntCounter::new("reg4rec_events_published_total", "Events that the stream acknowledged")?;
        let failed = IntCounter::new("reg4rec_events_unpublished_total", "Events that the stream did not acknowledge")?;
        let pending = IntGauge::new(
            "reg4rec_events_stream_pending",
            "Messages of the stream that are not in this server's log yet",
        )?;
        let exposures_dropped = IntCounter::new(
            "reg4rec_exposures_unpublished_total",
            "Exposures of this server's log that other servers do not hear of, as too many waited for the stream",
        )?;
        registry.register(Box::new(exposures_dropped.clone()))?;
        registry.register(Box::new(published.clone()))?;
        registry.register(Box::new(failed.clone()))?;
        registry.register(Box::new(pending.clone()))?;
        Ok(Self { published, failed, exposures_dropped, pending })
    }
}

pub(super) fn away(error: impl std::fmt::Display) -> StreamError {
    StreamError::Away(error.to_string())
}

impl EventStream {
    /// A stream whose server may come later: connecting goes on by itself. The config is taken as valid.
    ///
    /// # Errors
    /// When the URL is none, or a metric is registered already.
    pub async fn connect(config: &NatsConfig, registry: &Registry) -> Result<Self, StreamError> {
        // The text of the error may show the URL, and with it a password.
        let refused = |_| StreamError::Settings {
            field: "url",
            reason: "no URL of NATS, expected nats://[USER:PASSWORD@]HOST:PORT".to_owned(),
        };
        let servers = config.url.reveal().split(',').map(|server| server.trim().parse::<ServerAddr>());
        let servers: Vec<ServerAddr> = servers.collect::<Result<_, _>>().map_err(refused)?;
        let patience = Duration::from_millis(config.timeout_ms);
        let options = ConnectOptions::new()
            .name("reg4rec")
            .retry_on_initial_connect()
            .request_timeout(Some(patience))
            .reconnect_delay_callback(|attempts| Duration::from_millis(20 * attempts.min(25) as u64));
        let client = options.connect(servers).await.map_err(away)?;
        let mut context = jetstream::new(client);
        context.set_timeout(patience);
        let metrics = StreamMetrics::new(registry)?;
        let inner = Inner { config: config.clone(), context, forgotten: Mutex::default(), metrics };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Publishes the events; when this resolves the stream holds all of them. Those without an id get one, so that this
    /// server writes each into its log once.
    ///
    /// # Errors
    /// When the stream did not acknowledge all of them. They may be sent again; those that came through are known by
    /// their ids.
    pub async fn publish(&self, events: &mut [UserEvent], now_ms: i64) -> Result<Recorded, StreamError> {
        for event in events.iter_mut().filter(|event| event.event_id.is_empty()) {
            event.event_id = made_up()?;
        }
        let mut outcome = self.send(events, now_ms).await;
        if outcome.is_err() && self.stream().await.is_ok() {
            // The stream was not there, or the connection went away under the request.
            outcome = self.send(events, now_ms).await;
        }
        match &outcome {
            Ok(recorded) => self.inner.metrics.published.inc_by(recorded.recorded as u64),
            Err(_) => self.inner.metrics.failed.inc_by(events.len() as u64),
        }
        outcome
    }

    async fn send(&self, events: &[UserEvent], now_ms: i64) -> Result<Recorded, StreamError> {
        let Inner { config, context, .. } = &*self.inner;
        let mut sent = Vec::with_capacity(events.len());
        for event in events {
            let mut payload = Vec::new();
            let logged = Logged { sequence: 0, arrived_ms: now_ms, event: event.clone() };
            logged.write(&mut payload);
            let id = hex(event.event_id.as_bytes());
            let publish =
                PublishMessage::build().payload(payload.into()).message_id(id).expected_stream(&config.stream);
            let subject = self.subject(&event.user_id);
            sent.push(context.send_publish(subject, publish).await.map_err(away)?);
        }
        let mut recorded = Recorded::default();
        for acknowledgement in sent {
            let acknowledged = acknowledgement.into_future().await.map_err(away)?;
            if acknowledged.duplicate {
                recorded.duplicates += 1;
            } else {
                recorded.recorded += 1;
            }
        }
        Ok(recorded)
    }

    pub(super) fn subject(&self, user: &str) -> String {
        format!("{}.{}", self.inner.config.subject, hex(user.as_bytes()))
    }

    /// The stream; made when it is not there.
    async fn stream(&self) -> Result<stream::Stream, StreamError> {
        let Inner { config, context, .. } = &*self.inner;
        let settings = stream::Config {
            name: config.stream.clone(),
            subjects: vec![format!("{}.*", config.subject)],
            max_age: Duration::from_secs(u64::from(config.keep_days) * DAY_S),
            num_replicas: config.replicas,
            duplicate_window: Duration::from_secs(config.duplicates_s),
            ..stream::Config::default()
        };
        context.get_or_create_stream(settings).await.map_err(away)
    }

    /// Tells all that follow the stream to forget the user, erases every message of the user from it, and then from the log
    /// that is called `origin`, by `forget`. Answers what that took from the log.
    ///
    /// # Errors
    /// When the stream does not answer; then nothing is taken from the log. What `forget` says, in the inner result.
    pub async fn forget<E>(
        &self,
        user: &str,
        origin: &str,
        forget: impl Future<Output = Result<Forgotten, E>>,
    ) -> Result<Result<Forgotten, E>, StreamError> {
        let (stream, subject) = (self.stream().await?, self.subject(user));
        let Inner { config, context, .. } = &*self.inner;
        let notice = PublishMessage::build().header(NOTICE, "1").header(ORIGIN, origin).expected_stream(&config.stream);
        let sent = context.send_publish(subject.clone(), notice).await.map_err(away)?;
        let until = sent.into_future().await.map_err(away)?.sequence;
        let mut from = 1;
        // One by one: only so is what they held overwritten on disk.
        while let Some(place) = next_of(&stream, &subject, from).await? {
            // The notice stays, for those who come later.
            if place >= until {
                break;
            }
            stream.delete_message(place).await.map_err(away)?;
            from = place + 1;
        }
        let mut forgotten = self.inner.forgotten.lock().await;
        forgotten.insert(subject, until);
        Ok(forget.await)
    }

    /// Writes what the stream brings into the log, until the log is closed. Resolves then.
    pub async fn follow(self, log: std::sync::Weak<EventLog>) {
        let mut told = false;
        while let Some(name) = log.upgrade().map(|log| log.name().to_owned()) {
            if let Err(reason) = self.follow_as(&name, &log).await {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%reason, "the event stream is not followed; trying again");
                }
                tokio::time::sleep(AGAIN).await;
            } else {
                told = false;
            }
        }
    }

    async fn follow_as(&self, name: &str, log: &std::sync::Weak<EventLog>) -> Result<(), StreamError> {
        let consumer = self.consumer(name).await?;
        let mut messages = consumer.messages().await.map_err(away)?;
        // Until one look fails, or nobody holds the log any more.
        while let Some(log) = log.upgrade() {
            let looked = self.look(&mut messages, &log).await;
            drop(log);
            looked?;
        }
        Ok(())
    }

    /// Writes into the log all that the stream holds now. Answers how many messages that was.
    ///
    /// # Errors
    /// When the stream does not answer, or the log cannot be written.
    pub async fn copy(&self, log: &EventLog) -> Result<usize, StreamError> {
        let mut consumer = self.consumer(log.name()).await?;
        let mut messages = consumer.messages().await.map_err(away)?;
        let mut copied = 0;
        loop {
            copied += self.look(&mut messages, log).await?;
            let info = consumer.info().await.map_err(away)?;
            if info.num_pending == 0 && info.num_ack_pending == 0 {
                return Ok(copied);
            }
        }
    }

    async fn consumer(&self, name: &str) -> Result<PullConsumer, StreamError> {
        let settings = pull::Config {
            durable_name: Some(name.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: 2 * TOGETHER as i64,
            ..pull::Config::default()
        };
        self.stream().await?.get_or_create_consumer(name, settings).await.map_err(away)
    }

    /// Takes what is there, waits for it to be in the log, and acknowledges it. Answers how many messages that was; 0 when
    /// none came for a while.
    async fn look(&self, messages: &mut pull::Stream, log: &EventLog) -> Result<usize, StreamError> {
        let (mut taken, mut fresh, mut pending) = (Vec::new(), Vec::new(), 0);
        let mut notices = HashMap::new();
        let mut patience = LOOK;
        // What has come is written together; only the first is waited for.
        while taken.len() < TOGETHER
            && let Ok(next) = tokio::time::timeout(patience, messages.next()).await
        {
            let message = next.ok_or_else(|| away("the consumer ended"))?.map_err(away)?;
            let info = message.info().map_err(away)?;
            pending = info.pending;
            let header = |name: &str| message.headers.as_ref().and_then(|headers| headers.get(name));
            // Of its own exposures the log had each before the stream, and whom it was asked to forget it has forgotten.
            let own = header(ORIGIN).is_some_and(|origin| origin.as_str() == log.name());
            match (own, header(NOTICE)) {
                (true, _) => {}
                (false, Some(_)) => {
                    notices.insert(message.subject.to_string(), info.stream_sequence);
                }
                (false, None) => {
                    fresh.push((message.subject.to_string(), info.stream_sequence, message.payload.clone()));
                }
            }
            taken.push(message);
            patience = SOON;
        }
        self.inner.metrics.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
        if taken.is_empty() {
            return Ok(0);
        }
        let mut forgotten = self.inner.forgotten.lock().await;
        // What is delivered again, as its acknowledgement was lost, must not take what the user did since.
        notices.retain(|subject, place| forgotten.get(subject).is_none_or(|until| *until < *place));
        if !notices.is_empty() {
            let hashes = notices.keys().filter_map(|subject| Some(subject.rsplit_once('.')?.1.to_owned())).collect();
            log.forget_hashed(hashes).await.map_err(away)?;
            forgotten.extend(notices);
        }
        fresh.retain(|(subject, place, _)| forgotten.get(subject).is_none_or(|until| place > until));
        let mut arrived = i64::MIN;
        let (mut events, mut exposures) = (Vec::with_capacity(fresh.len()), Vec::new());
        for (_, place, payload) in fresh {
            match Record::read(&payload) {
                Found::Record(record, _) => match *record {
                    Record::Event(logged) => {
                        arrived = arrived.max(logged.arrived_ms);
                        events.push(logged.event);
                    }
                    Record::Exposure(exposed) => exposures.push((exposed.arrived_ms, exposed.exposure)),
                },
                // Nobody can read it, now or later.
                _ => tracing::error!(place, "a message of the event stream is no event, and is passed over"),
            }
        }
        if !exposures.is_empty() {
            log.take_exposures(exposures).await.map_err(away)?;
        }
        if !events.is_empty() {
            log.record(events, arrived).await.map_err(away)?;
        }
        drop(forgotten);
        for message in &taken {
            message.ack().await.map_err(away)?;
        }
        Ok(taken.len())
    }
}

/// The place of the user's first message from a place on.
async fn next_of(stream: &stream::Stream, subject: &str, from: u64) -> Result<Option<u64>, StreamError> {
    use async_nats::jetstream::stream::RawMessageErrorKind;
    match stream.get_first_raw_message_by_subject(subject, from).await {
        Ok(message) => Ok(Some(message.sequence)),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(away(error)),
    }
}

/// An id for an event that came without one.
fn made_up() -> Result<String, StreamError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(away)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
