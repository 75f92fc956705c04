//! The gate: what is worse than what serves is not published.

use serde::{Deserialize, Serialize};

use crate::domain::Violation;
use crate::evaluation::Metrics;

/// What a candidate must hold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// How much worse a metric may be, as a share of the current one's; 0 to 1.
    pub margin: f64,
    /// Held-out users below which nothing can be said; at least 1.
    pub fewest_users: usize,
}

/// What both models came to on the same held-out users, seen items filtered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// Users that were ranked for.
    pub users: usize,
    /// The bundle that serves.
    pub current: Metrics,
    /// The one that may follow it.
    pub candidate: Metrics,
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

    /// Refuses a candidate when NDCG@10 or Recall@10 is worse than the current one's by more than the margin, is no
    /// number, or was measured on too few users to tell.
    pub fn judge(&self, compared: &Compared) -> Verdict {
        let Compared { users, current, candidate } = compared;
        if *users < self.fewest_users {
            return Verdict::Refused(format!("{users} held-out users, expected at least {}", self.fewest_users));
        }
        let metrics = [
            ("ndcg@10", current.ndcg_at_10, candidate.ndcg_at_10),
            ("recall@10", current.recall_at_10, candidate.recall_at_10),
        ];
        let told = |name: &str, now: f64, then: f64| format!("{name} {then:.4} after {now:.4}");
        for (name, now, then) in metrics {
            let least = now * (1.0 - self.margin);
            if then.is_nan() || then < least {
                let told = told(name, now, then);
                return Verdict::Refused(format!("{told} on {users} users, expected at least {least:.4}"));
            }
        }
        let told: Vec<String> = metrics.map(|(name, now, then)| told(name, now, then)).into();
        Verdict::Passed(format!("{} on {users} users", told.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATE: GateConfig = GateConfig { margin: 0.1, fewest_users: 50 };

    fn judge(users: usize, ndcg: [f64; 2], recall: [f64; 2]) -> Verdict {
        let metrics = |at: usize| Metrics { ndcg_at_10: ndcg[at], recall_at_10: recall[at], ..Metrics::default() };
        GATE.judge(&Compared { users, current: metrics(0), candidate: metrics(1) })
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
    fn too_few_users_and_what_is_no_number_never_pass() {
        assert_eq!(reason(judge(49, [0.1, 0.9], [0.1, 0.9])), "49 held-out users, expected at least 50");
        assert!(reason(judge(50, [0.1, f64::NAN], [0.1, 0.9])).starts_with("ndcg@10 NaN"));
        // Where the current one is worth nothing, nothing is worse.
        assert!(matches!(judge(50, [0.0, 0.0], [0.0, 0.0]), Verdict::Passed(_)));
    }
}
