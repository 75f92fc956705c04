//! The event log, and the data set before it, as what each user did in order of time.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::increment::up_to;
use crate::catalog::Index;
use crate::domain::{EventKind, HistoryEntry, ItemNumber};
use crate::events::{self, ForgottenUsers, SegmentError};
use crate::training::dataset::Dataset;

/// One event of a known item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Told {
    /// Unix time in seconds.
    pub time: i64,
    /// Its place in the log; 0 for what the data set brought.
    pub place: u64,
    /// The item.
    pub item: ItemNumber,
    /// What was done.
    pub kind: EventKind,
}

/// What each user did, and what was left out.
#[derive(Debug, Default)]
pub struct Replay {
    /// External ids, by dense user number.
    pub users: Vec<String>,
    /// For each user, the events of known items by time; of one second in the order of arrival. Hides and low ratings are
    /// left out: nobody is to be led to them.
    pub sequences: Vec<Vec<Told>>,
    /// For each user, these hides and low ratings in the same order, all of them as hides: what post-training rewards by.
    pub declined: Vec<Vec<Told>>,
    /// Places in the log of the events on items that the index does not know.
    pub unknown: Vec<u64>,
    /// Places in the log of the events that hide an item or rate it low.
    pub hidden: Vec<u64>,
    /// Places in the log of the events whose id had been there before.
    pub repeated: Vec<u64>,
    /// The last place that was read; 0 for an empty log.
    pub end: u64,
}

impl Replay {
    /// Reads the log up to the place `until`, after `data`. Each event stands where its time says, whenever it came. A rating
    /// below `low_rating` says what a hide says.
    ///
    /// # Errors
    /// As [`events::read`].
    pub fn read(
        log: &Path,
        until: u64,
        data: Option<&Dataset>,
        index: &Index,
        low_rating: f32,
    ) -> Result<Self, SegmentError> {
        let mut replay = Self::default();
        let mut numbers = HashMap::new();
        if let Some(data) = data {
            // Who was forgotten is not brought back by what was before the log.
            replay.before(data, &ForgottenUsers::read(log)?, index, low_rating, &mut numbers);
        }
        let mut ids = HashSet::new();
        events::read(log, &mut |logged| {
            if logged.sequence > until {
                return;
            }
            replay.end = replay.end.max(logged.sequence);
            let event = &logged.event;
            if !event.event_id.is_empty() && !ids.insert(event.event_id.clone()) {
                replay.repeated.push(logged.sequence);
                return;
            }
            let Some(item) = index.number(&event.event.item_id) else {
                replay.unknown.push(logged.sequence);
                return;
            };
            let user = replay.user(&event.user_id, &mut numbers);
            let (kind, place) = (event.event.kind, logged.sequence);
            let declined = declines(kind, event.event.value, low_rating);
            if declined {
                replay.hidden.push(place);
            }
            replay.add(user, Told { time: event.event.time, place, item, kind }, declined);
        })?;
        // Stable: what a data set brought keeps its order, and comes before what the log has of the same second.
        let all = replay.sequences.iter_mut().chain(&mut replay.declined);
        all.for_each(|sequence| sequence.sort_by_key(|told| (told.time, told.place)));
        Ok(replay)
    }

    /// What a user did up to the place `cut`, with what was declined in its place.
    pub fn whole(&self, user: usize, cut: u64) -> Vec<Told> {
        let of = |all: &[Vec<Told>]| all.get(user).map_or_else(Vec::new, |events| up_to(events, cut));
        let (mut whole, declined) = (of(&self.sequences), of(&self.declined));
        if !declined.is_empty() {
            whole.extend(declined);
            whole.sort_by_key(|told| (told.time, told.place));
        }
        whole
    }

    /// SHA-256 of all of it in lower-case hex.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for (user, sequence) in self.users.iter().zip(&self.sequences) {
            hash.update((user.len() as u64).to_le_bytes());
            hash.update(user);
            hash.update((sequence.len() as u64).to_le_bytes());
            for Told { time, place, item, kind } in sequence {
                hash.update(time.to_le_bytes());
                hash.update(place.to_le_bytes());
                hash.update(item.to_le_bytes());
                hash.update([*kind as u8]);
            }
        }
        for place in self.unknown.iter().chain(&self.hidden).chain(&self.repeated) {
            hash.update(place.to_le_bytes());
        }
        format!("{:x}", hash.finalize())
    }

    fn before(
        &mut self,
        data: &Dataset,
        forgotten: &ForgottenUsers,
        index: &Index,
        low_rating: f32,
        numbers: &mut HashMap<String, usize>,
    ) {
        let items: Vec<Option<ItemNumber>> = data.items.iter().map(|item| index.number(&item.item.id)).collect();
        let users = data.user_ids.iter().zip(&data.sequences);
        for (id, sequence) in users.filter(|(id, _)| !forgotten.contains(id)) {
            let user = self.user(id, numbers);
            for event in sequence {
                let Some(item) = items[event.item as usize] else { continue };
                let told = Told { time: event.time, place: 0, item, kind: event.kind };
                self.add(user, told, declines(event.kind, event.value, low_rating));
            }
        }
    }

    fn add(&mut self, user: usize, told: Told, declined: bool) {
        if declined {
            self.declined[user].push(Told { kind: EventKind::Hide, ..told });
        } else {
            self.sequences[user].push(told);
        }
    }

    fn user(&mut self, id: &str, numbers: &mut HashMap<String, usize>) -> usize {
        if let Some(&user) = numbers.get(id) {
            return user;
        }
        let user = self.users.len();
        numbers.insert(id.to_owned(), user);
        self.users.push(id.to_owned());
        self.sequences.push(Vec::new());
        self.declined.push(Vec::new());
        user
    }
}

/// Whether the user did not want the item: hid it, or rated it below `low_rating`. A rating without a value says neither.
fn declines(kind: EventKind, value: Option<f32>, low_rating: f32) -> bool {
    match kind {
        EventKind::Hide => true,
        EventKind::Rating => value.is_some_and(|value| value < low_rating),
        _ => false,
    }
}

impl Told {
    /// The event as a history holds it.
    pub fn entry(&self) -> HistoryEntry {
        HistoryEntry { item: self.item, kind: self.kind, time: self.time }
    }
}
