//! What an evaluation found: one JSON object for machines, one table for people.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::harness::{EvaluationError, Ranker, evaluate};
use super::item_knn::{ItemKnn, ItemKnnConfig};
use super::metrics::Metrics;
use super::popular::Popular;
use super::trial::Trial;
use crate::domain::ItemNumber;

/// A ranker's metrics under both protocols.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Scores {
    /// Items of the history cannot be answered.
    pub filtered: Metrics,
    /// Items of the history can be answered too.
    pub all: Metrics,
}

/// A model's metrics, with the baselines on the same trials beside them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The number of users that were asked about.
    pub users: usize,
    /// The number of items that were ranked.
    pub items: usize,
    /// The model's.
    #[serde(flatten)]
    pub scores: Scores,
    /// By the baseline's name.
    pub baselines: BTreeMap<String, Scores>,
}

/// The baselines' metrics: most popular and item-kNN, learnt from `sequences` (training parts only).
pub fn baselines(
    sequences: &[Vec<ItemNumber>],
    trials: &[Trial],
    items: usize,
) -> Result<BTreeMap<String, Scores>, EvaluationError> {
    let mut rankers: [Box<dyn Ranker>; 2] =
        [Box::new(Popular::fit(sequences, items)), Box::new(ItemKnn::fit(sequences, items, ItemKnnConfig::default()))];
    let named = rankers.iter_mut().map(|ranker| {
        let scores = evaluate(ranker.as_mut(), trials, items, &mut |_| ())?;
        Ok((ranker.name().to_owned(), scores))
    });
    named.collect()
}

impl fmt::Display for Evaluation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{} users, {} items\n", self.users, self.items)?;
        let baselines = self.baselines.iter().map(|(name, scores)| (name.as_str(), scores));
        let rows: Vec<(&str, &Scores)> = std::iter::once(("reg4rec", &self.scores)).chain(baselines).collect();
        block(out, "seen items filtered", rows.iter().map(|(name, scores)| (*name, scores.filtered)))?;
        writeln!(out)?;
        block(out, "seen items allowed", rows.iter().map(|(name, scores)| (*name, scores.all)))
    }
}

/// A heading and a line for each ranker.
fn block<'a>(out: &mut fmt::Formatter<'_>, title: &str, rows: impl Iterator<Item = (&'a str, Metrics)>) -> fmt::Result {
    write!(out, "{title:<20}")?;
    for (name, _) in Metrics::default().named() {
        write!(out, " {name:>10}")?;
    }
    writeln!(out)?;
    for (ranker, metrics) in rows {
        write!(out, "{ranker:<20}")?;
        for (_, value) in metrics.named() {
            write!(out, " {value:>10.4}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation() -> Evaluation {
        let metrics = Metrics { recall_at_10: 0.09, ndcg_at_10: 0.055, ..Metrics::default() };
        let scores = Scores { filtered: metrics, all: Metrics::default() };
        let baselines = ["popular", "item-knn"].map(|name| (name.to_owned(), scores));
        Evaluation { users: 3, items: 4, scores, baselines: baselines.into() }
    }

    #[test]
    fn json_has_the_agreed_shape_and_reads_back() {
        let json = serde_json::to_value(evaluation()).unwrap();
        assert_eq!(json["users"], 3);
        assert_eq!(json["items"], 4);
        assert_eq!(json["filtered"]["recall@10"], 0.09);
        assert_eq!(json["all"]["ndcg@20"], 0.0);
        assert_eq!(json["baselines"]["popular"]["filtered"]["ndcg@10"], 0.055);
        assert_eq!(json["baselines"]["item-knn"]["all"]["recall@5"], 0.0);
        assert_eq!(json.as_object().unwrap().len(), 5);
        assert_eq!(serde_json::from_value::<Evaluation>(json).unwrap(), evaluation());
    }

    #[test]
    fn the_table_has_a_row_for_every_ranker_under_both_protocols() {
        let table = evaluation().to_string();
        for name in ["reg4rec", "popular", "item-knn"] {
            assert_eq!(table.lines().filter(|line| line.starts_with(name)).count(), 2, "{table}");
        }
        assert!(table.contains("0.0900"), "{table}");
    }

    #[test]
    fn baselines_are_measured_on_the_trials() {
        let sequences = vec![vec![0, 1], vec![0, 2], vec![0, 1]];
        let history = vec![crate::domain::HistoryEntry { item: 2, kind: Default::default(), time: 0 }];
        let trials = [Trial { user: 0, history, seen: vec![2], target: 0 }];
        let found = baselines(&sequences, &trials, 3).unwrap();
        assert_eq!(found["popular"].all.recall_at_5, 1.0);
        assert_eq!(found["item-knn"].filtered.ndcg_at_5, 1.0);
    }
}
