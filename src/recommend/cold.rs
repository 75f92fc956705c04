//! What a user gets of whom nothing is known: the popular items.

use std::sync::Arc;

use crate::catalog::{Candidates, Index, View};
use crate::domain::{Filter, ItemNumber};
use crate::engine::{Bias, Outcome, Ranked};

/// How many items are kept in order: a cold start that asks for more of them than pass its filter looks at the catalogue.
const KEPT: usize = 65_536;

/// The most popular items of a view, worked out once per index, so that a cold start costs no look at the whole catalogue as
/// a rule.
#[derive(Debug)]
pub(super) struct Popularity {
    /// The first [`KEPT`] items, eligible or not: higher prior first, then lower number.
    order: Arc<[ItemNumber]>,
    /// The least prior of any item; 0 where there is none.
    least: f32,
    /// How many items are eligible.
    eligible: usize,
    /// ln of the sum of exp(prior) over them.
    log_mass: f64,
}

impl Popularity {
    /// `before`: that of a view of the same index.
    pub(super) fn of(view: &View, before: Option<&Popularity>) -> Self {
        Self::keeping(KEPT, view, before)
    }

    fn keeping(kept: usize, view: &View, before: Option<&Popularity>) -> Self {
        let index = view.index();
        let (order, least) = before.map_or_else(
            || {
                let all = Candidates::of(index.len(), 0..index.len() as ItemNumber);
                let least = all.iter().map(|item| index.prior(item)).reduce(f32::min);
                (index.popular(&all, kept).into(), least.unwrap_or(0.0))
            },
            |before| (Arc::clone(&before.order), before.least),
        );
        let eligible = view.root(&Filter::default(), &[]);
        Self { order, least, eligible: eligible.len(), log_mass: log_mass(index, &eligible) }
    }

    /// The least prior of any item, as smoothed popularity has it that nobody took.
    pub(super) fn least(&self) -> f32 {
        self.least
    }

    /// The k most popular items of the root. Scores are ln of prior / sum of priors over the root, each prior with what
    /// the bias adds to its logarithm; those that its limits let pass.
    pub(super) fn best(&self, index: &Index, root: &Candidates, bias: &Bias, k: usize) -> Outcome {
        if !bias.is_neutral() {
            return steered(index, root, bias, k);
        }
        let whole = root.len() == self.eligible;
        let log_mass = if whole { self.log_mass } else { log_mass(index, root) };
        let score = |item: ItemNumber| (prior(index, item) - log_mass) as f32;
        let mut popular: Vec<ItemNumber> =
            self.order.iter().copied().filter(|&item| root.contains(item)).take(k).collect();
        if popular.len() < k.min(root.len()) {
            popular = index.popular(root, k);
        }
        let items: Vec<Ranked> =
            popular.into_iter().map(|item| Ranked { item, score: score(item), path: None }).collect();
        Outcome { short: items.len() < k, items, ..Outcome::default() }
    }
}

/// The same with another order: every item of the root is looked at.
fn steered(index: &Index, root: &Candidates, bias: &Bias, k: usize) -> Outcome {
    let score = |item| (item, prior(index, item) + f64::from(bias.of(item, index.codes())));
    let mut scored: Vec<(ItemNumber, f64)> = root.iter().map(score).collect();
    let log_mass = log_sum(|| scored.iter().map(|(_, score)| *score));
    scored.sort_unstable_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
    let ranked = |(item, score)| Ranked { item, score: (score - log_mass) as f32, path: None };
    let items: Vec<Ranked> = bias.let_pass(index, scored, k, |(item, _)| *item).into_iter().map(ranked).collect();
    Outcome { short: items.len() < k, items, ..Outcome::default() }
}

fn prior(index: &Index, item: ItemNumber) -> f64 {
    f64::from(index.prior(item))
}

/// ln of the sum of exp(prior).
fn log_mass(index: &Index, root: &Candidates) -> f64 {
    log_sum(|| root.iter().map(|item| prior(index, item)))
}

/// ln of the sum of exp, from the highest down, so that no sum overflows.
fn log_sum<I: Iterator<Item = f64>>(values: impl Fn() -> I) -> f64 {
    let highest = values().fold(f64::NEG_INFINITY, f64::max);
    highest + values().map(|value| (value - highest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::engine::fake;

    #[test]
    fn an_answer_does_not_depend_on_how_many_items_are_kept_in_order() {
        let index = Arc::new(fake::index(50));
        let view = View::of(Arc::clone(&index));
        let eligible = index.eligible();
        let few = Candidates::of(index.len(), eligible.iter().step_by(7));
        let (all, some) = (Popularity::of(&view, None), Popularity::keeping(5, &view, None));
        assert!(some.order.len() == 5 && all.order.len() == index.len());
        for root in [eligible, &few] {
            for k in [1, 5, 6, 100] {
                let best = |popularity: &Popularity| popularity.best(&index, root, &Bias::default(), k);
                assert_eq!(best(&some), best(&all), "{k} of {}", root.len());
            }
        }
    }
}
