//! Replayed exposures: what users were shown by any model after the cut, and what of it they took.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::increment::latest;
use super::replay::{Replay, Told};
use crate::catalog::Index;
use crate::domain::{History, ItemNumber};
use crate::evaluation::HISTORY_LIMIT;
use crate::events::{Record, SegmentError, read_records_after};

/// One answer that was shown, some of whose items were taken and some not.
#[derive(Debug, Clone, PartialEq)]
pub struct Slate {
    /// What the user had done by the cut, oldest first; at least one event.
    pub history: History,
    /// The items shown, as far as they are known, and whether each was taken.
    pub shown: Vec<(ItemNumber, bool)>,
}

/// The exposures between the places `cut` and `end` of the log that can tell models apart: of a user with a history, with
/// an item that was taken and one that was not. At most `most`, evenly thinned. Items are those below `known`.
///
/// # Errors
/// As [`read_records_after`].
pub fn slates(
    log: &Path,
    (cut, end): (u64, u64),
    replay: &Replay,
    index: &Index,
    known: usize,
    most: usize,
) -> Result<Vec<Slate>, SegmentError> {
    let mut shown: Vec<(String, String, Vec<ItemNumber>)> = Vec::new();
    let mut taken: HashMap<String, Vec<ItemNumber>> = HashMap::new();
    let mut requests = HashSet::new();
    // By place, as both lists are.
    let is_none = |place: u64| [&replay.hidden, &replay.repeated].iter().any(|all| all.binary_search(&place).is_ok());
    let number = |id: &str| index.number(id).filter(|&item| (item as usize) < known);
    read_records_after(log, cut, &mut |record| {
        if record.sequence() > end {
            return;
        }
        match record {
            Record::Exposure(exposed) => {
                let exposure = exposed.exposure;
                // What came from another server may have come again.
                if !requests.insert(exposure.request_id.clone()) {
                    return;
                }
                let items = exposure.item_ids.iter().filter_map(|id| number(id)).collect();
                shown.push((exposure.request_id, exposure.user_id, items));
            }
            Record::Event(logged) => {
                let event = &logged.event;
                let wanted = !event.request_id.is_empty() && !is_none(logged.sequence);
                if let Some(item) = number(&event.event.item_id).filter(|_| wanted) {
                    taken.entry(event.request_id.clone()).or_default().push(item);
                }
            }
        }
    })?;
    let users: HashMap<&str, usize> = replay.users.iter().enumerate().map(|(at, id)| (id.as_str(), at)).collect();
    let slate = |(request, user, items): (String, String, Vec<ItemNumber>)| {
        let taken = taken.get(&request)?;
        let shown: Vec<(ItemNumber, bool)> = items.into_iter().map(|item| (item, taken.contains(&item))).collect();
        let before = &replay.sequences[*users.get(user.as_str())?];
        let before: Vec<Told> =
            before.iter().filter(|told| told.place <= cut && (told.item as usize) < known).copied().collect();
        let tells = shown.iter().any(|(_, taken)| *taken) && shown.iter().any(|(_, taken)| !taken);
        (tells && !before.is_empty()).then(|| Slate { history: latest(&before, HISTORY_LIMIT), shown })
    };
    let all: Vec<Slate> = shown.into_iter().filter_map(slate).collect();
    let every = all.len().div_ceil(most).max(1);
    Ok(all.into_iter().step_by(every).collect())
}

impl Slate {
    /// Of the pairs of an item that was taken and one that was not, the share that `ranked` (best first) puts in this order.
    /// Items that it does not name come last, and tie there.
    pub fn order(&self, ranked: &[ItemNumber]) -> f64 {
        let place = |item: ItemNumber| ranked.iter().position(|&other| other == item).unwrap_or(ranked.len());
        let (mut right, mut pairs) = (0.0, 0.0);
        for (taken, _) in self.shown.iter().filter(|(_, taken)| *taken) {
            for (left, _) in self.shown.iter().filter(|(_, taken)| !taken) {
                pairs += 1.0;
                right += match place(*taken).cmp(&place(*left)) {
                    std::cmp::Ordering::Less => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Greater => 0.0,
                };
            }
        }
        right / f64::max(pairs, 1.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::fixtures::{event, expose, index, log};
    use super::*;
    use crate::domain::{EventKind, UserEvent};

    #[test]
    fn what_was_shown_after_the_cut_and_partly_taken_is_replayed_with_the_history_before_it() {
        let home = tempfile::tempdir().unwrap();
        let answering = |event: UserEvent, request: &str| UserEvent { request_id: request.into(), ..event };
        log(home.path(), vec![vec![event("a", 1, 10, EventKind::View), event("b", 2, 10, EventKind::View)]]); // places 1, 2
        expose(home.path(), "before", "a", &[3, 4]); // 3
        log(home.path(), vec![vec![answering(event("a", 3, 20, EventKind::Click), "before")]]); // 4
        expose(home.path(), "half", "a", &[5, 6, 99]); // 5
        expose(home.path(), "all", "a", &[7]); // 6
        expose(home.path(), "none", "b", &[7, 8]); // 7
        expose(home.path(), "stranger", "c", &[7, 8]); // 8
        let clicks = [("a", 6, "half"), ("a", 7, "all"), ("c", 8, "stranger"), ("a", 5, "unheard")];
        let click = |(user, item, request)| answering(event(user, item, 30, EventKind::Click), request);
        let mut low = answering(event("b", 7, 40, EventKind::Rating), "none");
        low.event.value = Some(1.0);
        let hide = answering(event("b", 8, 40, EventKind::Hide), "none");
        log(home.path(), vec![clicks.map(click).into(), vec![hide, low]]);
        let index = index(20);
        let replay = Replay::read(home.path(), u64::MAX, None, &index, 3.0).unwrap();
        let found = |cut, end, known| slates(home.path(), (cut, end), &replay, &index, known, 100).unwrap();
        let one = found(4, u64::MAX, 20);
        assert_eq!(one.len(), 1, "{one:?}");
        assert_eq!(one[0].shown, [(5, false), (6, true)]);
        assert_eq!(one[0].history.iter().map(|entry| entry.item).collect::<Vec<_>>(), [1, 3]);
        assert!(found(4, 8, 20).is_empty(), "what was taken later is not known yet");
        assert!(found(4, u64::MAX, 6).is_empty(), "an item that the bundle does not know");
        assert_eq!(found(1, u64::MAX, 20).len(), 2);
    }

    #[test]
    fn the_order_of_a_slate_is_the_share_of_pairs_in_it() {
        let slate = Slate { history: Vec::new(), shown: vec![(1, true), (2, false), (3, true), (4, false)] };
        for (ranked, order) in [(&[1, 3, 2, 4][..], 1.0), (&[2, 4, 1, 3], 0.0), (&[1, 2, 3, 4], 0.75), (&[], 0.5)] {
            assert_eq!(slate.order(ranked), order, "{ranked:?}");
        }
    }
}
