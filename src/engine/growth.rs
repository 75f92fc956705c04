//! Items that come while an engine runs: left by others, taken up by its thread before the next batch.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::catalog::Index;
use crate::decode::Placement;
use crate::domain::ItemNumber;

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
    /// Leaves a growth. What is enqueued from here on is decoded over it: a batch is formed before this is looked at. An item
    /// that is placed anew is not kept as it was before, so that an engine that runs no batches keeps no more than the items.
    pub(super) fn put(&self, growth: Growth) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *waiting {
            Some(before) => {
                before.index = growth.index;
                let stays = |placed: &Placement| placed.like.iter().any(|(item, _)| *item == placed.item);
                let anew = growth.placed.iter().filter(|placed| !stays(placed)).map(|placed| placed.item);
                let anew: HashSet<ItemNumber> = anew.collect();
                before.placed.retain(|placed| !anew.contains(&placed.item));
                before.placed.extend(growth.placed);
            }
            None => *waiting = Some(growth),
        }
    }

    pub(super) fn take(&self) -> Option<Growth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::index;

    #[test]
    fn an_idle_engine_keeps_the_last_place_of_each_item() {
        let (growths, index) = (Growths::default(), index(100));
        let placed = |item: ItemNumber, like: &[(ItemNumber, f32)]| Placement { item, like: like.to_vec() };
        let put = |placed: Vec<Placement>| growths.put(Growth { index: Arc::clone(&index), placed });
        for round in 0..100 {
            put(vec![placed(1, &[(0, 1.0)]), placed(2, &[(round, 1.0)])]);
        }
        // As it was before, under another code.
        put(vec![placed(1, &[(1, 1.0)])]);
        let all = growths.take().unwrap().placed;
        assert_eq!(all, [placed(1, &[(0, 1.0)]), placed(2, &[(99, 1.0)]), placed(1, &[(1, 1.0)])]);
    }
}
