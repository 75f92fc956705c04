//! Data sets: who did what, when, and to which items. Read from two Parquet files, checked row by row.

mod columns;
mod cores;
mod error;
mod fingerprint;
mod read;
mod split;
mod summary;
#[cfg(test)]
mod tests;
mod write;

use std::path::Path;

use crate::domain::{EventKind, Item, ItemNumber};

pub use self::cores::k_core;
pub use self::error::DataError;
pub use self::split::{Part, Split};
pub use self::summary::Summary;

/// The file of the events, in a data set's directory.
pub const INTERACTIONS_FILE: &str = "interactions.parquet";
/// The file of the items, in a data set's directory.
pub const ITEMS_FILE: &str = "items.parquet";

/// One event of one user.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interaction {
    /// The user, by its place in [`Dataset::user_ids`].
    pub user: u32,
    /// The item, by its place in [`Dataset::items`].
    pub item: ItemNumber,
    /// Unix time in seconds; the place in the sequence where the data set has order instead of times.
    pub time: i64,
    /// What was done; where the data does not say, the kind of an event that is sent without one.
    pub kind: EventKind,
    /// Rating or amount, finite.
    pub value: Option<f32>,
}

/// One item, with what its features are built from.
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetItem {
    /// The item. Its id is the decimal `item_id`, or `external_id` where the data set has that column.
    pub item: Item,
    /// Longer text for features: title, description and whatever else is told of the item.
    pub text: Option<String>,
    /// Content embedding, finite; all that are given have one width.
    pub embedding: Option<Vec<f32>>,
}

/// Reads the items of one file of the layout, whatever its name, in the order of its rows.
///
/// # Errors
/// As [`Dataset::read`].
pub fn read_items(file: &Path) -> Result<Vec<DatasetItem>, DataError> {
    read::items(file)
}

/// Users, items, and each user's events in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// External ids, by dense user number.
    pub user_ids: Vec<String>,
    /// Items, by dense number: the order of the items' file.
    pub items: Vec<DatasetItem>,
    /// For each user, the events, oldest first.
    pub sequences: Vec<Vec<Interaction>>,
    /// SHA-256 over the content, in lower-case hex: equal for equal data, however the files were packed.
    pub fingerprint: String,
    /// False when every time is only the place in the sequence.
    pub has_times: bool,
}

impl Dataset {
    /// Puts a data set together and checks that it does not contradict itself: every user has a sequence and every
    /// event its user's number and an item that is there, ids are unique and not empty, prices finite and not
    /// negative, values and embeddings finite, embeddings of one width.
    pub fn new(
        user_ids: Vec<String>,
        items: Vec<DatasetItem>,
        sequences: Vec<Vec<Interaction>>,
    ) -> Result<Self, DataError> {
        let mut dataset = Self { user_ids, items, sequences, fingerprint: String::new(), has_times: false };
        dataset.check().map_err(DataError::Inconsistent)?;
        dataset.fingerprint = fingerprint::fingerprint(&dataset);
        dataset.has_times = dataset
            .sequences
            .iter()
            .any(|sequence| sequence.iter().enumerate().any(|(place, event)| event.time != place as i64));
        Ok(dataset)
    }

    /// Reads `interactions.parquet` and `items.parquet` of a directory.
    pub fn read(directory: &Path) -> Result<Self, DataError> {
        read::read(directory)
    }

    /// Writes both files into a directory, which is made when it is not there; `read` gives the same data set back.
    pub fn write(&self, directory: &Path) -> Result<(), DataError> {
        self.check().map_err(DataError::Inconsistent)?;
        write::write(self, directory)
    }

    /// The number of events of all users.
    pub fn interactions(&self) -> usize {
        self.sequences.iter().map(Vec::len).sum()
    }

    fn check(&self) -> Result<(), String> {
        if self.user_ids.len() != self.sequences.len() {
            return Err(format!("{} users have {} sequences", self.user_ids.len(), self.sequences.len()));
        }
        if self.items.len() > u32::MAX as usize || self.user_ids.len() > u32::MAX as usize {
            return Err("more than 2^32 - 1 users or items".to_owned());
        }
        check_ids("user", self.user_ids.iter().map(String::as_str))?;
        check_ids("item", self.items.iter().map(|item| item.item.id.as_str()))?;
        let mut width = None;
        for (number, item) in self.items.iter().enumerate() {
            check_item(item, &mut width).map_err(|problem| format!("item {number}: {problem}"))?;
        }
        for (user, sequence) in self.sequences.iter().enumerate() {
            if sequence.is_empty() {
                return Err(format!("user {user} has no event"));
            }
            for (place, event) in sequence.iter().enumerate() {
                self.check_event(user, event).map_err(|problem| format!("user {user}, event {place}: {problem}"))?;
            }
        }
        Ok(())
    }

    fn check_event(&self, user: usize, event: &Interaction) -> Result<(), String> {
        if event.user as usize != user {
            return Err(format!("belongs to user {}", event.user));
        }
        if event.item as usize >= self.items.len() {
            return Err(format!("item {} of {}", event.item, self.items.len()));
        }
        match event.value {
            Some(value) if !value.is_finite() => Err(format!("value {value}, expected a finite number")),
            _ => Ok(()),
        }
    }
}

fn check_ids<'a>(what: &str, ids: impl ExactSizeIterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = std::collections::HashSet::with_capacity(ids.len());
    for (number, id) in ids.enumerate() {
        if id.trim().is_empty() {
            return Err(format!("{what} {number} has an empty id"));
        }
        if !seen.insert(id) {
            return Err(format!("{what} {number} has the id {id:?}, which another has too"));
        }
    }
    Ok(())
}

fn check_item(item: &DatasetItem, width: &mut Option<usize>) -> Result<(), String> {
    if let Some(price) = item.item.price
        && !(price.is_finite() && price >= 0.0)
    {
        return Err(format!("price {price}, expected a finite number, not negative"));
    }
    let Some(embedding) = &item.embedding else { return Ok(()) };
    if let Some(at) = embedding.iter().position(|value| !value.is_finite()) {
        return Err(format!("embedding entry {at} is {}, expected a finite number", embedding[at]));
    }
    let width = *width.get_or_insert(embedding.len());
    if embedding.is_empty() || embedding.len() != width {
        return Err(format!("embedding of {} numbers, expected {}", embedding.len(), width.max(1)));
    }
    Ok(())
}
