//! Items that come while an engine runs: left by others, taken up by its thread before the next batch.

use std::sync::{Arc, Mutex, PoisonError};

use crate::catalog::Index;
use crate::decode::Placement;

/// What an engine is to decode over from the next batch on.
#[derive(Debug, Clone)]
pub struct Growth {
    /// At least the items of the index before, under the same numbers, so that what was drawn from that one still holds.
    pub index: Arc<Index>,
    /// The items that are new or have another code.
    pub placed: Vec<Placement>,
}

/// Where a growth waits for the engine's thread. Several that came meanwhile are one.
#[derive(Debug, Default)]
pub(super) struct Growths(Mutex<Option<Growth>>);

impl Growths {
    /// Leaves a growth. What is enqueued from here on is decoded over it: a batch is formed before this is looked at.
    pub(super) fn put(&self, growth: Growth) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *waiting {
            Some(before) => {
                before.index = growth.index;
                before.placed.extend(growth.placed);
            }
            None => *waiting = Some(growth),
        }
    }

    pub(super) fn take(&self) -> Option<Growth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
