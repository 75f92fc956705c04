//! What a sampled path is worth: the four rewards, over the events that follow (PARS and MSRA).

use serde::{Deserialize, Serialize};

use super::config::KindWeights;
use crate::catalog::Index;
use crate::domain::{HistoryEntry, ItemNumber, Token};

/// Items retrieved by a path whose place still counts.
pub(super) const RETRIEVED: usize = 10;

/// A value for each reward: their weights, or a path's own rewards.
pub type RewardWeights = Rewards;

/// One number for each of the four rewards.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewards {
    /// The share of its tokens that are the item's.
    pub step: f32,
    /// The share of its steps at which the likeliest category is the item's.
    pub category: f32,
    /// The share of its step pairs whose beliefs lie within theta.
    pub consistency: f32,
    /// 1 / (1 + place) of the item among the first ten that the path retrieves.
    pub path: f32,
}

impl Default for Rewards {
    /// The weights when none are said: tokens and whole paths lead, beliefs keep them company.
    fn default() -> Self {
        Self { step: 1.0, category: 0.5, consistency: 0.25, path: 1.0 }
    }
}

impl Rewards {
    /// The names, in the order of [`Self::values`].
    pub const NAMES: [&'static str; 4] = ["step", "category", "consistency", "path"];

    /// Zero for each.
    pub const ZERO: Self = Self { step: 0.0, category: 0.0, consistency: 0.0, path: 0.0 };

    /// The four numbers.
    pub fn values(&self) -> [f32; 4] {
        [self.step, self.category, self.consistency, self.path]
    }

    /// The rewards of four numbers in the order of [`Self::values`].
    pub fn of([step, category, consistency, path]: [f32; 4]) -> Self {
        Self { step, category, consistency, path }
    }

    /// Each times its weight, added up.
    pub fn weighted(&self, weights: &RewardWeights) -> f32 {
        self.values().iter().zip(weights.values()).map(|(value, weight)| value * weight).sum()
    }

    /// Adds `other` times `share`.
    pub fn add(&mut self, other: &Rewards, share: f32) {
        let (own, other) = (self.values(), other.values());
        *self = Self::of([0, 1, 2, 3].map(|at| own[at] + share * other[at]));
    }
}

/// What a path is judged by once it is sampled.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sampled {
    /// Its T tokens in order.
    pub tokens: Vec<Token>,
    /// The likeliest category after each token.
    pub categories: Vec<u32>,
    /// JS in nats between the beliefs after each token and the one before it, from the second on.
    pub divergences: Vec<f32>,
    /// The likeliest of the items that it leaves, best first, at most ten.
    pub retrieved: Vec<ItemNumber>,
}

impl Sampled {
    /// The rewards of the path for one item (design 3.5). A path of one token has no pair of steps and is consistent.
    pub fn rewards(&self, item: ItemNumber, index: &Index, theta: f32) -> Rewards {
        let share = |count: usize, of: usize| if of == 0 { 1.0 } else { count as f32 / of as f32 };
        let (code, category) = (index.codes().code(item), index.class(item));
        let hits = self.tokens.iter().filter(|token| code[usize::from(token.codebook)] == token.entry).count();
        let right = self.categories.iter().filter(|&&said| said == category).count();
        let steady = self.divergences.iter().filter(|&&js| js <= theta).count();
        let place = self.retrieved.iter().take(RETRIEVED).position(|&found| found == item);
        Rewards {
            step: share(hits, self.tokens.len()),
            category: share(right, self.categories.len()),
            consistency: share(steady, self.divergences.len()),
            path: place.map_or(0.0, |place| 1.0 / (1.0 + place as f32)),
        }
    }

    /// Rewards over the events that follow: sum over m of decay^(m-1) kind(m) R(path, item m) / sum of decay^(m-1).
    /// Zero when nothing follows.
    pub fn future_rewards(&self, future: &[HistoryEntry], index: &Index, judge: &Judge<'_>) -> Rewards {
        let mut sum = Rewards::ZERO;
        let (mut weight, mut all) = (1.0f32, 0.0f32);
        for event in future.iter().take(judge.window.max(1)) {
            sum.add(&self.rewards(event.item, index, judge.theta), weight * judge.kinds.of(event.kind));
            all += weight;
            weight *= judge.decay;
        }
        if all > 0.0 { Rewards::of(sum.values().map(|value| value / all)) } else { Rewards::ZERO }
    }
}

/// How rewards of several events become one.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    /// h.
    pub window: usize,
    /// w.
    pub decay: f32,
    /// Nats.
    pub theta: f32,
    /// By the events' kinds.
    pub kinds: &'a KindWeights,
}

/// (R - mean) / (standard deviation + 1e-4) within each group of `group` paths: `[contexts * group]` to the same. A group
/// whose paths all earn the same teaches nothing.
pub fn advantages(rewards: &[f32], group: usize) -> Vec<f32> {
    let mut all = Vec::with_capacity(rewards.len());
    for rewards in rewards.chunks(group) {
        let count = rewards.len() as f32;
        let mean = rewards.iter().sum::<f32>() / count;
        let deviation = (rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f32>() / count).sqrt();
        all.extend(rewards.iter().map(|reward| (reward - mean) / (deviation + 1.0e-4)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EventKind;
    use crate::training::posttrain::tests::shop;

    fn token(codebook: u8, entry: u16) -> Token {
        Token { codebook, entry }
    }

    /// A path of three tokens, as the paper's figure has them.
    fn path(tokens: [Token; 3], categories: [u32; 3], divergences: [f32; 2], retrieved: &[ItemNumber]) -> Sampled {
        Sampled {
            tokens: tokens.to_vec(),
            categories: categories.to_vec(),
            divergences: divergences.to_vec(),
            retrieved: retrieved.to_vec(),
        }
    }

    #[test]
    fn the_rewards_are_those_of_the_papers_figure() {
        let index = shop();
        // Item 9 has tokens (1, 2, 0), category 1.
        let code = index.codes().code(9).to_vec();
        let own = |r: usize| token(r as u8, code[r]);
        let other = |r: usize| token(r as u8, (code[r] + 1) % 4);
        let two = path([own(0), own(1), other(2)], [1, 1, 1], [0.01, 0.02], &[3, 9]);
        let rewards = two.rewards(9, &index, 0.06);
        assert_eq!(rewards.values(), [2.0 / 3.0, 1.0, 1.0, 0.5]);
        // Consistent though wrong at first: two steps of three have the category, one pair of two jumps.
        let one = path([own(0), other(1), other(2)], [0, 1, 1], [0.3, 0.0], &[]);
        assert_eq!(one.rewards(9, &index, 0.06).values(), [1.0 / 3.0, 2.0 / 3.0, 0.5, 0.0]);
    }

    #[test]
    fn a_place_past_the_tenth_earns_nothing() {
        let index = shop();
        let items: Vec<ItemNumber> = (0..12).collect();
        let sampled = Sampled { retrieved: items, ..Sampled::default() };
        assert_eq!(sampled.rewards(9, &index, 0.0).path, 0.1);
        assert_eq!(sampled.rewards(10, &index, 0.0).path, 0.0);
    }

    #[test]
    fn later_events_count_less_and_hides_count_against() {
        let index = shop();
        let event = |item: ItemNumber, kind: EventKind| HistoryEntry { item, kind, time: 0 };
        let sampled = Sampled { retrieved: vec![4, 7], ..Sampled::default() };
        let kinds = KindWeights::default();
        let judge = Judge { window: 2, decay: 0.5, theta: 0.06, kinds: &kinds };
        let future = [event(4, EventKind::Click), event(7, EventKind::Hide), event(4, EventKind::Click)];
        let found = sampled.future_rewards(&future, &index, &judge);
        assert!((found.path - (1.0 - 0.5 * 0.5) / 1.5).abs() < 1e-6, "{}", found.path);
        assert_eq!(sampled.future_rewards(&[], &index, &judge), Rewards::ZERO);
    }

    #[test]
    fn advantages_are_centred_by_group_and_equal_rewards_teach_nothing() {
        let found = advantages(&[1.0, 3.0, 5.0, 5.0], 2);
        assert!((found[0] + 1.0).abs() < 1e-3 && (found[1] - 1.0).abs() < 1e-3);
        assert_eq!(found[2..], [0.0, 0.0]);
    }
}
