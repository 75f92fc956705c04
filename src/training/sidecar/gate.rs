//! The gate: what is worse than what serves is not published.

use serde::{Deserialize, Serialize};

use super::compare::Quality;
use crate::domain::Violation;

/// What a candidate must hold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// How much worse a metric may be, as a share of the current one's; 0 to 1.
    pub margin: f64,
    /// Held-out users below which nothing can be said; at least 1.
    pub fewest_users: usize,
}

/// What both models came to on the same held-out users and exposures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// Users that were ranked for.
    pub users: usize,
    /// Exposures that were replayed.
    pub slates: usize,
    /// The bundle that serves.
    pub current: Quality,
    /// The one that may follow it.
    pub candidate: Quality,
}

/// What the gate says, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The candidate may be published.
    Passed(String),
    /// It may not.
    Refused(String),
}

impl GateConfig {
    /// Every setting that cannot be.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        if !(0.0..=1.0).contains(&self.margin) {
            wrong.push(Violation::new("margin", format!("{}: expected 0 to 1", self.margin)));
        }
        if self.fewest_users == 0 {
            wrong.push(Violation::new("fewest_users", "0: expected at least 1"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Refuses a candidate when NDCG@10, Recall@10 or, with enough exposures, their order is worse than the current one's
    /// by more than the margin, is no number, or was measured on too few users to tell.
    pub fn judge(&self, compared: &Compared) -> Verdict {
        let Compared { users, slates, current, candidate } = compared;
        if *users < self.fewest_users {
            return Verdict::Refused(format!("{users} held-out users, expected at least {}", self.fewest_users));
        }
        let mut metrics = vec![
            ("ndcg@10", current.metrics.ndcg_at_10, candidate.metrics.ndcg_at_10),
            ("recall@10", current.metrics.recall_at_10, candidate.metrics.recall_at_10),
        ];
        let orders = current.slate_order.zip(candidate.slate_order).filter(|_| *slates >= self.fewest_users);
        metrics.extend(orders.map(|(now, then)| ("order of exposures", now, then)));
        let told = |name: &str, now: f64, then: f64| format!("{name} {then:.4} after {now:.4}");
        for &(name, now, then) in &metrics {
            let least = now * (1.0 - self.margin);
            if then.is_nan() || then < least {
                let told = told(name, now, then);
                return Verdict::Refused(format!("{told} on {users} users, expected at least {least:.4}"));
            }
        }
        let told: Vec<String> = metrics.into_iter().map(|(name, now, then)| told(name, now, then)).collect();
        Verdict::Passed(format!("{} on {users} users", told.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::Metrics;

    const GATE: GateConfig = GateConfig { margin: 0.1, fewest_users: 50 };

    fn judge(users: usize, ndcg: [f64; 2], recall: [f64; 2]) -> Verdict {
        judge_with(users, ndcg, recall, 0, [None; 2])
    }

    fn judge_with(users: usize, ndcg: [f64; 2], recall: [f64; 2], slates: usize, order: [Option<f64>; 2]) -> Verdict {
        let quality = |at: usize| Quality {
            metrics: Metrics { ndcg_at_10: ndcg[at], recall_at_10: recall[at], ..Metrics::default() },
            slate_order: order[at],
        };
        GATE.judge(&Compared { users, slates, current: quality(0), candidate: quality(1) })
    }

    fn reason(verdict: Verdict) -> String {
        match verdict {
            Verdict::Refused(reason) => reason,
            Verdict::Passed(told) => panic!("passed: {told}"),
        }
    }

    #[test]
    fn a_metric_within_the_margin_passes_and_one_beyond_it_is_refused_by_name() {
        let passed = judge(50, [0.20, 0.185], [0.30, 0.40]);
        assert_eq!(
            passed,
            Verdict::Passed("ndcg@10 0.1850 after 0.2000, recall@10 0.4000 after 0.3000 on 50 users".into())
        );
        assert_eq!(
            reason(judge(50, [0.20, 0.17], [0.30, 0.40])),
            "ndcg@10 0.1700 after 0.2000 on 50 users, expected at least 0.1800"
        );
        assert!(reason(judge(50, [0.20, 0.30], [0.30, 0.10])).starts_with("recall@10 0.1000 after 0.3000"));
    }

    #[test]
    fn exposures_count_where_there_are_enough() {
        let judge = |slates: usize| judge_with(50, [0.2; 2], [0.3; 2], slates, [Some(0.7), Some(0.5)]);
        assert_eq!(reason(judge(50)), "order of exposures 0.5000 after 0.7000 on 50 users, expected at least 0.6300");
        assert!(matches!(judge(49), Verdict::Passed(_)));
    }

    #[test]
    fn too_few_users_and_what_is_no_number_never_pass() {
        assert_eq!(reason(judge(49, [0.1, 0.9], [0.1, 0.9])), "49 held-out users, expected at least 50");
        assert!(reason(judge(50, [0.1, f64::NAN], [0.1, 0.9])).starts_with("ndcg@10 NaN"));
        // Where the current one is worth nothing, nothing is worse.
        assert!(matches!(judge(50, [0.0, 0.0], [0.0, 0.0]), Verdict::Passed(_)));
    }
}
