//! How much is kept of a user: the newest events, and the newest hides beside them. What was hidden stays hidden, however
//! much is done after it.

use super::HistoryConfig;
use crate::domain::{Event, EventKind};

/// The bounds of one user's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Newest events other than hides.
    pub(super) events: usize,
    /// Newest hides.
    pub(super) hides: usize,
}

impl Bounds {
    pub(super) fn of(config: &HistoryConfig) -> Self {
        Self { events: config.max_events, hides: config.max_hides }
    }

    /// Drops the oldest of what there is too many of; `kept` are oldest first.
    pub(super) fn cut<T>(self, kept: &mut Vec<T>, event: impl Fn(&T) -> &Event) {
        let hides = kept.iter().filter(|one| is_hide(event(one))).count();
        let others = kept.len() - hides;
        let (mut hides, mut others) = (hides.saturating_sub(self.hides), others.saturating_sub(self.events));
        kept.retain(|one| {
            let beyond = if is_hide(event(one)) { &mut hides } else { &mut others };
            let stays = *beyond == 0;
            *beyond = beyond.saturating_sub(1);
            stays
        });
    }
}

pub(super) fn is_hide(event: &Event) -> bool {
    event.kind == EventKind::Hide
}
