//! The store in memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use dashmap::DashMap;
use prometheus::Registry;

use super::HistoryConfig;
use super::bounds::{Bounds, is_hide};
use super::metrics::MemoryMetrics;
use super::store::{HistoryStore, Noted, Place, StoreError};
use crate::domain::Event;

/// Recent events by user. Shared by reference; every method takes `&self`.
///
/// Users are evicted by second chance: they stand in a ring in the order they came, and whoever is at its front when
/// room is needed goes, unless touched since the last look, then to the back. That is close to least recently touched
/// and costs a look-up no more than setting a flag.
#[derive(Debug)]
pub struct MemoryStore {
    bounds: Bounds,
    max_users: usize,
    users: DashMap<Arc<str>, Recent>,
    /// Every user of the map once, but for those who are just being added.
    ring: Mutex<VecDeque<Arc<str>>>,
    metrics: MemoryMetrics,
}

#[derive(Debug, Default)]
struct Recent {
    /// By time; of the same second in the order of arrival.
    events: VecDeque<Event>,
    /// How many of them are hides.
    hides: usize,
    touched: AtomicBool,
}

impl Recent {
    fn insert(&mut self, event: Event, bounds: Bounds) {
        let hide = is_hide(&event);
        self.hides += usize::from(hide);
        let place = self.events.iter().rposition(|older| older.time <= event.time).map_or(0, |last| last + 1);
        self.events.insert(place, event);
        let (count, most) =
            if hide { (self.hides, bounds.hides) } else { (self.events.len() - self.hides, bounds.events) };
        if count > most
            && let Some(oldest) = self.events.iter().position(|older| is_hide(older) == hide)
        {
            self.events.remove(oldest);
            self.hides -= usize::from(hide);
        }
    }
}

impl MemoryStore {
    /// An empty store. Fails when its metrics are registered already. The config is taken as valid.
    pub fn new(config: &HistoryConfig, registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = MemoryMetrics::new(registry)?;
        let (bounds, max_users) = (Bounds::of(config), config.max_users);
        Ok(Self { bounds, max_users, users: DashMap::new(), ring: Mutex::default(), metrics })
    }

    /// Adds one event in its place by time. When the user has too many, the oldest goes; hides have a bound of their own.
    pub fn append(&self, user: &str, event: Event) {
        self.extend(user, [event]);
    }

    /// The user's newest `limit` events, oldest first; empty for a user without any.
    pub fn recent(&self, user: &str, limit: usize) -> Vec<Event> {
        let Some(recent) = self.users.get(user) else { return Vec::new() };
        recent.touched.store(true, Ordering::Relaxed);
        let skipped = recent.events.len().saturating_sub(limit);
        recent.events.iter().skip(skipped).cloned().collect()
    }

    /// Adds whole histories, as from a file at start. Answers how many events were read; older ones than the bounds
    /// allow are not kept.
    pub fn load(&self, histories: impl IntoIterator<Item = (String, Vec<Event>)>) -> usize {
        let mut read = 0;
        for (user, events) in histories {
            read += events.len();
            self.extend(&user, events);
        }
        read
    }

    /// How many events are kept of the user. Counts as no look-up.
    pub fn count(&self, user: &str) -> usize {
        self.users.get(user).map_or(0, |recent| recent.events.len())
    }

    /// Drops all that is kept of the user. Answers how many events that was.
    pub fn remove(&self, user: &str) -> usize {
        // The ring is locked first, as everywhere: a user of the ring is always one of the map, or is just being added.
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, recent)) = self.users.remove(user) else { return 0 };
        ring.retain(|other| &**other != user);
        self.metrics.users.dec();
        recent.events.len()
    }

    /// Drops all that is kept of the users that `is_one` names.
    pub fn remove_all(&self, is_one: &dyn Fn(&str) -> bool) {
        let users: Vec<Arc<str>> =
            self.users.iter().map(|user| Arc::clone(user.key())).filter(|user| is_one(user)).collect();
        for user in &users {
            self.remove(user);
        }
    }

    /// How many users have events.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether no user has any.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    fn extend(&self, user: &str, events: impl IntoIterator<Item = Event>) {
        let mut events = events.into_iter().peekable();
        if events.peek().is_none() {
            return;
        }
        if let Some(mut recent) = self.users.get_mut(user) {
            *recent.touched.get_mut() = true;
            events.for_each(|event| recent.insert(event, self.bounds));
            return;
        }
        let name: Arc<str> = user.into();
        let mut added = false;
        let mut recent = self.users.entry(name.clone()).or_insert_with(|| {
            added = true;
            Recent::default()
        });
        events.for_each(|event| recent.insert(event, self.bounds));
        drop(recent);
        if added {
            self.enter_ring(name);
        }
    }

    /// Puts a new user at the back of the ring and makes room at its front. No lock of the map is held when this begins:
    /// the ring is locked first and the map second, never the other way round.
    fn enter_ring(&self, user: Arc<str>) {
        self.metrics.users.inc();
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.push_back(user);
        // Bounded: each turn removes a user or clears a flag, and after one round only fresh touches can set them again.
        let mut chances = 2 * ring.len();
        while ring.len() > self.max_users {
            let Some(oldest) = ring.pop_front() else { break };
            let spared = |_: &Arc<str>, recent: &mut Recent| !std::mem::take(recent.touched.get_mut()) || chances == 0;
            if self.users.remove_if_mut(&oldest, spared).is_some() {
                self.metrics.users.dec();
                self.metrics.evicted.inc();
            } else {
                ring.push_back(oldest);
            }
            chances = chances.saturating_sub(1);
        }
    }
}

/// It holds nothing at the start, so the event log is told to it once from the beginning: marks and places are not kept.
#[async_trait]
impl HistoryStore for MemoryStore {
    async fn recent(&self, user: &str) -> Result<Vec<Event>, StoreError> {
        Ok(MemoryStore::recent(self, user, usize::MAX))
    }

    async fn append(&self, events: &[Noted], _: Option<Place<'_>>) -> Result<(), StoreError> {
        events.iter().for_each(|noted| MemoryStore::append(self, &noted.user, noted.event.clone()));
        Ok(())
    }

    async fn place(&self, _: &str) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn remove(&self, user: &str) -> Result<usize, StoreError> {
        Ok(MemoryStore::remove(self, user))
    }
}
