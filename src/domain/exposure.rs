//! What a user was shown while an experiment ran: the record that later events are held against.

use std::sync::Arc;

use super::{AssignmentReason, RecommendAnswer};

/// Most item ids of an answer that an exposure keeps, and most bytes of them: a record of the log has an end.
const MOST_ITEMS: usize = 100;
const MOST_ITEM_BYTES: usize = 32 << 10;

/// One answer that an experiment had an arm for.
#[derive(Debug, Clone, PartialEq)]
pub struct Exposure {
    /// The answer's id, which events that follow from it carry.
    pub request_id: String,
    /// Who asked. Empty: unknown.
    pub user_id: String,
    /// What each experiment gave the request.
    pub arms: Vec<ExposedArm>,
    /// The variant that answered.
    pub variant: String,
    /// Version of its bundle.
    pub bundle_version: String,
    /// What was shown, best first; the first 100, and fewer where their ids are long (32 KiB in all).
    pub item_ids: Vec<String>,
}

/// The arm that one experiment gave a request.
#[derive(Debug, Clone, PartialEq)]
pub struct ExposedArm {
    /// The experiment.
    pub design: Arc<Design>,
    /// Which of its arms, counted from 0.
    pub arm: usize,
    /// Stands for the unit where that is no user, but a value of an attribute. None: the user.
    pub unit: Option<String>,
    /// Why.
    pub reason: AssignmentReason,
}

/// What of an experiment's settings its outcome is read by.
#[derive(Debug, Clone, PartialEq)]
pub struct Design {
    /// The experiment's key.
    pub experiment: String,
    /// Version of its settings.
    pub version: String,
    /// The names of its arms; the first is the control.
    pub arms: Vec<String>,
    /// The weight of each.
    pub weights: Vec<f64>,
}

impl Design {
    /// Whether outcomes under both may be taken together: the same arms of the same weights. A unit keeps its arm then,
    /// also when coverage or eligibility grow.
    pub fn agrees(&self, other: &Self) -> bool {
        self.experiment == other.experiment && self.arms == other.arms && self.weights == other.weights
    }
}

impl Exposure {
    /// The exposure of an answer.
    pub fn of(answer: &RecommendAnswer, user_id: String, arms: Vec<ExposedArm>) -> Self {
        let mut bytes = 0;
        let fits = |id: &&String| {
            bytes += id.len();
            bytes <= MOST_ITEM_BYTES
        };
        let ids = answer.items.iter().map(|item| &item.item_id);
        Self {
            request_id: answer.request_id.clone(),
            user_id,
            arms,
            variant: answer.variant.clone(),
            bundle_version: answer.bundle_version.clone(),
            item_ids: ids.take(MOST_ITEMS).take_while(fits).cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Recommendation;

    #[test]
    fn no_more_items_are_kept_than_a_record_holds() {
        let item = |length: usize| Recommendation {
            item_id: "x".repeat(length),
            score: 0.0,
            title: None,
            categories: Vec::new(),
            path: None,
        };
        for (items, length, kept) in [(10, 5, 10), (1000, 5, 100), (100, 1 << 10, 32), (3, 1 << 20, 0)] {
            let answer = RecommendAnswer {
                request_id: "r".into(),
                items: vec![item(length); items],
                variant: "v".into(),
                bundle_version: "7".into(),
                index_version: String::new(),
                assignments: Vec::new(),
                cold_start: false,
                degraded: false,
                history_missed: false,
                short: false,
                timings: Vec::new(),
            };
            assert_eq!(Exposure::of(&answer, "u".into(), Vec::new()).item_ids.len(), kept, "{items} of {length} bytes");
        }
    }
}
