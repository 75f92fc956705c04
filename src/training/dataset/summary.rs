//! A data set in a few numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Dataset;

/// The size and shape of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of users.
    pub users: usize,
    /// Number of items, those without events among them.
    pub items: usize,
    /// Number of events.
    pub interactions: usize,
    /// Events of a user, on average.
    pub mean_length: f64,
    /// Events of the user in the middle.
    pub median_length: usize,
    /// SHA-256 over the content.
    pub fingerprint: String,
}

impl Dataset {
    /// What is in it.
    pub fn summary(&self) -> Summary {
        let mut lengths: Vec<usize> = self.sequences.iter().map(Vec::len).collect();
        lengths.sort_unstable();
        let interactions = self.interactions();
        Summary {
            users: self.user_ids.len(),
            items: self.items.len(),
            interactions,
            mean_length: interactions as f64 / lengths.len().max(1) as f64,
            median_length: lengths.get(lengths.len() / 2).copied().unwrap_or_default(),
            fingerprint: self.fingerprint.clone(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { users, items, interactions, mean_length, median_length, fingerprint } = self;
        write!(
            out,
            "{users} users, {items} items, {interactions} events (mean {mean_length:.1}, median {median_length} a \
             user), fingerprint {}",
            &fingerprint[..fingerprint.len().min(12)]
        )
    }
}
