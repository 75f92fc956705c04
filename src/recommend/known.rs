//! Events of the outside, resolved to one bundle's items.

use crate::catalog::Index;
use crate::domain::{Event, EventKind, Filter, History, HistoryEntry, ItemNumber};
use crate::history::KindWeights;

/// What one bundle knows of what a user did.
#[derive(Debug, PartialEq)]
pub(super) struct Known {
    /// The newest events of known items, oldest first.
    pub(super) history: History,
    /// Items that must not be answered: those the user asked to hide, and all seen ones where the filter says so.
    pub(super) excluded: Vec<ItemNumber>,
}

impl Known {
    /// Drops the events of unknown items and keeps `limit` of the rest: the newest, or those that `weights` choose. What
    /// is excluded looks at all events,
    /// also at those too old for the history.
    pub(super) fn of(events: &[Event], index: &Index, filter: &Filter, weights: &KindWeights, limit: usize) -> Self {
        let resolve = |event: &Event| {
            Some(HistoryEntry { item: index.number(&event.item_id)?, kind: event.kind, time: event.time })
        };
        let mut history: History = events.iter().filter_map(resolve).collect();
        let excludes = |entry: &&HistoryEntry| filter.exclude_seen || entry.kind == EventKind::Hide;
        let excluded = history.iter().filter(excludes).map(|entry| entry.item).collect();
        weights.choose(&mut history, limit, |entry| entry.kind);
        Self { history, excluded }
    }
}
