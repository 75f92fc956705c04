//! What a user gets of whom nothing is known: the popular items.

use crate::catalog::{Candidates, Index};
use crate::domain::{Filter, ItemNumber};
use crate::engine::{Outcome, Ranked};

/// The items of an index in the order of their prior, worked out once per index, so that a cold start costs no look at
/// the whole catalogue.
#[derive(Debug)]
pub(super) struct Popularity {
    /// Every eligible item: higher prior first, then lower number.
    order: Vec<ItemNumber>,
    /// ln of the sum of exp(prior) over them.
    log_mass: f64,
}

impl Popularity {
    pub(super) fn of(index: &Index) -> Self {
        let eligible = index.root(&Filter::default(), &[]);
        Self { order: index.popular(&eligible, eligible.len()), log_mass: log_mass(index, &eligible) }
    }

    /// The k most popular items of the root. Scores are ln of prior / sum of priors over the root.
    pub(super) fn best(&self, index: &Index, root: &Candidates, k: usize) -> Outcome {
        let whole = root.len() == self.order.len();
        let log_mass = if whole { self.log_mass } else { log_mass(index, root) };
        let score = |item: ItemNumber| (f64::from(index.item(item).prior) - log_mass) as f32;
        let popular = self.order.iter().copied().filter(|&item| root.contains(item)).take(k);
        let items: Vec<Ranked> = popular.map(|item| Ranked { item, score: score(item), path: None }).collect();
        Outcome { short: items.len() < k, items, ..Outcome::default() }
    }
}

/// ln of the sum of exp(prior), from the highest prior down, so that no sum overflows.
fn log_mass(index: &Index, root: &Candidates) -> f64 {
    let prior = |item| f64::from(index.item(item).prior);
    let highest = root.iter().map(prior).fold(f64::NEG_INFINITY, f64::max);
    highest + root.iter().map(|item| (prior(item) - highest).exp()).sum::<f64>().ln()
}
