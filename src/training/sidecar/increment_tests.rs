//! The increment out of real logs: late events, unknown items, repeated ids, users that are forgotten.

use std::path::Path;

use super::fixtures::{event, forget, index, log};
use super::increment::{Bounds, Counts, Increment, IncrementConfig};
use super::replay::Replay;
use crate::domain::EventKind::{Click, Hide, Rating, View};
use crate::domain::UserEvent;
use crate::events::read_name;
use crate::training::dataset::{Dataset, DatasetItem, Interaction};

const ITEMS: u16 = 20;
const CONFIG: IncrementConfig =
    IncrementConfig { held_out_share: 0.25, held_out_users: 100, context: 2, rehearsal: 1.0, low_rating: 3.0 };

fn replay(directory: &Path, data: Option<&Dataset>) -> Replay {
    Replay::read(directory, u64::MAX, data, &index(ITEMS), CONFIG.low_rating).unwrap()
}

fn part(replay: &Replay, learnt_through: u64, cut: u64) -> Increment {
    CONFIG.part(replay, Bounds { learnt_through, cut }, usize::from(ITEMS), usize::from(ITEMS))
}

fn items(sequence: &[crate::domain::HistoryEntry]) -> Vec<u32> {
    sequence.iter().map(|entry| entry.item).collect()
}

#[test]
fn a_late_event_is_learnt_where_its_time_says() {
    let home = tempfile::tempdir().unwrap();
    let first = vec![event("a", 1, 100, View), event("a", 2, 200, View), event("a", 3, 300, View)];
    // The second request came later and happened earlier, in no order.
    let late = vec![event("a", 5, 250, Click), event("a", 4, 150, Click)];
    log(home.path(), vec![first, late]);
    let replay = replay(home.path(), None);
    assert_eq!((replay.end, replay.sequences.len()), (5, 1));
    // Places 4 and 5 are new: they are learnt between what was there, with two events before the earlier one at most.
    let increment = part(&replay, 3, 5);
    assert_eq!(items(&increment.sequences[0]), [1, 4, 2, 5, 3]);
    assert_eq!((increment.counts.learnt, increment.counts.fresh, increment.taken[4], increment.taken[1]), (2, 2, 1, 0));
    // The context is bounded.
    let increment = part(&replay, 4, 5);
    assert_eq!(items(&increment.sequences[0]), [1, 4, 2, 5, 3]);
    let increment = part(&Replay { sequences: replay.sequences.clone(), ..Replay::default() }, 2, 3);
    assert_eq!(items(&increment.sequences[0]), [1, 2, 3]);
}

#[test]
fn the_newest_arrivals_are_held_out_and_no_history_holds_them() {
    let home = tempfile::tempdir().unwrap();
    let requests = (0..8).map(|at| vec![event("a", at, 1000 - 10 * (at as i64 % 3), View)]).collect();
    log(home.path(), requests);
    let replay = replay(home.path(), None);
    // A quarter of eight: places 7 and 8, with the items 6 and 7.
    assert_eq!(CONFIG.cut(&replay, 0), 6);
    assert_eq!(CONFIG.cut(&replay, 7), 7, "one event cannot be parted");
    let increment = part(&replay, 0, 6);
    assert_eq!(items(&increment.sequences[0]), [2, 5, 1, 4, 0, 3]);
    assert_eq!((increment.counts.learnt, increment.counts.held_out), (6, 2));
    let trials = [increment.choosers.as_slice(), &increment.judges].concat();
    assert_eq!(trials.len(), 1);
    // Item 7 happened at 990, item 6 at 1000: the earlier is asked for, with what had happened by then.
    assert_eq!(
        (trials[0].target, items(&trials[0].history), trials[0].seen.clone()),
        (7, vec![2, 5, 1, 4], vec![1, 2, 4, 5])
    );
}

#[test]
fn a_held_out_item_that_was_met_before_is_no_target() {
    let home = tempfile::tempdir().unwrap();
    log(home.path(), vec![vec![event("a", 1, 1, View), event("a", 2, 2, View), event("a", 1, 3, Click)]]);
    let replay = replay(home.path(), None);
    let trials = |increment: Increment| increment.choosers.len() + increment.judges.len();
    assert_eq!(trials(part(&replay, 0, 2)), 0);
    assert_eq!(trials(part(&replay, 0, 1)), 1);
    // Nothing is known before the first: no trial.
    assert_eq!(trials(part(&replay, 0, 0)), 0);
}

#[test]
fn unknown_items_hides_and_repeated_events_are_counted_and_not_learnt() {
    let home = tempfile::tempdir().unwrap();
    let named = |event: UserEvent, id: &str| UserEvent { event_id: id.into(), ..event };
    let mut rated = event("a", 4, 40, Rating);
    rated.event.value = Some(3.0);
    log(
        home.path(),
        vec![
            vec![named(event("a", 1, 10, View), "x"), event("a", 99, 20, View), event("a", 2, 30, Hide), rated],
            vec![event("b", 77, 10, View)],
        ],
    );
    // A log that had lost sight of the id: the same event once more.
    log(&home.path().join("other"), vec![vec![named(event("a", 1, 10, View), "x")]]);
    let segment = |directory: &Path, place: u64| directory.join(format!("{place:020}.events"));
    std::fs::copy(segment(&home.path().join("other"), 1), segment(home.path(), 6)).unwrap();
    let replay = replay(home.path(), None);
    let increment = part(&replay, 0, u64::MAX);
    let wanted = Counts { fresh: 5, unknown: 2, hidden: 1, learnt: 2, held_out: 0, users: 1, repeated: 1 };
    assert_eq!(increment.counts, wanted);
    assert_eq!(items(&increment.sequences[0]), [1, 4]);
    assert_eq!(items(&increment.rewarded[0]), [1, 2, 4]);
}

#[test]
fn a_low_rating_is_feedback_and_no_target_and_one_without_a_value_counts_as_before() {
    let home = tempfile::tempdir().unwrap();
    let rated = |item: usize, value: Option<f32>| {
        let mut rated = event("a", item, item as i64, Rating);
        rated.event.value = value;
        rated
    };
    let values = [None, Some(1.0), Some(2.5), Some(3.0), Some(5.0)];
    log(home.path(), vec![(0..5).map(|item| rated(item, values[item])).collect(), vec![event("a", 5, 5, View)]]);
    let replay = replay(home.path(), None);
    assert_eq!(replay.hidden, [2, 3]);
    let increment = part(&replay, 0, u64::MAX);
    assert_eq!(items(&increment.sequences[0]), [0, 3, 4, 5]);
    assert_eq!((increment.counts.hidden, increment.counts.learnt, increment.counts.fresh), (2, 4, 6));
    let kinds: Vec<_> = increment.rewarded[0].iter().map(|entry| (entry.item, entry.kind)).collect();
    assert_eq!(kinds, [(0, Rating), (1, Hide), (2, Hide), (3, Rating), (4, Rating), (5, View)]);
    assert_eq!(increment.taken[..6], [1, 0, 0, 1, 1, 1], "nobody took what was rated low");
    // Held out, it is nobody's target either.
    let held = part(&replay, 0, 1);
    let targets: Vec<u32> = held.choosers.iter().chain(&held.judges).map(|trial| trial.target).collect();
    assert_eq!(targets, [3]);
}

#[test]
fn low_ratings_of_the_data_set_are_not_learnt() {
    let home = tempfile::tempdir().unwrap();
    log(home.path(), vec![vec![event("a", 9, 100, View)]]);
    let rows = index(ITEMS).items().map(|row| DatasetItem { item: row.item, text: None, embedding: None }).collect();
    let rating = |item: u32| {
        let value = Some(item as f32);
        Interaction { user: 0, item, time: i64::from(item), kind: Rating, value }
    };
    let data = Dataset::new(vec!["a".into()], rows, vec![(1..5).map(rating).collect()]).unwrap();
    assert_eq!(items(&part(&replay(home.path(), Some(&data)), 0, u64::MAX).sequences[0]), [3, 4, 9]);
    // Who is forgotten in the log is so in the data set, too.
    forget(home.path(), "a");
    assert!(replay(home.path(), Some(&data)).users.is_empty());
}

#[test]
fn what_is_rewarded_holds_hides_in_their_place_and_users_of_whom_nothing_else_is_new() {
    let home = tempfile::tempdir().unwrap();
    let old = vec![event("a", 1, 10, View), event("b", 1, 10, View), event("b", 2, 30, View), event("c", 4, 10, View)];
    // Hidden by a between what a did; by b after the cut, too.
    let new = vec![event("a", 2, 20, Hide), event("a", 3, 30, Click), event("b", 5, 20, Hide)];
    log(home.path(), vec![old, new, vec![event("b", 6, 40, Hide), event("a", 7, 50, View)]]);
    let increment = part(&replay(home.path(), None), 4, 7);
    let rewarded: Vec<Vec<u32>> = increment.rewarded.iter().map(|sequence| items(sequence)).collect();
    assert_eq!(rewarded, [vec![1, 2, 3], vec![1, 5, 2]]);
    assert_eq!(increment.rewarded[0].iter().map(|entry| entry.kind).collect::<Vec<_>>(), [View, Hide, Click]);
    let learnt: Vec<Vec<u32>> = increment.sequences.iter().map(|sequence| items(sequence)).collect();
    assert!(learnt[0] == [1, 3] && learnt.iter().flatten().all(|&item| item != 5 && item != 6), "{learnt:?}");
}

#[test]
fn the_data_set_comes_first_and_users_without_news_are_rehearsed() {
    let home = tempfile::tempdir().unwrap();
    log(home.path(), vec![vec![event("new", 7, 500, View), event("new", 8, 600, View), event("old-0", 9, 700, View)]]);
    let all = index(ITEMS);
    let rows = all.items().map(|row| DatasetItem { item: row.item, text: None, embedding: None });
    let sequence = |user: u32| {
        let event = |item| Interaction { user, item, time: i64::from(item), kind: View, value: None };
        (0..5).map(event).collect::<Vec<_>>()
    };
    let users = (0..4).map(|user| format!("old-{user}")).collect();
    let data = Dataset::new(users, rows.collect(), (0..4).map(sequence).collect()).unwrap();
    let replay = replay(home.path(), Some(&data));
    let increment = part(&replay, 0, u64::MAX);
    let learnt: Vec<Vec<u32>> = increment.sequences.iter().map(|sequence| items(sequence)).collect();
    assert_eq!(learnt.len(), 4, "two users with news, and as many without");
    assert_eq!(learnt[..2], [vec![3, 4, 9], vec![7, 8]]);
    assert!(learnt[2..].iter().all(|sequence| *sequence == [2, 3, 4]));
    assert_eq!((increment.counts.learnt, increment.counts.users), (3, 2));
}

#[test]
fn who_is_rehearsed_is_so_without_what_is_held_out() {
    let home = tempfile::tempdir().unwrap();
    let old = (0..3).map(|at| event("old", at, at as i64, View)).collect();
    let new = vec![event("new", 5, 10, View), event("new", 6, 11, View)];
    let held = vec![event("old", 9, 20, View), event("stranger", 7, 20, View), event("stranger", 8, 21, View)];
    log(home.path(), vec![old, new, held]);
    let increment = part(&replay(home.path(), None), 3, 5);
    let learnt: Vec<Vec<u32>> = increment.sequences.iter().map(|sequence| items(sequence)).collect();
    assert_eq!(learnt, [vec![5, 6], vec![0, 1, 2]]);
}

#[test]
fn a_log_keeps_the_name_that_it_was_given_and_no_two_have_the_same() {
    let home = tempfile::tempdir().unwrap();
    let (one, two) = (home.path().join("one"), home.path().join("two"));
    assert_eq!(read_name(&one).unwrap(), None);
    let write = |directory: &Path| {
        log(directory, vec![vec![event("a", 1, 1, View)]]);
        read_name(directory).unwrap().unwrap()
    };
    let name = write(&one);
    assert_eq!(name, write(&one));
    assert_ne!(name, write(&two));
}

#[test]
fn of_a_forgotten_user_nothing_is_left_and_the_fingerprint_says_so() {
    let home = tempfile::tempdir().unwrap();
    let requests = ["a", "b", "c"].map(|user| (0..4).map(|at| event(user, at, at as i64, View)).collect());
    log(home.path(), requests.into());
    let before = replay(home.path(), None);
    forget(home.path(), "b");
    let after = replay(home.path(), None);
    assert_eq!(
        (before.users, after.users.clone()),
        (vec!["a".into(), "b".into(), "c".into()], vec!["a".into(), "c".into()])
    );
    let increment = part(&after, 0, after.end);
    assert_eq!((increment.counts.learnt, increment.counts.users), (8, 2));
    // Bounds of a cycle that began before still mean the same places.
    assert_eq!(items(&part(&after, 8, 10).sequences[0]), [0, 1]);
    assert_ne!(before.sequences.len(), after.sequences.len());
    assert_ne!(replay(home.path(), None).fingerprint(), {
        let mut whole = replay(home.path(), None);
        whole.sequences[0].pop();
        whole.fingerprint()
    });
    assert_eq!(Replay::read(home.path(), 4, None, &index(ITEMS), 3.0).unwrap().users, ["a"]);
}
