//! What every store of histories does, and what goes in and out of one.

use std::fmt::Debug;
use std::path::PathBuf;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::domain::{Event, UserEvent};

/// Names one event for all time: 128 bits of a hash of its id, or of its place in its log where it has none. A store that
/// holds an event of this mark does not take it in again, so that a batch may be written twice and count once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(pub(super) [u8; 16]);

impl Mark {
    /// The mark of an event that was logged at `place` of the log that is called `log`.
    pub fn of(event: &UserEvent, log: &str, place: u64) -> Self {
        if event.event_id.is_empty() {
            return Self(hashed(&[b"place", log.as_bytes(), &place.to_le_bytes()]));
        }
        Self(hashed(&[b"id", event.event_id.as_bytes()]))
    }

    /// The mark of the `at`-th event of a user in a file that is loaded: the same file loaded again has the same marks.
    pub fn loaded(user: &str, at: usize, event: &Event) -> Self {
        let Event { item_id, kind, time, .. } = event;
        let (at, kind) = ((at as u64).to_le_bytes(), [*kind as u8]);
        Self(hashed(&[b"file", user.as_bytes(), item_id.as_bytes(), &kind, &time.to_le_bytes(), &at]))
    }
}

/// Under what a user stands in a store that outlives the process: never the id itself, so that what a file keeps of
/// pages that were freed names nobody.
pub(super) fn user_key(user: &str) -> [u8; 16] {
    hashed(&[b"user", user.as_bytes()])
}

/// The head of a SHA-256 of the parts, each with its length, so that no two lists of parts read alike.
fn hashed(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut head = [0; 16];
    head.copy_from_slice(&hash.finalize()[..16]);
    head
}

/// An event on its way into a store.
#[derive(Debug, Clone, PartialEq)]
pub struct Noted {
    /// Whose it is.
    pub user: String,
    /// Names it.
    pub mark: Mark,
    /// Orders events of the same second: the later, the higher.
    pub order: u64,
    /// What was done.
    pub event: Event,
}

/// How far a store has followed one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The log's name.
    pub log: &'a str,
    /// The place of the last event that the store held before, as far as the writer knows.
    pub after: u64,
    /// The place of the last event that the store holds.
    pub last: u64,
}

/// Why a store did not do it.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It cannot be reached, or did not answer in time. It may be asked again.
    #[error("the history store cannot be reached: {0}")]
    Away(String),
    /// It has followed less far than it had: what it held is gone, as of a Redis that began anew.
    #[error("the history store lost what it held: it has followed the log to {found}, and had to {after}")]
    Lost {
        /// Where it is.
        found: u64,
        /// Where it was.
        after: u64,
    },
    /// What it holds cannot be read.
    #[error("{place}: {reason}")]
    Format {
        /// The file or the key.
        place: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// Its settings are not usable.
    #[error("history.{field} is {reason}")]
    Settings {
        /// The setting.
        field: &'static str,
        /// What it is and what was expected.
        reason: String,
    },
    /// The file system, or the embedded store.
    #[error("{}: {reason}", path.display())]
    File {
        /// The store's file.
        path: PathBuf,
        /// What was said.
        reason: String,
    },
}

/// Recent events by user. Every method may be called by many at once.
#[async_trait]
pub trait HistoryStore: Debug + Send + Sync {
    /// All that is kept of the user, oldest first; of the same second in the order of arrival. Empty: nothing is.
    async fn recent(&self, user: &str) -> Result<Vec<Event>, StoreError>;

    /// Takes the events in, each in its place by time; those whose mark it holds are left out. When a user has too many,
    /// the oldest go; hides have a bound of their own. `place` is remembered no earlier than the events are. A store that others
    /// may empty and that has followed less far than `place.after` says so ([`StoreError::Lost`]) and stays at its place.
    async fn append(&self, events: &[Noted], place: Option<Place<'_>>) -> Result<(), StoreError>;

    /// How far the store has followed that log; 0: not at all, or it forgets when the process ends.
    async fn place(&self, log: &str) -> Result<u64, StoreError>;

    /// Drops all that is kept of the user. Answers how many events that was.
    async fn remove(&self, user: &str) -> Result<usize, StoreError>;
}
