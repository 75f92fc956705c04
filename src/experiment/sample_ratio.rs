//! Whether arms are delivered in the ratio of their weights. When they are not, something between the draw and the answer
//! depends on the arm, and no comparison of the arms can be trusted.

use std::collections::HashSet;

use statrs::distribution::{ChiSquared, ContinuousCDF};

/// Below this the ratio is not an accident.
pub const ALARM: f64 = 0.001;
/// Above this an alarm has ended. Well above [`ALARM`], so that a p near the bound does not alarm time and again.
const CALM: f64 = 0.01;
/// Fewer units than this, or fewer expected in some arm than [`FEWEST_EXPECTED`], are not tested.
const FEWEST_UNITS: u64 = 100;
/// The usual bound under which the chi-square distribution is a poor approximation.
const FEWEST_EXPECTED: f64 = 5.0;
/// Units of one round; then counting begins anew, which bounds memory and lets a late fault show.
const ROUND: usize = 500_000;

/// p of Pearson's chi-square test that counts came about by weights: 1 where there is nothing to test (no counts, or
/// only one arm of a weight above 0).
pub fn p_value(counts: &[u64], weights: &[f64]) -> f64 {
    let (total, sum) = (counts.iter().sum::<u64>() as f64, weights.iter().sum::<f64>());
    let drawn = || counts.iter().zip(weights).filter(|(_, weight)| **weight > 0.0);
    let freedom = drawn().count().saturating_sub(1);
    let Ok(distribution) = ChiSquared::new(freedom as f64) else { return 1.0 };
    if total == 0.0 {
        return 1.0;
    }
    let term = |(&count, &weight): (&u64, &f64)| {
        let expected = total * weight / sum;
        (count as f64 - expected).powi(2) / expected
    };
    distribution.sf(drawn().map(term).sum())
}

/// The units that each arm of one experiment was delivered to. A unit counts once a round: its requests are no
/// independent draws.
#[derive(Debug)]
pub(super) struct SampleRatio {
    weights: Vec<f64>,
    counts: Vec<u64>,
    seen: HashSet<u64>,
    round: usize,
    p: f64,
    alarmed: bool,
}

/// An alarm that began or ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    /// Whether it began.
    pub(super) alarmed: bool,
    /// The counts behind it.
    pub(super) counts: Vec<u64>,
}

impl SampleRatio {
    pub(super) fn new(weights: Vec<f64>) -> Self {
        Self::with_rounds(weights, ROUND)
    }

    fn with_rounds(weights: Vec<f64>, round: usize) -> Self {
        let counts = vec![0; weights.len()];
        Self { weights, counts, seen: HashSet::new(), round, p: 1.0, alarmed: false }
    }

    /// The p of the last test; 1 before the first.
    pub(super) fn p(&self) -> f64 {
        self.p
    }

    /// Counts that an arm was delivered to a unit, which a hash stands for. Says when an alarm begins or ends.
    pub(super) fn deliver(&mut self, arm: usize, unit: u64) -> Option<Change> {
        if !self.seen.insert(unit) {
            return None;
        }
        if self.seen.len() > self.round {
            self.seen = HashSet::from([unit]);
            self.counts.fill(0);
        }
        self.counts[arm] += 1;
        if !self.testable() {
            return None;
        }
        self.p = p_value(&self.counts, &self.weights);
        let alarmed = self.p < if self.alarmed { CALM } else { ALARM };
        let changed = alarmed != self.alarmed;
        self.alarmed = alarmed;
        changed.then(|| Change { alarmed, counts: self.counts.clone() })
    }

    fn testable(&self) -> bool {
        let total: u64 = self.counts.iter().sum();
        let sum: f64 = self.weights.iter().sum();
        let smallest = self.weights.iter().copied().filter(|&weight| weight > 0.0).fold(f64::INFINITY, f64::min);
        total >= FEWEST_UNITS && total as f64 * smallest / sum >= FEWEST_EXPECTED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_is_that_of_the_tables() {
        // Critical values of the chi-square distribution at 1, 2 and 3 degrees of freedom.
        for (freedom, chi, p) in [(1.0, 3.841_459, 0.05), (1.0, 10.827_566, 0.001), (2.0, 13.815_511, 0.001)] {
            assert!((ChiSquared::new(freedom).unwrap().sf(chi) - p).abs() < 1e-7, "{freedom} {chi}");
        }
        // (60 - 50)^2 / 50 * 2 = 4; 1 - erf(sqrt 2) = 0.0455002639.
        assert!((p_value(&[60, 40], &[0.5, 0.5]) - 0.045_500_263_9).abs() < 1e-9);
        // Three arms: 2 degrees of freedom, p = exp(-chi / 2); (30^2 + 10^2 + 20^2) / 100 = 14.
        assert!((p_value(&[130, 90, 80], &[1.0 / 3.0; 3]) - (-7.0f64).exp()).abs() < 1e-9);
        assert!((p_value(&[250, 750], &[0.25, 0.75]) - 1.0).abs() < 1e-12);
        assert_eq!(p_value(&[0, 0], &[0.5, 0.5]), 1.0);
        assert_eq!(p_value(&[70], &[1.0]), 1.0);
        assert_eq!(p_value(&[70, 0], &[1.0, 0.0]), 1.0, "an arm without weight is none");
    }

    #[test]
    fn sixty_to_forty_alarms_once_and_a_mended_ratio_ends_it() {
        let mut ratio = SampleRatio::new(vec![0.5, 0.5]);
        let mut changes = Vec::new();
        for unit in 0..1000 {
            changes.extend(ratio.deliver(usize::from(unit % 10 >= 6), unit));
        }
        assert!(ratio.p() < 1e-9, "{}", ratio.p());
        assert_eq!(changes.iter().map(|change| change.alarmed).collect::<Vec<_>>(), [true]);
        for unit in 1000..1200 {
            changes.extend(ratio.deliver(1, unit));
        }
        assert_eq!(changes.len(), 2);
        assert!(!changes[1].alarmed && ratio.p() > 0.99, "{changes:?}");
    }

    #[test]
    fn a_unit_counts_once_and_few_units_prove_nothing() {
        let mut ratio = SampleRatio::new(vec![0.5, 0.5]);
        for _ in 0..10_000 {
            assert_eq!(ratio.deliver(0, 7), None);
        }
        assert_eq!((ratio.p(), ratio.counts.as_slice()), (1.0, [1, 0].as_slice()));
        for unit in 0..99 {
            assert_eq!(ratio.deliver(0, unit), None);
        }
        assert_eq!(ratio.p(), 1.0);
        assert!(ratio.deliver(0, 1000).unwrap().alarmed);
    }

    #[test]
    fn a_fault_that_begins_late_shows_in_the_next_round() {
        let mut ratio = SampleRatio::with_rounds(vec![0.5, 0.5], 10_000);
        let first: Vec<_> = (0..10_000).filter_map(|unit| ratio.deliver(unit as usize % 2, unit)).collect();
        assert!(first.is_empty() && ratio.p() > 0.9);
        let second: Vec<_> = (10_000..10_200).filter_map(|unit| ratio.deliver(0, unit)).collect();
        assert!(second.len() == 1 && second[0].alarmed, "{second:?}");
    }
}
