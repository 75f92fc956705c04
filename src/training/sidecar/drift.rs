//! Whether the vocabulary still fits: events on items that the bundle does not know, and tokens that go unused.

use serde::{Deserialize, Serialize};

use super::increment::Counts;
use crate::catalog::Index;
use crate::domain::Violation;

/// When a fine-tune is not enough any more.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftConfig {
    /// Largest share of new events on unknown items; 0 to 1.
    pub max_unknown_share: f64,
    /// Least codebook use; 0 to 1.
    pub min_codebook_use: f64,
}

/// How far the new events are from what the bundle was made for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// Share of the new events that are on items which the bundle does not know.
    pub unknown_share: f64,
    /// Mean perplexity of the codebooks' entries over the new events, divided by that over the bundle's own popularity.
    /// 1: as many tokens are used as when it was made. None without new events of known items.
    pub codebook_use: Option<f64>,
}

impl DriftConfig {
    /// Every setting that cannot be.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let fields = [("max_unknown_share", self.max_unknown_share), ("min_codebook_use", self.min_codebook_use)];
        let wrong = fields.into_iter().filter(|(_, value)| !(0.0..=1.0).contains(value));
        let wrong: Vec<Violation> =
            wrong.map(|(field, value)| Violation::new(field, format!("{value}: expected 0 to 1"))).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Why a full retrain is suggested; none when nothing speaks for it.
    pub fn suggests_retrain(&self, drift: &Drift) -> Option<String> {
        if drift.unknown_share > self.max_unknown_share {
            let share = drift.unknown_share;
            return Some(format!(
                "{share:.3} of the new events are on unknown items, expected {} at most",
                self.max_unknown_share
            ));
        }
        let used = drift.codebook_use.filter(|used| *used < self.min_codebook_use)?;
        Some(format!("codebook use is {used:.3}, expected {} at least", self.min_codebook_use))
    }
}

impl Drift {
    /// Of the new events: `counts` of them all, `taken` of those on each item of `index`.
    pub fn of(index: &Index, counts: &Counts, taken: &[u32]) -> Self {
        let known: u64 = taken.iter().map(|&count| u64::from(count)).sum();
        let unknown_share = if counts.fresh == 0 { 0.0 } else { counts.unknown as f64 / counts.fresh as f64 };
        let own = mean_perplexity(index, |item| f64::from(index.prior(item)).exp());
        let now = mean_perplexity(index, |item| taken.get(item as usize).map_or(0.0, |&count| f64::from(count)));
        Self { unknown_share, codebook_use: (known > 0 && own > 0.0).then(|| now / own) }
    }
}

/// e to the entropy of a codebook's entries, items counted by `weight`; the mean over the codebooks.
fn mean_perplexity(index: &Index, weight: impl Fn(u32) -> f64) -> f64 {
    let shape = index.codes().shape();
    let mut mass = vec![0.0; shape.tokens()];
    for item in 0..index.len() as u32 {
        let weight = weight(item);
        for (codebook, &entry) in index.codes().code(item).iter().enumerate() {
            mass[codebook * shape.entries + usize::from(entry)] += weight;
        }
    }
    let perplexity = |entries: &[f64]| {
        let total: f64 = entries.iter().sum();
        if total <= 0.0 {
            return 0.0;
        }
        let shares = entries.iter().map(|mass| mass / total).filter(|share| *share > 0.0);
        shares.map(|share| -share * share.ln()).sum::<f64>().exp()
    };
    mass.chunks_exact(shape.entries).map(perplexity).sum::<f64>() / shape.codebooks as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::fixtures::index;
    use super::*;

    const LIMITS: DriftConfig = DriftConfig { max_unknown_share: 0.25, min_codebook_use: 0.6 };

    #[test]
    fn events_on_unknown_items_past_the_limit_suggest_a_retrain() {
        let index = index(8);
        let drift = |unknown: u64| Drift::of(&index, &Counts { fresh: 8, unknown, ..Counts::default() }, &[1; 8]);
        assert_eq!(drift(2).unknown_share, 0.25);
        assert_eq!(LIMITS.suggests_retrain(&drift(2)), None);
        let told = LIMITS.suggests_retrain(&drift(3)).unwrap();
        assert_eq!(told, "0.375 of the new events are on unknown items, expected 0.25 at most");
    }

    #[test]
    fn events_on_few_tokens_suggest_a_retrain_and_even_ones_use_all() {
        // Equal priors; eight items with eight different entries in each codebook.
        let index = index(8);
        let used = |taken: &[u32]| Drift::of(&index, &Counts { fresh: 8, ..Counts::default() }, taken);
        assert!((used(&[3; 8]).codebook_use.unwrap() - 1.0).abs() < 1e-6);
        let half = used(&[5, 5, 5, 5, 0, 0, 0, 0]);
        assert!((half.codebook_use.unwrap() - 0.5).abs() < 1e-6, "{half:?}");
        assert_eq!(LIMITS.suggests_retrain(&half).unwrap(), "codebook use is 0.500, expected 0.6 at least");
        assert_eq!(used(&[0; 8]).codebook_use, None);
    }
}
