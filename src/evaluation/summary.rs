//! Many runs together: by data set and group, seeds of a system as mean and spread.

use std::collections::BTreeMap;

use super::metrics::Metrics;
use super::record::{DatasetFacts, RunRecord};
use super::slices::{Slice, Slices};

/// The group whose table comes first, and whose systems others are compared with.
pub const HEADLINE: &str = "headline";

/// A number over the runs of a system.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Runs behind it.
    pub runs: usize,
    /// Their mean.
    pub mean: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// Of `values`; none of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values = values.into_iter();
        let first = values.next()?;
        let mut spread = Self { runs: 1, mean: first, least: first, most: first };
        let mut sum = first;
        for value in values {
            spread.runs += 1;
            sum += value;
            spread.least = spread.least.min(value);
            spread.most = spread.most.max(value);
        }
        spread.mean = sum / spread.runs as f64;
        Some(spread)
    }
}

/// `value` against `reference` as a share of it; none when that is zero.
pub fn relative(value: f64, reference: f64) -> Option<f64> {
    (reference != 0.0).then(|| value / reference - 1.0)
}

/// One standard error of a share that was counted over `trials`: sqrt(p (1 - p) / n).
pub fn binomial_error(share: f64, trials: usize) -> f64 {
    (share * (1.0 - share) / trials.max(1) as f64).max(0.0).sqrt()
}

/// The runs of one system with one preset: its seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct SystemRuns<'a> {
    /// The system.
    pub system: &'a str,
    /// Its preset, where it has one.
    pub preset: Option<&'a str>,
    /// By seed; at least one.
    pub runs: Vec<&'a RunRecord>,
}

impl SystemRuns<'_> {
    /// The six metrics of the part that `metrics` takes from a run, by name.
    pub fn spreads(&self, metrics: impl Fn(&RunRecord) -> Metrics) -> Vec<(&'static str, Spread)> {
        let named: Vec<_> = self.runs.iter().map(|run| metrics(run).named()).collect();
        let names = Metrics::default().named();
        let spread = |at: usize| Spread::of(named.iter().map(|metrics| metrics[at].1));
        names.iter().enumerate().filter_map(|(at, (name, _))| Some((*name, spread(at)?))).collect()
    }

    /// Mean Recall@10 with seen items filtered: what systems are ordered and compared by.
    pub fn recall_at_10(&self) -> f64 {
        Spread::of(self.runs.iter().map(|run| run.test.filtered.recall_at_10)).map_or(0.0, |spread| spread.mean)
    }

    /// The slices that `part` takes, as means over the runs that have them.
    pub fn slices(&self, part: impl Fn(&Slices) -> &[Slice]) -> Vec<Slice> {
        let cut: Vec<&[Slice]> = self.runs.iter().filter_map(|run| run.slices.as_ref()).map(part).collect();
        let Some(first) = cut.first() else { return Vec::new() };
        let mean = |slice: &Slice| {
            let same = || cut.iter().filter_map(|slices| slices.iter().find(|other| other.name == slice.name));
            let mean =
                |value: fn(&Slice) -> f64| Spread::of(same().map(value)).map_or_else(|| value(slice), |all| all.mean);
            Slice {
                recall_at_10: mean(|slice| slice.recall_at_10),
                ndcg_at_10: mean(|slice| slice.ndcg_at_10),
                ..slice.clone()
            }
        };
        first.iter().map(mean).collect()
    }
}

/// The systems of one group on one data set.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupRuns<'a> {
    /// The data.
    pub dataset: &'a DatasetFacts,
    /// The group.
    pub group: &'a str,
    /// By name and preset.
    pub systems: Vec<SystemRuns<'a>>,
}

/// All runs, by data set, then group with the headline first.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary<'a> {
    /// None of them empty.
    pub groups: Vec<GroupRuns<'a>>,
}

impl<'a> Summary<'a> {
    /// Sorts `records`; their order does not matter.
    pub fn of(records: &'a [RunRecord]) -> Self {
        let mut sorted: BTreeMap<_, BTreeMap<_, Vec<&RunRecord>>> = BTreeMap::new();
        for record in records {
            let group = (&record.dataset, record.group != HEADLINE, record.group.as_str());
            let system = (record.system.as_str(), record.preset.as_deref());
            sorted.entry(group).or_default().entry(system).or_default().push(record);
        }
        let groups = sorted.into_iter().map(|((dataset, _, group), systems)| GroupRuns {
            dataset,
            group,
            systems: systems
                .into_iter()
                .map(|((system, preset), mut runs)| {
                    runs.sort_by_key(|run| run.seed);
                    SystemRuns { system, preset, runs }
                })
                .collect(),
        });
        Self { groups: groups.collect() }
    }

    /// What `of` in `group` is compared with when that is the system `name`: the group's own, else the headline's on
    /// the same data. Where it was run with several presets, the one with the same preset.
    pub fn counterpart(&self, group: &GroupRuns<'_>, of: &SystemRuns<'_>, name: &str) -> Option<&SystemRuns<'a>> {
        let on = |wanted: &str| -> Vec<&SystemRuns<'a>> {
            let groups = self.groups.iter().filter(|other| other.group == wanted && other.dataset == group.dataset);
            groups.flat_map(|group| &group.systems).filter(|runs| runs.system == name).collect()
        };
        [group.group, HEADLINE].into_iter().map(on).find(|found| !found.is_empty()).and_then(|found| {
            let same = found.iter().find(|runs| runs.preset == of.preset).copied();
            same.or_else(|| (found.len() == 1).then(|| found[0]))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::{Placed, RunLabel, Scores};

    fn record(system: &str, group: &str, preset: Option<&str>, seed: u64, recall: f64) -> RunRecord {
        let label = RunLabel { system: system.into(), group: group.into(), preset: preset.map(str::to_owned), seed };
        let dataset = DatasetFacts { name: "beauty".into(), users: 100, items: 50 };
        let filtered = Metrics { recall_at_10: recall, ..Metrics::default() };
        let placed = Placed { scores: Scores { filtered, all: Metrics::default() }, places: vec![None; 100] };
        RunRecord::new(label, dataset, &placed, Slices::of(&[], &[], &[1; 50]))
    }

    #[test]
    fn seeds_become_mean_and_spread() {
        let spread = Spread::of([0.2, 0.1, 0.6]).unwrap();
        assert_eq!((spread.runs, spread.least, spread.most), (3, 0.1, 0.6));
        assert!((spread.mean - 0.3).abs() < 1e-12);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn the_order_of_records_does_not_matter_and_the_headline_comes_first() {
        let mut records = vec![
            record("no-decoder", "ablation", None, 1, 0.1),
            record("reg4rec", HEADLINE, None, 2, 0.3),
            record("reg4rec", HEADLINE, None, 1, 0.2),
            record("popular", HEADLINE, None, 1, 0.05),
        ];
        let names = |summary: &Summary<'_>| -> Vec<String> {
            let systems = |group: &GroupRuns<'_>| -> Vec<String> {
                group
                    .systems
                    .iter()
                    .flat_map(|runs| runs.runs.iter().map(|run| format!("{} {} {}", run.group, run.system, run.seed)))
                    .collect()
            };
            summary.groups.iter().flat_map(systems).collect()
        };
        let wanted = ["headline popular 1", "headline reg4rec 1", "headline reg4rec 2", "ablation no-decoder 1"];
        assert_eq!(names(&Summary::of(&records)), wanted);
        records.reverse();
        let summary = Summary::of(&records);
        assert_eq!(names(&summary), wanted);
        assert!((summary.groups[0].systems[1].recall_at_10() - 0.25).abs() < 1e-12);
        let spreads = summary.groups[0].systems[1].spreads(|run| run.test.filtered);
        assert_eq!((spreads[1].0, spreads[1].1.least, spreads[1].1.most), ("recall@10", 0.2, 0.3));
    }

    #[test]
    fn the_counterpart_is_the_groups_own_else_the_headlines() {
        let records = [
            record("reg4rec", HEADLINE, Some("quick"), 1, 0.2),
            record("reg4rec", HEADLINE, Some("large"), 1, 0.4),
            record("m-4", "tokens", Some("large"), 1, 0.3),
            record("one-layer", "network", None, 1, 0.3),
            record("reg4rec", "network", None, 1, 0.35),
        ];
        let summary = Summary::of(&records);
        let recall = |group: &str, system: &str, name: &str| {
            let group = summary.groups.iter().find(|found| found.group == group).unwrap();
            let of = group.systems.iter().find(|runs| runs.system == system).unwrap();
            summary.counterpart(group, of, name).map(SystemRuns::recall_at_10)
        };
        assert_eq!(recall("tokens", "m-4", "reg4rec"), Some(0.4));
        assert_eq!(recall("network", "one-layer", "reg4rec"), Some(0.35));
        assert_eq!(recall("network", "one-layer", "sasrec"), None);
    }

    #[test]
    fn slices_of_seeds_are_averaged() {
        let mut records = [record("a", HEADLINE, None, 1, 0.1), record("a", HEADLINE, None, 2, 0.1)];
        for (record, recall) in records.iter_mut().zip([0.2, 0.4]) {
            record.slices.as_mut().unwrap().history[1].recall_at_10 = recall;
        }
        let summary = Summary::of(&records);
        let means = summary.groups[0].systems[0].slices(|slices| &slices.history);
        assert!((means[1].recall_at_10 - 0.3).abs() < 1e-12);
        assert_eq!(means[0].recall_at_10, 0.0);
    }

    #[test]
    fn errors_and_differences_follow_their_formulas() {
        assert!((binomial_error(0.5, 100) - 0.05).abs() < 1e-12);
        assert_eq!(binomial_error(0.0, 100), 0.0);
        assert!((relative(0.11, 0.1).unwrap() - 0.1).abs() < 1e-12);
        assert_eq!(relative(0.1, 0.0), None);
    }
}
