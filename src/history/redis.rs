//! The store in Redis, where servers share it: of each user a sorted set under a hash of the user's id, and one for hides,
//! which have a bound of their own. Members are whole events and scores their times. The same event is the same member, so
//! that adding it again changes nothing: a batch of which nobody knows whether it came through is sent again.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{Client, ClientTlsConfig, Pipeline, RedisError, RedisResult, TlsCertificates, Value, from_redis_value};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::bounds::{Bounds, is_hide};
use super::store::{HistoryStore, Noted, Place, StoreError, user_key};
use super::{HistoryConfig, RedisConfig, encoding};
use crate::domain::Event;

/// How long one command may take; a request waits no longer than its own time-out.
const LONGEST: Duration = Duration::from_secs(5);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);
/// Users of a cluster that are written at once.
const AT_ONCE: usize = 32;
/// Parts of a second by which events of one second are ordered: with a time of 32 bits they fill the 53 of a score.
const PARTS: u64 = 1 << 20;
const DAY_S: i64 = 86_400;

/// Histories in Redis.
pub struct RedisStore {
    config: RedisConfig,
    bounds: Bounds,
    links: Vec<Link>,
    next: AtomicUsize,
}

/// One connection.
enum Link {
    /// To one server; connects again by itself.
    One(ConnectionManager),
    /// To a cluster. None: not connected, or lost.
    Cluster(Box<ClusterLink>),
}

struct ClusterLink {
    client: ClusterClient,
    open: Mutex<Option<ClusterConnection>>,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("config", &self.config).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// A store that connects when it is first asked: its server may come later. Called within a tokio runtime.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(config: &HistoryConfig) -> Result<Self, StoreError> {
        let (bounds, config) = (Bounds::of(config), &config.redis);
        let links = (0..config.pool).map(|_| Link::new(config)).collect::<Result<_, _>>()?;
        Ok(Self { config: config.clone(), bounds, links, next: AtomicUsize::new(0) })
    }

    fn key(&self, user: &str) -> String {
        let mut key = format!("{}:history{}:", self.config.prefix, encoding::VERSION);
        user_key(user).iter().for_each(|byte| key.push_str(&format!("{byte:02x}")));
        key
    }

    fn place_key(&self, log: &str) -> String {
        format!("{}:place{}:{log}", self.config.prefix, encoding::VERSION)
    }

    fn link(&self) -> &Link {
        &self.links[self.next.fetch_add(1, Ordering::Relaxed) % self.links.len()]
    }

    /// The place that a reply begins with; zero where none was said.
    fn read_place(key: &str, reply: Vec<Value>) -> Result<u64, StoreError> {
        let found = reply.into_iter().next().unwrap_or(Value::Nil);
        let place: RedisResult<Option<u64>> = from_redis_value(found).map_err(Into::into);
        let damaged =
            |error: RedisError| StoreError::Format { place: format!("Redis key {key}"), reason: error.to_string() };
        Ok(place.map_err(damaged)?.unwrap_or(0))
    }

    async fn ask(&self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let link = self.link();
        let outcome = match link.connection().await {
            Ok(connection) => connection.send(pipeline).await,
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            link.lost().await;
        }
        outcome.map_err(|error| StoreError::Away(error.to_string()))
    }

    /// Sends the pipelines beside each other; one error of theirs is told.
    async fn ask_all(&self, pipelines: &[Pipeline]) -> Result<(), StoreError> {
        if let [only] = pipelines {
            return self.ask(only).await.map(drop);
        }
        let (link, mut running) = (self.link(), JoinSet::new());
        let away = |error: &dyn fmt::Display| StoreError::Away(error.to_string());
        for pipeline in pipelines {
            let connection = link.connection().await.map_err(|error| away(&error))?;
            let pipeline = pipeline.clone();
            running.spawn(async move { connection.send(&pipeline).await.map(drop) });
        }
        let mut outcome = Ok(());
        while let Some(ended) = running.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => outcome = Err(away(&error)),
                Err(error) => outcome = Err(away(&error)),
            }
        }
        if outcome.is_err() {
            link.lost().await;
        }
        outcome
    }

    fn add(&self, pipeline: &mut Pipeline, user: &str, events: &[&Noted]) {
        let key = self.key(user);
        let (hides, others): (Vec<&Noted>, Vec<&Noted>) =
            events.iter().copied().partition(|noted| is_hide(&noted.event));
        for (key, events, most) in [(of_hides(&key), hides, self.bounds.hides), (key, others, self.bounds.events)] {
            if !events.is_empty() {
                let add = pipeline.cmd("ZADD").arg(&key).arg("NX");
                for Noted { mark, order, event, .. } in events {
                    let mut member = vec![encoding::VERSION];
                    encoding::write(*mark, event, &mut member);
                    add.arg(score(event.time, *order)).arg(member);
                }
                add.ignore();
                pipeline.cmd("ZREMRANGEBYRANK").arg(&key).arg(0).arg(-(most as i64) - 1).ignore();
            }
            // Of both, whichever the event is in: neither goes before the other.
            if self.config.keep_days > 0 {
                pipeline.cmd("EXPIRE").arg(&key).arg(i64::from(self.config.keep_days) * DAY_S).ignore();
            }
        }
    }
}

/// Where the hides of the user stand whose other events are under `key`: in a cluster on the same node, which goes by what is
/// in braces.
fn of_hides(key: &str) -> String {
    format!("{{{key}}}:hides")
}

/// By time, and within a second by order.
fn score(time: i64, order: u64) -> f64 {
    time as f64 + (order % PARTS) as f64 / PARTS as f64
}

/// What is trusted and shown over TLS.
fn certificates(config: &RedisConfig) -> Result<TlsCertificates, StoreError> {
    let read = |field: &'static str, path: &Path| {
        let refused = |error| StoreError::Settings { field, reason: format!("{}: {error}", path.display()) };
        let given = !path.as_os_str().is_empty();
        given.then(|| std::fs::read(path).map_err(refused)).transpose()
    };
    let (certificate, key) = (read("redis.certificate", &config.certificate)?, read("redis.key", &config.key)?);
    let client_tls = certificate.zip(key).map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
    Ok(TlsCertificates { client_tls, root_cert: read("redis.ca", &config.ca)? })
}

impl Link {
    fn new(config: &RedisConfig) -> Result<Self, StoreError> {
        // The text of an error may show the URL, and with it a password.
        let refused = |_: RedisError| StoreError::Settings {
            field: "redis.url",
            reason: "no URL of Redis, expected redis[s]://[USER:PASSWORD@]HOST:PORT[/DB]".to_owned(),
        };
        if config.cluster {
            let nodes: Vec<&str> = config.url.reveal().split(',').map(str::trim).collect();
            let builder =
                ClusterClient::builder(nodes).connection_timeout(CONNECT).response_timeout(LONGEST).retries(1);
            let builder = if config.is_tls() { builder.certs(certificates(config)?) } else { builder };
            let client = builder.build().map_err(refused)?;
            return Ok(Self::Cluster(Box::new(ClusterLink { client, open: Mutex::new(None) })));
        }
        let client = if config.is_tls() {
            Client::build_with_tls(config.url.reveal(), certificates(config)?)
        } else {
            Client::open(config.url.reveal())
        };
        let client = client.map_err(refused)?;
        let settings = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(100))
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(LONGEST));
        ConnectionManager::new_lazy_with_config(client, settings).map(Self::One).map_err(refused)
    }

    async fn connection(&self) -> RedisResult<Connection> {
        match self {
            Self::One(connection) => Ok(Connection::One(connection.clone())),
            Self::Cluster(link) => {
                let mut held = link.open.lock().await;
                let connection = match held.as_ref() {
                    Some(connection) => connection.clone(),
                    None => held.insert(link.client.get_async_connection().await?).clone(),
                };
                Ok(Connection::Cluster(connection))
            }
        }
    }

    /// After a failure, the next connection asks all nodes for the cluster's shape again.
    async fn lost(&self) {
        if let Self::Cluster(link) = self {
            link.open.lock().await.take();
        }
    }
}

/// Borrowed from a link for one command.
enum Connection {
    One(ConnectionManager),
    Cluster(ClusterConnection),
}

impl Connection {
    async fn send(self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        match self {
            Self::One(mut connection) => pipeline.query_async(&mut connection).await,
            Self::Cluster(mut connection) => pipeline.query_async(&mut connection).await,
        }
    }
}

#[async_trait]
impl HistoryStore for RedisStore {
    async fn recent(&self, user: &str) -> Result<Vec<Event>, StoreError> {
        let key = self.key(user);
        let mut pipeline = redis::pipe();
        for key in [&key, &of_hides(&key)] {
            pipeline.cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES");
        }
        let damaged = |reason: String| StoreError::Format { place: format!("Redis key {key}"), reason };
        let read = |member: &[u8]| match member.split_first() {
            Some((&encoding::VERSION, rest)) => encoding::read(rest).map(|(mark, event, _)| (mark, event)),
            other => Err(format!("version {:?}, expected {}", other.map(|(version, _)| version), encoding::VERSION)),
        };
        let (mut events, mut hidden) = (Vec::new(), HashSet::new());
        for found in self.ask(&pipeline).await? {
            let members: Vec<(Vec<u8>, f64)> = from_redis_value(found).map_err(|error| damaged(error.to_string()))?;
            for (member, score) in members {
                let (mark, event) = read(&member).map_err(damaged)?;
                // A hide from before they had a set of their own may stand in both.
                if !is_hide(&event) || hidden.insert(mark) {
                    events.push((score, event));
                }
            }
        }
        events.sort_by(|one, other| one.0.total_cmp(&other.0));
        Ok(events.into_iter().map(|(_, event)| event).collect())
    }

    async fn append(&self, events: &[Noted], place: Option<Place<'_>>) -> Result<(), StoreError> {
        let mut users: BTreeMap<&str, Vec<&Noted>> = BTreeMap::new();
        events.iter().for_each(|noted| users.entry(&noted.user).or_default().push(noted));
        let mut pipelines = vec![redis::pipe()];
        for (user, noted) in users {
            // In a cluster users live on different nodes.
            if self.config.cluster {
                pipelines.push(redis::pipe());
            }
            if let Some(pipeline) = pipelines.last_mut() {
                self.add(pipeline, user, &noted);
            }
        }
        pipelines.retain(|pipeline| !pipeline.is_empty());
        for together in pipelines.chunks(AT_ONCE) {
            self.ask_all(together).await?;
        }
        let Some(Place { log, after, last }) = place else { return Ok(()) };
        // The connection comes back by itself, to a Redis that may have begun anew in between: where that one was is read in
        // one with saying where it is now.
        let key = self.place_key(log);
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("GET").arg(&key).cmd("SET").arg(&key).arg(last).ignore();
        let found = Self::read_place(&key, self.ask(&pipeline).await?)?;
        if found < after {
            let mut pipeline = redis::pipe();
            pipeline.cmd("SET").arg(&key).arg(found).ignore();
            self.ask(&pipeline).await?;
            return Err(StoreError::Lost { found, after });
        }
        Ok(())
    }

    async fn place(&self, log: &str) -> Result<u64, StoreError> {
        let key = self.place_key(log);
        let mut pipeline = redis::pipe();
        pipeline.cmd("GET").arg(&key);
        Self::read_place(&key, self.ask(&pipeline).await?)
    }

    async fn remove(&self, user: &str) -> Result<usize, StoreError> {
        let key = self.key(user);
        let mut pipeline = redis::pipe();
        for key in [&key, &of_hides(&key)] {
            pipeline.cmd("ZCARD").arg(key);
            pipeline.cmd("DEL").arg(key).ignore();
        }
        let counts = self.ask(&pipeline).await?;
        Ok(counts.into_iter().map(|count| from_redis_value::<usize>(count).unwrap_or(0)).sum())
    }
}
