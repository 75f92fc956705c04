//! Which events of a user count: repeats, and what the network reads when there are more than it can.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::domain::{Event, EventKind, Violation};

/// How much an event of each kind is worth when a history is longer than what the network reads. An event is ranked by
/// how many came after it, divided by its weight, and those of the lowest rank are read: with weight 4 a purchase lasts as
/// long as a view that is four times as fresh. Equal weights read the newest; 0 is never read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KindWeights {
    /// Of views; 0 to 1000, like the others.
    pub view: f32,
    /// Of clicks.
    pub click: f32,
    /// Of what was put into the cart.
    pub cart: f32,
    /// Of purchases.
    pub purchase: f32,
    /// Of hides. They keep their item from being answered whatever their weight.
    pub hide: f32,
    /// Of ratings.
    pub rating: f32,
}

impl Default for KindWeights {
    fn default() -> Self {
        Self { view: 1.0, click: 1.0, cart: 1.0, purchase: 1.0, hide: 1.0, rating: 1.0 }
    }
}

impl KindWeights {
    fn of(&self, kind: EventKind) -> f32 {
        match kind {
            EventKind::View => self.view,
            EventKind::Click => self.click,
            EventKind::Cart => self.cart,
            EventKind::Purchase => self.purchase,
            EventKind::Hide => self.hide,
            EventKind::Rating => self.rating,
        }
    }

    pub(super) fn problems(&self) -> Vec<Violation> {
        let outside = |kind: &&EventKind| !(0.0..=1000.0).contains(&self.of(**kind));
        let problem = |kind: &EventKind| {
            let description = format!("{}: expected 0 to 1000", self.of(*kind));
            Violation::new(format!("kind_weights.{}", kind.name()), description)
        };
        EventKind::ALL.iter().filter(outside).map(problem).collect()
    }

    /// Leaves the `limit` entries that are read, in their order: `entries` are oldest first, and `kind` tells what each
    /// is.
    pub fn choose<T>(&self, entries: &mut Vec<T>, limit: usize, kind: impl Fn(&T) -> EventKind) {
        let count = entries.len();
        let equal = EventKind::ALL.iter().all(|kind| self.of(*kind) == self.view) && self.view > 0.0;
        if equal {
            entries.drain(..count.saturating_sub(limit));
            return;
        }
        let rank = |at: usize, entry: &T| {
            let weight = self.of(kind(entry));
            (weight > 0.0).then(|| (((count - at) as f32 / weight), count - at))
        };
        let mut ranked: Vec<(f32, usize)> =
            entries.iter().enumerate().filter_map(|(at, entry)| rank(at, entry)).collect();
        ranked.sort_unstable_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        ranked.truncate(limit);
        let mut kept = vec![false; count];
        ranked.iter().for_each(|(_, age)| kept[count - age] = true);
        let mut at = 0;
        entries.retain(|_| {
            at += 1;
            kept[at - 1]
        });
    }
}

/// Drops repeats: of events of the same item and kind that lie at most `within_s` seconds apart, each from the one
/// before, only the newest counts. `events` are oldest first, and stay so. 0 drops nothing.
pub(super) fn without_repeats(events: &mut Vec<Event>, within_s: u64) {
    if within_s == 0 {
        return;
    }
    // From the newest back: the time of the last repeat of each.
    let mut seen: HashMap<(String, EventKind), i64> = HashMap::new();
    let mut kept: Vec<Event> = Vec::with_capacity(events.len());
    for event in events.drain(..).rev() {
        let before = seen.insert((event.item_id.clone(), event.kind), event.time);
        let repeat = before.is_some_and(|later| later.abs_diff(event.time) <= within_s);
        if !repeat {
            kept.push(event);
        }
    }
    kept.reverse();
    *events = kept;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(item: &str, kind: EventKind, time: i64) -> Event {
        Event { item_id: item.into(), kind, time, value: None }
    }

    #[test]
    fn a_run_of_repeats_counts_once_by_its_newest() {
        let mut events: Vec<Event> = [("a", 0), ("a", 50), ("b", 60), ("a", 100), ("a", 300)]
            .map(|(item, time)| event(item, EventKind::View, time))
            .into();
        events.insert(1, event("a", EventKind::Click, 10));
        let whole = events.clone();
        without_repeats(&mut events, 0);
        assert_eq!(events, whole);
        without_repeats(&mut events, 60);
        let kept: Vec<(&str, i64)> = events.iter().map(|event| (event.item_id.as_str(), event.time)).collect();
        assert_eq!(kept, [("a", 10), ("b", 60), ("a", 100), ("a", 300)]);
    }

    #[test]
    fn a_heavier_kind_outlasts_newer_events_and_a_weight_of_zero_is_never_read() {
        use EventKind::{Purchase, View};
        let weights = KindWeights { purchase: 4.0, ..KindWeights::default() };
        let mut kinds = vec![(0, Purchase), (1, View), (2, Purchase), (3, View), (4, View)];
        // Ranks: 5/4, 4, 3/4, 2, 1.
        weights.choose(&mut kinds, 3, |entry| entry.1);
        assert_eq!(kinds, [(0, Purchase), (2, Purchase), (4, View)]);
        let weights = KindWeights { view: 0.0, ..KindWeights::default() };
        let mut kinds = vec![(0, Purchase), (1, View)];
        weights.choose(&mut kinds, 3, |entry| entry.1);
        assert_eq!(kinds, [(0, Purchase)]);
        let nothing = KindWeights { view: 0.0, click: 0.0, cart: 0.0, purchase: 0.0, hide: 0.0, rating: 0.0 };
        nothing.choose(&mut kinds, 3, |entry| entry.1);
        assert!(kinds.is_empty());
    }

    proptest! {
        #[test]
        fn equal_weights_read_the_newest(count in 0..40usize, limit in 0..50usize, weight in 1..9u8) {
            let weight = f32::from(weight);
            let all = KindWeights { view: weight, click: weight, cart: weight, purchase: weight, hide: weight, rating: weight };
            let mut entries: Vec<usize> = (0..count).collect();
            all.choose(&mut entries, limit, |at| EventKind::ALL[at % 6]);
            prop_assert_eq!(entries, (count.saturating_sub(limit)..count).collect::<Vec<_>>());
        }
    }
}
