//! What is asked of a ranker, and the answer that counts.

use crate::domain::{History, ItemNumber};

/// The most events of a history that a ranker is given: the latest ones.
pub const HISTORY_LIMIT: usize = 50;

/// What a user had done, and what came next.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// The user, by its dense number in the data set.
    pub user: u32,
    /// The latest events before the target, oldest first; at most [`HISTORY_LIMIT`], at least one.
    pub history: History,
    /// Every item the user had met before the target, also beyond the history's bound; sorted, each once.
    pub seen: Vec<ItemNumber>,
    /// What came next.
    pub target: ItemNumber,
}

/// What a ranker is told of a trial.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Oldest first, at least one event.
    pub history: &'a History,
    /// How many items to name; never more than there are to choose from.
    pub k: usize,
    /// Items not to name, sorted, each once.
    pub exclude: &'a [ItemNumber],
}

impl Question<'_> {
    /// Whether `item` may be named.
    pub fn allows(&self, item: ItemNumber) -> bool {
        self.exclude.binary_search(&item).is_err()
    }
}
