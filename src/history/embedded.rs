//! The store in a file beside the process: redb, a B-tree with transactions. A user's events stand under a hash of the
//! user's id, as one value that is written anew with each change.
//!
//! What comes from an event log is written with the place in the log in one transaction that is not synced: after a loss
//! of power the file is as it was at an earlier sync, and so is the place, from which the log is read again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};

use super::HistoryConfig;
use super::bounds::Bounds;
use super::encoding;
use super::store::{HistoryStore, Mark, Noted, Place, StoreError, user_key};
use crate::domain::Event;

const USERS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("users");
const PLACES: TableDefinition<'_, &str, u64> = TableDefinition::new("places");
const FORMAT: TableDefinition<'_, &str, u64> = TableDefinition::new("format");
/// The one key of its table.
const EVENTS: &str = "events";
/// So many unsynced transactions at most: what they have freed can be used again only after a sync.
const UNSYNCED: u32 = 256;

/// Histories in a file. Clones share it.
#[derive(Debug, Clone)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    bounds: Bounds,
    database: Database,
    unsynced: AtomicU32,
}

impl EmbeddedStore {
    /// Opens the file, or makes it. Not for an async task.
    ///
    /// # Errors
    /// When another process has it open, when it is no such file, or of another version.
    pub fn open(config: &HistoryConfig) -> Result<Self, StoreError> {
        let path = config.path.clone();
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory).map_err(file_error(&path))?;
        }
        let database = Database::create(&path).map_err(file_error(&path))?;
        let inner = Inner { path: path.clone(), bounds: Bounds::of(config), database, unsynced: AtomicU32::new(0) };
        inner.check_format()?;
        Ok(Self { inner: Arc::new(inner) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let path = self.inner.path.clone();
        tokio::task::spawn_blocking(move || work(&inner)).await.map_err(file_error(&path))?
    }
}

impl Inner {
    /// Says in a new file what it holds, and refuses a file that holds something else.
    fn check_format(&self) -> Result<(), StoreError> {
        let transaction = self.begin(Durability::Immediate)?;
        let found = {
            let mut table = transaction.open_table(FORMAT).map_err(file_error(&self.path))?;
            let found = table.get(EVENTS).map_err(file_error(&self.path))?.map(|version| version.value());
            if found.is_none() {
                table.insert(EVENTS, u64::from(encoding::VERSION)).map_err(file_error(&self.path))?;
            }
            found
        };
        // So that whoever reads finds them.
        transaction.open_table(USERS).map_err(file_error(&self.path))?;
        transaction.open_table(PLACES).map_err(file_error(&self.path))?;
        match found {
            Some(version) if version != u64::from(encoding::VERSION) => {
                let reason = format!("holds histories of version {version}, expected {}", encoding::VERSION);
                Err(self.damaged(reason))
            }
            _ => transaction.commit().map_err(file_error(&self.path)),
        }
    }

    fn begin(&self, durability: Durability) -> Result<WriteTransaction, StoreError> {
        let mut transaction = self.database.begin_write().map_err(file_error(&self.path))?;
        transaction.set_durability(durability).map_err(file_error(&self.path))?;
        Ok(transaction)
    }

    fn damaged(&self, reason: String) -> StoreError {
        StoreError::Format { place: self.path.display().to_string(), reason }
    }

    fn recent(&self, user: &str) -> Result<Vec<Event>, StoreError> {
        let transaction = self.database.begin_read().map_err(file_error(&self.path))?;
        let table = match transaction.open_table(USERS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(file_error(&self.path)(error)),
        };
        let found = table.get(user_key(user).as_slice()).map_err(file_error(&self.path))?;
        let events = found.map_or(Ok(Vec::new()), |value| read_all(value.value()));
        let events = events.map_err(|reason| self.damaged(reason))?;
        Ok(events.into_iter().map(|kept| kept.event).collect())
    }

    fn append(&self, events: &[Noted], place: Option<(&str, u64)>) -> Result<(), StoreError> {
        let mut users: BTreeMap<&str, Vec<&Noted>> = BTreeMap::new();
        events.iter().for_each(|noted| users.entry(&noted.user).or_default().push(noted));
        let sync = place.is_none() || self.unsynced.fetch_add(1, Ordering::Relaxed) >= UNSYNCED;
        let transaction = self.begin(if sync { Durability::Immediate } else { Durability::None })?;
        {
            let mut table = transaction.open_table(USERS).map_err(file_error(&self.path))?;
            for (user, noted) in users {
                let key = user_key(user);
                let kept = table.get(key.as_slice()).map_err(file_error(&self.path))?;
                let kept = kept.map_or(Ok(Vec::new()), |value| read_all(value.value()));
                let mut kept = kept.map_err(|reason| self.damaged(reason))?;
                noted.iter().for_each(|noted| insert(&mut kept, noted));
                self.bounds.cut(&mut kept, |kept| &kept.event);
                let mut value = Vec::new();
                kept.iter().for_each(|kept| kept.write(&mut value));
                table.insert(key.as_slice(), value.as_slice()).map_err(file_error(&self.path))?;
            }
            if let Some((log, last)) = place {
                let mut places = transaction.open_table(PLACES).map_err(file_error(&self.path))?;
                places.insert(log, last).map_err(file_error(&self.path))?;
            }
        }
        transaction.commit().map_err(file_error(&self.path))?;
        if sync {
            self.unsynced.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    fn place(&self, log: &str) -> Result<u64, StoreError> {
        let transaction = self.database.begin_read().map_err(file_error(&self.path))?;
        let table = transaction.open_table(PLACES).map_err(file_error(&self.path))?;
        Ok(table.get(log).map_err(file_error(&self.path))?.map_or(0, |last| last.value()))
    }

    fn remove(&self, user: &str) -> Result<usize, StoreError> {
        let transaction = self.begin(Durability::Immediate)?;
        let removed = {
            let mut table = transaction.open_table(USERS).map_err(file_error(&self.path))?;
            let removed = table.remove(user_key(user).as_slice()).map_err(file_error(&self.path))?;
            removed.map_or(Ok(0), |value| read_all(value.value()).map(|events| events.len()))
        };
        transaction.commit().map_err(file_error(&self.path))?;
        // What cannot be read is gone as well, and counts nothing.
        Ok(removed.unwrap_or(0))
    }
}

/// One event of a user's value, which is these one after the other, each with its order (8 bytes, little-endian) before it.
struct Kept {
    order: u64,
    mark: Mark,
    event: Event,
}

impl Kept {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.order.to_le_bytes());
        encoding::write(self.mark, &self.event, out);
    }
}

/// Puts an event in its place by time and order, unless it is there already. One that was dropped as too old and comes
/// again takes the place from which it is dropped again.
fn insert(kept: &mut Vec<Kept>, noted: &Noted) {
    let Noted { order, mark, event, .. } = noted;
    if kept.iter().any(|other| other.mark == *mark) {
        return;
    }
    let place = kept.partition_point(|older| (older.event.time, older.order) <= (event.time, *order));
    kept.insert(place, Kept { order: *order, mark: *mark, event: event.clone() });
}

fn read_all(mut bytes: &[u8]) -> Result<Vec<Kept>, String> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let cut = || format!("{} bytes, expected the order of an event", bytes.len());
        let (order, rest) = bytes.split_first_chunk::<8>().ok_or_else(cut)?;
        let (mark, event, rest) = encoding::read(rest)?;
        events.push(Kept { order: u64::from_le_bytes(*order), mark, event });
        bytes = rest;
    }
    Ok(events)
}

fn file_error<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> StoreError {
    move |reason| StoreError::File { path: path.to_owned(), reason: reason.to_string() }
}

#[async_trait]
impl HistoryStore for EmbeddedStore {
    async fn recent(&self, user: &str) -> Result<Vec<Event>, StoreError> {
        // A few pages, from memory as a rule: shorter than the way to another thread.
        self.inner.recent(user)
    }

    async fn append(&self, events: &[Noted], place: Option<Place<'_>>) -> Result<(), StoreError> {
        let events = events.to_vec();
        let place = place.map(|place| (place.log.to_owned(), place.last));
        let work = move |inner: &Inner| inner.append(&events, place.as_ref().map(|(log, last)| (log.as_str(), *last)));
        self.blocking(work).await
    }

    async fn place(&self, log: &str) -> Result<u64, StoreError> {
        self.inner.place(log)
    }

    async fn remove(&self, user: &str) -> Result<usize, StoreError> {
        let user = user.to_owned();
        self.blocking(move |inner| inner.remove(&user)).await
    }
}
