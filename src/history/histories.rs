//! The histories as requests see them: one store behind a time-out, not asked for a while when it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use prometheus::Registry;
use thiserror::Error;
use tokio::time::Instant;

use super::config::{HistoryConfig, StoreKind};
use super::embedded::EmbeddedStore;
use super::memory::MemoryStore;
use super::metrics::{LookupMetrics, LookupResult};
use super::redis::RedisStore;
use super::rules::{KindWeights, without_repeats};
use super::store::{HistoryStore, StoreError};
use crate::domain::Event;

/// So many failures in a row, and the store is left alone for a while.
const PATIENCE: u32 = 3;

/// Why there are no histories.
#[derive(Debug, Error)]
pub enum HistoriesError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The metrics are registered already.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What is known of a user.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Lookup {
    /// Oldest first.
    pub events: Vec<Event>,
    /// The store did not answer: `events` is empty for that alone.
    pub missed: bool,
}

/// The histories. Clones share everything.
#[derive(Debug, Clone)]
pub struct Histories {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: HistoryConfig,
    store: Arc<dyn HistoryStore>,
    /// The same store where it is the one in memory, which cannot fail and is not waited for.
    memory: Option<Arc<MemoryStore>>,
    metrics: LookupMetrics,
    began: Instant,
    failures: AtomicU32,
    /// Until when the store is not asked, in milliseconds from `began`.
    away_until: AtomicU64,
}

impl Histories {
    /// Opens the store that the config names. Called within a tokio runtime; the embedded store reads its file.
    ///
    /// # Errors
    /// When the store's file or URL cannot be used, or its metrics are registered already. A Redis that does not answer
    /// is none: it may come later. The config is taken as valid.
    pub fn open(config: &HistoryConfig, registry: &Registry) -> Result<Self, HistoriesError> {
        match config.store {
            StoreKind::Memory => Ok(Self::in_memory(config, registry)?),
            StoreKind::Embedded => Ok(Self::over(config, Arc::new(EmbeddedStore::open(config)?), registry)?),
            StoreKind::Redis => Ok(Self::over(config, Arc::new(RedisStore::new(config)?), registry)?),
        }
    }

    /// Histories in memory, empty.
    ///
    /// # Errors
    /// When the metrics are registered already.
    pub fn in_memory(config: &HistoryConfig, registry: &Registry) -> Result<Self, prometheus::Error> {
        let memory = Arc::new(MemoryStore::new(config, registry)?);
        Self::new(config, Arc::clone(&memory) as Arc<dyn HistoryStore>, Some(memory), registry)
    }

    /// Histories of a store that may fail.
    ///
    /// # Errors
    /// When the metrics are registered already.
    pub fn over(
        config: &HistoryConfig,
        store: Arc<dyn HistoryStore>,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        Self::new(config, store, None, registry)
    }

    fn new(
        config: &HistoryConfig,
        store: Arc<dyn HistoryStore>,
        memory: Option<Arc<MemoryStore>>,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let inner = Inner {
            config: config.clone(),
            store,
            memory,
            metrics: LookupMetrics::new(registry)?,
            began: Instant::now(),
            failures: AtomicU32::new(0),
            away_until: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What is known of the user, without repeats. Never fails and never takes longer than the time-out: a store that
    /// does not answer is told by [`Lookup::missed`].
    pub async fn recent(&self, user: &str) -> Lookup {
        let Inner { config, metrics, .. } = &*self.inner;
        let asked = Instant::now();
        let mut events = match self.ask(user).await {
            Ok(events) => events,
            Err(result) => {
                metrics.count(result, (result != LookupResult::Skipped).then(|| asked.elapsed()));
                return Lookup { events: Vec::new(), missed: true };
            }
        };
        let result = if events.is_empty() { LookupResult::Miss } else { LookupResult::Hit };
        metrics.count(result, Some(asked.elapsed()));
        without_repeats(&mut events, config.repeats_within_s);
        Lookup { events, missed: false }
    }

    async fn ask(&self, user: &str) -> Result<Vec<Event>, LookupResult> {
        let Inner { config, store, memory, failures, .. } = &*self.inner;
        if let Some(memory) = memory {
            return Ok(memory.recent(user, usize::MAX));
        }
        if self.now_ms() < self.inner.away_until.load(Ordering::Relaxed) {
            return Err(LookupResult::Skipped);
        }
        let (failed, told) = match tokio::time::timeout(config.timeout(), store.recent(user)).await {
            Ok(Ok(events)) => {
                if failures.swap(0, Ordering::Relaxed) >= PATIENCE {
                    tracing::info!("the history store answers again");
                }
                return Ok(events);
            }
            Ok(Err(error)) => (LookupResult::Error, error.to_string()),
            Err(_) => (LookupResult::Timeout, format!("no answer within {} ms", config.timeout_ms)),
        };
        let before = failures.fetch_add(1, Ordering::Relaxed);
        if before + 1 >= PATIENCE {
            self.inner.away_until.store(self.now_ms() + config.retry_ms, Ordering::Relaxed);
        }
        if before + 1 == PATIENCE {
            tracing::warn!(reason = told, "the history store fails: answers come without histories until it is back");
        }
        Err(failed)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.inner.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The store itself.
    pub fn store(&self) -> &Arc<dyn HistoryStore> {
        &self.inner.store
    }

    /// The store where it is the one in memory.
    pub fn memory(&self) -> Option<&Arc<MemoryStore>> {
        self.inner.memory.as_ref()
    }

    /// Which events are read when there are more than the network reads.
    pub fn kind_weights(&self) -> &KindWeights {
        &self.inner.config.kind_weights
    }

    /// How long a request waits for the store.
    pub fn config(&self) -> &HistoryConfig {
        &self.inner.config
    }
}
