//! Whom a candidate's golden requests ask for: nobody. A bundle outlives the log, and goes where servers are; what a user did
//! must not, or the user could not be forgotten.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::domain::{EventKind, HistoryEntry};
use crate::evaluation::Trial;

/// Histories that are made up.
const COUNT: usize = 8;
/// Events of the longest.
const LONGEST: usize = 20;
/// When they begin, in Unix seconds: 2020.
const BEGIN: i64 = 1_577_836_800;
/// An event follows the one before within so many seconds.
const APART: i64 = 86_400;
const KINDS: [EventKind; 4] = [EventKind::View, EventKind::Click, EventKind::Cart, EventKind::Purchase];

/// Requests for histories of any of `items` items, of at most `longest` events; all of them follow from `seed`.
pub(super) fn made_up(items: usize, longest: usize, seed: u64) -> Vec<Trial> {
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x601D_E11E);
    let longest = longest.clamp(1, LONGEST);
    (0..COUNT as u32)
        .map(|user| {
            let length = random.random_range(1..=longest);
            let mut time = BEGIN;
            let history = (0..length).map(|_| {
                time += random.random_range(1..=APART);
                let item = random.random_range(0..items as u32);
                HistoryEntry { item, kind: KINDS[random.random_range(0..KINDS.len())], time }
            });
            Trial { user, history: history.collect(), seen: Vec::new(), target: 0 }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_are_made_of_items_and_the_seed_alone() {
        let found = made_up(30, 50, 7);
        assert_eq!((found.len(), &found), (COUNT, &made_up(30, 50, 7)));
        assert_ne!(found, made_up(30, 50, 8));
        assert!(found.iter().all(|trial| (1..=LONGEST).contains(&trial.history.len())));
        assert!(found.iter().flat_map(|trial| &trial.history).all(|entry| entry.item < 30));
        assert!(found.iter().all(|trial| trial.history.is_sorted_by_key(|entry| entry.time)));
        assert!(made_up(1, 3, 7).iter().all(|trial| trial.history.len() <= 3));
    }
}
