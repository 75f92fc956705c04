//! Leave-one-out: a user's last event is the test target, the one before it the validation target, the rest training.

use serde::{Deserialize, Serialize};

use super::{Dataset, Interaction};
use crate::domain::{HistoryEntry, ItemNumber};
use crate::evaluation::{HISTORY_LIMIT, Trial};

/// Which target is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The last event, asked for with everything before it.
    #[default]
    Test,
    /// The last but one, asked for with the training part.
    Valid,
}

/// A data set seen as training, validation and test.
///
/// Events keep the order of the data set's positions, so ties inside a day stay in the order of the source file. A
/// user with fewer than three events is all training: no target, no trial.
#[derive(Debug, Clone, Copy)]
pub struct Split<'a> {
    dataset: &'a Dataset,
}

impl<'a> Split<'a> {
    /// The split of `dataset`.
    pub fn new(dataset: &'a Dataset) -> Self {
        Self { dataset }
    }

    /// The number of users, those without targets among them.
    pub fn users(self) -> usize {
        self.dataset.sequences.len()
    }

    /// The training part of one user, oldest first.
    pub fn train(self, user: usize) -> &'a [Interaction] {
        let sequence = &self.dataset.sequences[user];
        &sequence[..training_length(sequence)]
    }

    /// The target of one user; none for users with fewer than three events.
    pub fn target(self, user: usize, part: Part) -> Option<&'a Interaction> {
        let sequence = &self.dataset.sequences[user];
        sequence[training_length(sequence)..].get(target_offset(part))
    }

    /// The items of every user's training part, in user order: what features and baselines may learn from.
    pub fn train_items(self) -> Vec<Vec<ItemNumber>> {
        (0..self.users()).map(|user| self.train(user).iter().map(|event| event.item).collect()).collect()
    }

    /// One trial for every user that has a target, in user order.
    pub fn trials(self, part: Part) -> Vec<Trial> {
        let users = self.dataset.sequences.iter().enumerate();
        let trials = users.filter_map(|(user, sequence)| {
            let target = self.target(user, part)?;
            let before = &sequence[..training_length(sequence) + target_offset(part)];
            let recent = &before[before.len().saturating_sub(HISTORY_LIMIT)..];
            let mut seen: Vec<ItemNumber> = before.iter().map(|event| event.item).collect();
            seen.sort_unstable();
            seen.dedup();
            let history = recent.iter().map(Interaction::entry).collect();
            Some(Trial { user: user as u32, history, seen, target: target.item })
        });
        trials.collect()
    }
}

impl Interaction {
    /// The event as a history holds it.
    pub fn entry(&self) -> HistoryEntry {
        HistoryEntry { item: self.item, kind: self.kind, time: self.time }
    }
}

fn training_length(sequence: &[Interaction]) -> usize {
    if sequence.len() < 3 { sequence.len() } else { sequence.len() - 2 }
}

fn target_offset(part: Part) -> usize {
    match part {
        Part::Valid => 0,
        Part::Test => 1,
    }
}
