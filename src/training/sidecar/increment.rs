//! The increment: what of the new events is learnt from, and what is held out to compare models on.
//!
//! What is new goes by arrival, the place in the log; what came before what goes by time. So an event that arrives late is
//! learnt where it belongs, and no event that arrived after the cut is in any history that is learnt from.

use serde::{Deserialize, Serialize};

use super::replay::{Replay, Told};
use crate::domain::{HistoryEntry, ItemNumber, Violation};
use crate::evaluation::{HISTORY_LIMIT, Trial};

/// Of the held-out users one in so many chooses among the epochs' weights; the gate asks the others.
const CHOOSERS: usize = 3;

/// What is learnt from and what is held out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncrementConfig {
    /// Share of the newest events that is held out; above 0, at most 0.5.
    pub held_out_share: f64,
    /// Most users of the comparison; at least 1.
    pub held_out_users: usize,
    /// Events before a user's first new one that are learnt again with it; at least 1.
    pub context: usize,
    /// Users without new events that are learnt from, for each with new ones; 0 to 100.
    pub rehearsal: f64,
    /// A rating with a value below this says what a hide says; finite.
    pub low_rating: f32,
}

/// How many events there are of each sort, from the first place that the bundle has not learnt to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// New ones of all sorts but repeated ones.
    pub fresh: u64,
    /// On items that the bundle does not know.
    pub unknown: u64,
    /// That hide an item or rate it low.
    pub hidden: u64,
    /// That are learnt from.
    pub learnt: u64,
    /// That are held out.
    pub held_out: u64,
    /// Users of those learnt from.
    pub users: u64,
    /// Beside them, those whose id had been there before.
    pub repeated: u64,
}

/// What a cycle works on.
#[derive(Debug, Clone, PartialEq)]
pub struct Increment {
    /// For each user with new events, the latest events up to the last one before the cut; then those of users without.
    pub sequences: Vec<Vec<HistoryEntry>>,
    /// The same for post-training: hides and low ratings stand in them, as hides, where their time says, and users are among
    /// them of whom nothing else is new.
    pub rewarded: Vec<Vec<HistoryEntry>>,
    /// Held-out users that choose among epochs.
    pub choosers: Vec<Trial>,
    /// Held-out users that the gate goes by.
    pub judges: Vec<Trial>,
    /// New events up to the cut on each item.
    pub taken: Vec<u32>,
    /// How many events there were.
    pub counts: Counts,
}

/// Places in the log that part what is learnt from what is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Up to here the bundle has learnt.
    pub learnt_through: u64,
    /// Up to here the candidate learns.
    pub cut: u64,
}

impl IncrementConfig {
    /// Every setting that cannot be.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        if !(self.held_out_share > 0.0 && self.held_out_share <= 0.5) {
            let expected = format!("{}: expected above 0, at most 0.5", self.held_out_share);
            wrong.push(Violation::new("held_out_share", expected));
        }
        for (field, value) in [("held_out_users", self.held_out_users), ("context", self.context)] {
            if value == 0 {
                wrong.push(Violation::new(field, "0: expected at least 1"));
            }
        }
        if !(0.0..=100.0).contains(&self.rehearsal) {
            wrong.push(Violation::new("rehearsal", format!("{}: expected 0 to 100", self.rehearsal)));
        }
        if !self.low_rating.is_finite() {
            wrong.push(Violation::new("low_rating", format!("{}: expected a finite number", self.low_rating)));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Where the newest events begin that are held out: the last place that is learnt from. With too few events to part,
    /// `learnt_through` itself.
    pub fn cut(&self, replay: &Replay, learnt_through: u64) -> u64 {
        let places = replay.sequences.iter().flatten().map(|told| told.place).filter(|&place| place > learnt_through);
        let mut places: Vec<u64> = places.collect();
        places.sort_unstable();
        let held = (places.len() as f64 * self.held_out_share).ceil() as usize;
        places.len().checked_sub(held + 1).map_or(learnt_through, |last| places[last])
    }

    /// Parts what was replayed. Trials are of items below `known`, which the present bundle has too.
    pub fn part(&self, replay: &Replay, bounds: Bounds, known: usize, items: usize) -> Increment {
        let Bounds { learnt_through, cut } = bounds;
        let mut counts = Counts::default();
        let fresh = |places: &[u64]| places.iter().filter(|&&place| place > learnt_through).count() as u64;
        (counts.unknown, counts.hidden) = (fresh(&replay.unknown), fresh(&replay.hidden));
        counts.repeated = fresh(&replay.repeated);
        let mut taken = vec![0; items];
        let (mut sequences, mut others, mut trials) = (Vec::new(), Vec::new(), Vec::new());
        let mut rewarded = Vec::new();
        // From so many events before the first new one on.
        let news = |events: &[Told]| {
            let first = events.iter().position(|told| told.place > learnt_through)?;
            Some(latest(events, events.len() - first.saturating_sub(self.context)))
        };
        for (user, sequence) in replay.sequences.iter().enumerate() {
            let before = up_to(sequence, cut);
            let new = before.iter().filter(|told| told.place > learnt_through);
            new.clone().for_each(|told| taken[told.item as usize] += 1);
            counts.learnt += new.count() as u64;
            counts.held_out += (sequence.len() - before.len()) as u64;
            let whole = news(&replay.whole(user, cut));
            match news(&before) {
                Some(lesson) => {
                    counts.users += 1;
                    sequences.push(lesson);
                }
                None if before.is_empty() => {}
                None => others.push((user, whole.is_none())),
            }
            rewarded.extend(whole);
            trials.extend(trial(user, sequence, cut, known));
        }
        counts.fresh = counts.unknown + counts.hidden + counts.learnt + counts.held_out;

        let wanted = (sequences.len() as f64 * self.rehearsal).round() as usize;
        let every = others.len().div_ceil(wanted.max(1)).max(1);
        // Not the same each time: the cut moves.
        let first = cut.checked_rem(others.len() as u64).unwrap_or(0) as usize;
        others.rotate_left(first);
        for (user, without_news) in others.into_iter().step_by(every).take(wanted) {
            sequences.push(latest(&up_to(&replay.sequences[user], cut), self.context + 1));
            rewarded.extend(without_news.then(|| latest(&replay.whole(user, cut), self.context + 1)));
        }
        [&mut sequences, &mut rewarded].into_iter().for_each(|all| all.retain(|sequence| sequence.len() > 1));

        let every = trials.len().div_ceil(self.held_out_users).max(1);
        let (mut choosers, mut judges) = (Vec::new(), Vec::new());
        for (at, trial) in trials.into_iter().step_by(every).enumerate() {
            if at % CHOOSERS == 0 { &mut choosers } else { &mut judges }.push(trial);
        }
        Increment { sequences, rewarded, choosers, judges, taken, counts }
    }
}

/// Of a user's events those that had arrived by the cut.
pub(super) fn up_to(sequence: &[Told], cut: u64) -> Vec<Told> {
    sequence.iter().filter(|told| told.place <= cut).copied().collect()
}

/// The newest `count` events as histories hold them.
pub(super) fn latest(events: &[Told], count: usize) -> Vec<HistoryEntry> {
    events[events.len().saturating_sub(count)..].iter().map(Told::entry).collect()
}

/// What is asked of a user's held-out events: the first one on an item that the user had not met, with what was known by
/// the cut and had happened by then. None where there is no such event, or nothing before it.
fn trial(user: usize, sequence: &[Told], cut: u64, known: usize) -> Option<Trial> {
    let is_known = |told: &&Told| (told.item as usize) < known;
    let target = sequence.iter().filter(is_known).enumerate().find(|(_, told)| {
        let met = |before: &Told| before.item == told.item && (before.time, before.place) < (told.time, told.place);
        told.place > cut && !sequence.iter().any(met)
    });
    let (_, target) = target?;
    let came_before = |told: &&Told| told.place <= cut && (told.time, told.place) < (target.time, target.place);
    let before: Vec<Told> = sequence.iter().filter(is_known).filter(came_before).copied().collect();
    if before.is_empty() {
        return None;
    }
    let mut seen: Vec<ItemNumber> = before.iter().map(|told| told.item).collect();
    seen.sort_unstable();
    seen.dedup();
    Some(Trial { user: user as u32, history: latest(&before, HISTORY_LIMIT), seen, target: target.item })
}
