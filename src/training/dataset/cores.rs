//! The k-core: what is left when users and items with few events are taken away until none is left to take.

use super::{DataError, Dataset, DatasetItem, Interaction};

/// Keeps the users and items that have at least `k` events among themselves. Numbers are given anew, in the old order;
/// where the data set has order instead of times, the times follow the new places.
///
/// Fails when nothing is left.
pub fn k_core(dataset: &Dataset, k: usize) -> Result<Dataset, DataError> {
    let (users, items) = survivors(dataset, k);
    let mut item_numbers = vec![None; dataset.items.len()];
    let mut kept_items: Vec<DatasetItem> = Vec::new();
    for (old, item) in dataset.items.iter().enumerate().filter(|&(old, _)| items[old]) {
        item_numbers[old] = Some(kept_items.len() as u32);
        kept_items.push(item.clone());
    }
    let mut user_ids = Vec::new();
    let mut sequences = Vec::new();
    for (old, sequence) in dataset.sequences.iter().enumerate().filter(|&(old, _)| users[old]) {
        let user = user_ids.len() as u32;
        let known = sequence.iter().filter_map(|event| Some((event, item_numbers[event.item as usize]?)));
        let renumbered = known.enumerate().map(|(place, (event, item))| {
            let time = if dataset.has_times { event.time } else { place as i64 };
            Interaction { user, item, time, ..*event }
        });
        sequences.push(renumbered.collect());
        user_ids.push(dataset.user_ids[old].clone());
    }
    if user_ids.is_empty() {
        return Err(DataError::Inconsistent(format!("no user and item have {k} events among themselves")));
    }
    Dataset::new(user_ids, kept_items, sequences)
}

/// Which users and which items stay. The fixed point does not depend on who is taken away first.
fn survivors(dataset: &Dataset, k: usize) -> (Vec<bool>, Vec<bool>) {
    let k = k.max(1);
    let mut users = vec![true; dataset.sequences.len()];
    let mut items = vec![true; dataset.items.len()];
    loop {
        let mut changed = false;
        let mut item_events = vec![0_usize; items.len()];
        for (kept, sequence) in users.iter_mut().zip(&dataset.sequences).filter(|(kept, _)| **kept) {
            let known = sequence.iter().map(|event| event.item as usize).filter(|&item| items[item]);
            if known.clone().count() < k {
                *kept = false;
                changed = true;
            } else {
                known.for_each(|item| item_events[item] += 1);
            }
        }
        for (kept, &events) in items.iter_mut().zip(&item_events) {
            changed |= *kept && events < k;
            *kept &= events >= k;
        }
        if !changed {
            return (users, items);
        }
    }
}
