//! The items found so far, and the order they are answered in.

use std::cmp::{Ordering, Reverse};
use std::collections::{HashMap, HashSet};

use crate::catalog::Index;
use crate::domain::ItemNumber;

use super::limits::Room;
use super::settings::Expansion;

/// Where an item stands among the answers. Greater is better: higher score, then higher prior, then lower number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) score: f32,
    pub(super) prior: f32,
    pub(super) item: ItemNumber,
}

impl Standing {
    pub(super) fn new(index: &Index, item: ItemNumber, score: f64) -> Self {
        // Adding zero turns -0 into 0, so that equal scores compare as equal.
        Self { score: score as f32 + 0.0, prior: index.prior(item), item }
    }
}

impl Ord for Standing {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score
            .total_cmp(&other.score)
            .then_with(|| self.prior.total_cmp(&other.prior))
            .then_with(|| other.item.cmp(&self.item))
    }
}

impl PartialOrd for Standing {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Standing {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Standing {}

/// An item that a path was finished to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) standing: Standing,
    /// The last node of its path; none when it was found before the first token.
    pub(super) node: Option<usize>,
    /// ln P(item | path).
    pub(super) log_finish: f64,
}

/// Distinct items found.
#[derive(Debug, Default)]
pub(super) struct Answers {
    found: Vec<Answer>,
    /// Where each item is, when paths can meet it twice.
    places: Option<HashMap<ItemNumber, usize>>,
}

impl Answers {
    /// Forgets all, keeps the memory. `overlapping`: whether two paths may hold the same item, of which then the better
    /// answer is kept.
    pub(super) fn reset(&mut self, overlapping: bool) {
        self.found.clear();
        self.places = overlapping.then(HashMap::new);
    }

    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    pub(super) fn items(&self) -> impl Iterator<Item = ItemNumber> + '_ {
        self.found.iter().map(|answer| answer.standing.item)
    }

    pub(super) fn add(&mut self, answer: Answer) {
        if let Some(places) = &mut self.places {
            match places.get(&answer.standing.item) {
                Some(&place) => {
                    if answer.standing > self.found[place].standing {
                        self.found[place] = answer;
                    }
                    return;
                }
                None => places.insert(answer.standing.item, self.found.len()),
            };
        }
        self.found.push(answer);
    }

    /// The k-th best score, once k items are found, or so many that there is room for.
    pub(super) fn kth(&self, k: usize, room: Option<Room<'_>>, scratch: &mut Vec<f32>) -> Option<f32> {
        if k == 0 || self.found.len() < k {
            return None;
        }
        if let Some(mut room) = room {
            let mut standings: Vec<Standing> = self.found.iter().map(|answer| answer.standing).collect();
            standings.sort_unstable_by_key(|standing| Reverse(*standing));
            let mut passing = standings.iter().filter(|standing| room.take(standing.item));
            return passing.nth(k - 1).map(|standing| standing.score);
        }
        scratch.clear();
        scratch.extend(self.found.iter().map(|answer| answer.standing.score));
        let (_, kth, _) = scratch.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        Some(*kth)
    }

    /// The best k that there is room for, best first.
    pub(super) fn best(&mut self, k: usize, mut room: Option<Room<'_>>) -> impl Iterator<Item = &Answer> {
        self.found.sort_unstable_by_key(|answer| Reverse(answer.standing));
        let passes = move |answer: &&Answer| room.as_mut().is_none_or(|room| room.take(answer.standing.item));
        self.found.iter().filter(passes).take(k)
    }
}

/// How many distinct items are answered or held; of more than there is room for, as many as there is room for.
pub(super) struct Coverage<'a> {
    count: usize,
    /// Where paths may share items: those that were met.
    met: Option<HashSet<ItemNumber>>,
    room: Option<Room<'a>>,
}

impl<'a> Coverage<'a> {
    /// What is answered so far.
    pub(super) fn of(answers: &Answers, expansion: Expansion, room: Option<Room<'a>>) -> Self {
        let met = (expansion == Expansion::Flat).then(HashSet::new);
        let mut coverage = Self { count: 0, met, room };
        if coverage.is_sum() {
            coverage.count = answers.len();
        } else {
            answers.items().for_each(|item| coverage.meet(item));
        }
        coverage
    }

    /// Counts in what a path holds. Answers whether any of it counts.
    pub(super) fn add(&mut self, items: &[ItemNumber]) -> bool {
        let before = self.count;
        if self.is_sum() {
            self.count += items.len();
        } else {
            items.iter().for_each(|&item| self.meet(item));
        }
        self.count > before
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Paths share no items, and there is room for all: their counts add up.
    fn is_sum(&self) -> bool {
        self.met.is_none() && self.room.is_none()
    }

    fn meet(&mut self, item: ItemNumber) {
        let new = self.met.as_mut().is_none_or(|met| met.insert(item));
        if new && self.room.as_mut().is_none_or(|room| room.take(item)) {
            self.count += 1;
        }
    }
}
