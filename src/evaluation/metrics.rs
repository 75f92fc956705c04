//! Recall and NDCG of one target among all items.

use serde::{Deserialize, Serialize};

/// The lengths of list that are looked at.
pub const CUTOFFS: [usize; 3] = [5, 10, 20];

/// Means over users, each in `[0, 1]`.
///
/// With one target a user, Recall@k is the share of users whose target is among the first k, and NDCG@k the mean of
/// 1 / log2(1 + place) over those, the place counted from 1 (Järvelin and Kekäläinen 2002).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Metrics {
    /// Recall among the first 5.
    #[serde(rename = "recall@5")]
    pub recall_at_5: f64,
    /// Recall among the first 10.
    #[serde(rename = "recall@10")]
    pub recall_at_10: f64,
    /// Recall among the first 20.
    #[serde(rename = "recall@20")]
    pub recall_at_20: f64,
    /// NDCG of the first 5.
    #[serde(rename = "ndcg@5")]
    pub ndcg_at_5: f64,
    /// NDCG of the first 10.
    #[serde(rename = "ndcg@10")]
    pub ndcg_at_10: f64,
    /// NDCG of the first 20.
    #[serde(rename = "ndcg@20")]
    pub ndcg_at_20: f64,
}

impl Metrics {
    /// Every metric with its name, recall first.
    pub fn named(&self) -> [(&'static str, f64); 6] {
        [
            ("recall@5", self.recall_at_5),
            ("recall@10", self.recall_at_10),
            ("recall@20", self.recall_at_20),
            ("ndcg@5", self.ndcg_at_5),
            ("ndcg@10", self.ndcg_at_10),
            ("ndcg@20", self.ndcg_at_20),
        ]
    }
}

/// Gathers the places of targets, one a user.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tally {
    users: usize,
    recall: [f64; 3],
    ndcg: [f64; 3],
}

impl Tally {
    /// Counts one user: the target's place in its list, from 0; none when it is not in it.
    pub fn add(&mut self, place: Option<usize>) {
        self.users += 1;
        let Some(place) = place else { return };
        for (at, _) in CUTOFFS.iter().enumerate().filter(|&(_, &cutoff)| place < cutoff) {
            self.recall[at] += 1.0;
            self.ndcg[at] += 1.0 / (place as f64 + 2.0).log2();
        }
    }

    /// The number of users counted.
    pub fn users(&self) -> usize {
        self.users
    }

    /// The means; zeros when nobody was counted.
    pub fn mean(&self) -> Metrics {
        let users = self.users.max(1) as f64;
        let [recall_at_5, recall_at_10, recall_at_20] = self.recall.map(|sum| sum / users);
        let [ndcg_at_5, ndcg_at_10, ndcg_at_20] = self.ndcg.map(|sum| sum / users);
        Metrics { recall_at_5, recall_at_10, recall_at_20, ndcg_at_5, ndcg_at_10, ndcg_at_20 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_where_they_are_within_the_cutoff() {
        let mut tally = Tally::default();
        tally.add(Some(0));
        tally.add(Some(9));
        tally.add(Some(10));
        tally.add(None);
        let metrics = tally.mean();
        assert_eq!(tally.users(), 4);
        assert_eq!((metrics.recall_at_5, metrics.recall_at_10, metrics.recall_at_20), (0.25, 0.5, 0.75));
        assert_eq!(metrics.ndcg_at_5, 0.25);
        assert!((metrics.ndcg_at_10 - (1.0 + 1.0 / 11_f64.log2()) / 4.0).abs() < 1e-12);
        assert!((metrics.ndcg_at_20 - (1.0 + 1.0 / 11_f64.log2() + 1.0 / 12_f64.log2()) / 4.0).abs() < 1e-12);
    }

    #[test]
    fn nobody_gives_zeros() {
        assert_eq!(Tally::default().mean(), Metrics::default());
    }

    #[test]
    fn the_names_in_json_are_the_names_in_tables() {
        let metrics = Metrics { recall_at_5: 0.1, ndcg_at_20: 0.7, ..Metrics::default() };
        let json = serde_json::to_value(metrics).unwrap();
        for (name, value) in metrics.named() {
            assert_eq!(json[name].as_f64(), Some(value), "{name}");
        }
        assert_eq!(json.as_object().unwrap().len(), 6);
    }
}
