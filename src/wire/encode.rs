//! Answers to messages.

use crate::domain::{
    Assignment, AssignmentReason, EventKind, Failure, NamedPath, RecommendAnswer, Recommendation, Stage,
};

use super::{status_message, v1};

/// One answer.
pub fn response(answer: RecommendAnswer) -> v1::RecommendResponse {
    let mut assignments = answer.assignments.iter().map(assignment);
    v1::RecommendResponse {
        timings: Some(timings(&answer)),
        assignment: assignments.next(),
        further_assignments: assignments.collect(),
        request_id: answer.request_id,
        items: answer.items.into_iter().map(recommendation).collect(),
        variant: answer.variant,
        bundle_version: answer.bundle_version,
        index_version: answer.index_version,
        cold_start: answer.cold_start,
        degraded: answer.degraded,
        history_missed: answer.history_missed,
        short: answer.short,
    }
}

/// What became of one request of a batch.
pub fn result(outcome: Result<RecommendAnswer, Failure>, request_id: &str) -> v1::RecommendResult {
    use v1::recommend_result::Outcome;
    let outcome = match outcome {
        Ok(answer) => Outcome::Response(response(answer)),
        Err(failure) => Outcome::Status(status_message(&failure, request_id)),
    };
    v1::RecommendResult { outcome: Some(outcome) }
}

fn assignment(assignment: &Assignment) -> v1::Assignment {
    let reason = match assignment.reason {
        AssignmentReason::Assigned => v1::AssignmentReason::Assigned,
        AssignmentReason::Forced => v1::AssignmentReason::Forced,
        AssignmentReason::Holdout => v1::AssignmentReason::Holdout,
        AssignmentReason::NotEligible => v1::AssignmentReason::NotEligible,
        AssignmentReason::NotInNamespace => v1::AssignmentReason::NotInNamespace,
        AssignmentReason::NotInCoverage => v1::AssignmentReason::NotInCoverage,
        AssignmentReason::Killed => v1::AssignmentReason::Killed,
        AssignmentReason::FallbackNotLoaded => v1::AssignmentReason::FallbackNotLoaded,
        AssignmentReason::FallbackError => v1::AssignmentReason::FallbackError,
    };
    v1::Assignment {
        experiment: assignment.experiment.clone(),
        arm: assignment.arm.clone().unwrap_or_default(),
        variant: assignment.variant.clone(),
        version: assignment.version.clone(),
        reason: reason.into(),
    }
}

fn timings(answer: &RecommendAnswer) -> v1::Timings {
    let mut timings = v1::Timings::default();
    for (stage, took) in &answer.timings {
        let seconds = match stage {
            Stage::History => &mut timings.history,
            Stage::Queue => &mut timings.queue,
            Stage::Encode => &mut timings.encode,
            Stage::Search => &mut timings.search,
            Stage::Resolve => &mut timings.resolve,
            Stage::Total => &mut timings.total,
        };
        *seconds += took.as_secs_f64();
    }
    timings
}

fn recommendation(item: Recommendation) -> v1::Recommendation {
    v1::Recommendation {
        item_id: item.item_id,
        score: item.score,
        title: item.title.unwrap_or_default(),
        categories: item.categories,
        path: item.path.map(path),
    }
}

fn path(named: NamedPath) -> v1::Path {
    let mut names = named.category_names.into_iter();
    let step = |step: crate::domain::Step| {
        let names = names.next().unwrap_or_default();
        let beliefs = names.into_iter().zip(step.beliefs);
        v1::Step {
            codebook: step.token.codebook.into(),
            token: step.token.entry.into(),
            probability: step.probability,
            beliefs: beliefs
                .map(|(category, belief)| v1::CategoryBelief { category, probability: belief.probability })
                .collect(),
            divergence: step.divergence,
            pruned_siblings: step.pruned_siblings,
            inconsistent: step.inconsistent,
        }
    };
    let attended = named.event_names.into_iter().zip(named.path.attended).map(|((item_id, kind), attended)| {
        v1::AttendedEvent { item_id, kind: v1::EventKind::from(kind).into(), weight: attended.weight }
    });
    v1::Path {
        attended: attended.collect(),
        steps: named.path.steps.into_iter().map(step).collect(),
        finish: named.path.finish,
        reason: named.reason,
    }
}

impl From<EventKind> for v1::EventKind {
    fn from(kind: EventKind) -> Self {
        match kind {
            EventKind::View => v1::EventKind::View,
            EventKind::Click => v1::EventKind::Click,
            EventKind::Cart => v1::EventKind::Cart,
            EventKind::Purchase => v1::EventKind::Purchase,
            EventKind::Hide => v1::EventKind::Hide,
            EventKind::Rating => v1::EventKind::Rating,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{Attended, Belief, Path, Step, Token};

    fn given((experiment, arm): (&str, Option<&str>)) -> Assignment {
        Assignment {
            experiment: experiment.into(),
            arm: arm.map(Into::into),
            variant: "default".into(),
            version: "c0ffee".into(),
            reason: if arm.is_some() { AssignmentReason::Killed } else { AssignmentReason::Holdout },
        }
    }

    fn answer() -> RecommendAnswer {
        let step = Step {
            token: Token { codebook: 3, entry: 200 },
            probability: 0.5,
            beliefs: vec![Belief { category: 7, probability: 0.9 }],
            divergence: Some(0.01),
            pruned_siblings: 2,
            inconsistent: true,
        };
        let path = NamedPath {
            path: Path { steps: vec![step], finish: 0.25, attended: vec![Attended { event: 3, weight: 0.75 }] },
            category_names: vec![vec!["Hair Care".into()]],
            event_names: vec![("17".into(), EventKind::Purchase)],
            reason: "bought 17 (75 %)".into(),
        };
        RecommendAnswer {
            request_id: "r".into(),
            items: vec![Recommendation {
                item_id: "42".into(),
                score: -1.5,
                title: None,
                categories: vec!["Beauty".into(), "Hair Care".into()],
                path: Some(path),
            }],
            variant: "default".into(),
            bundle_version: "7".into(),
            index_version: "7.1".into(),
            assignments: [("model", Some("b")), ("beam", None)].map(given).to_vec(),
            cold_start: true,
            degraded: false,
            history_missed: false,
            short: true,
            timings: vec![(Stage::Queue, Duration::from_millis(250)), (Stage::Total, Duration::from_millis(500))],
        }
    }

    #[test]
    fn an_answer_keeps_every_field() {
        let sent = response(answer());
        assert_eq!((sent.request_id.as_str(), sent.variant.as_str()), ("r", "default"));
        assert_eq!((sent.bundle_version.as_str(), sent.index_version.as_str()), ("7", "7.1"));
        assert_eq!((sent.cold_start, sent.degraded, sent.short), (true, false, true));
        let sent_assignment = |experiment: &str, arm: &str, reason: v1::AssignmentReason| v1::Assignment {
            experiment: experiment.into(),
            arm: arm.into(),
            variant: "default".into(),
            version: "c0ffee".into(),
            reason: reason.into(),
        };
        assert_eq!(sent.assignment, Some(sent_assignment("model", "b", v1::AssignmentReason::Killed)));
        assert_eq!(sent.further_assignments, [sent_assignment("beam", "", v1::AssignmentReason::Holdout)]);
        let timings = sent.timings.unwrap();
        assert_eq!((timings.queue, timings.total, timings.encode), (0.25, 0.5, 0.0));
        let item = &sent.items[0];
        assert_eq!((item.item_id.as_str(), item.score, item.title.as_str()), ("42", -1.5, ""));
        assert_eq!(item.categories, ["Beauty", "Hair Care"]);
        let path = item.path.as_ref().unwrap();
        assert_eq!(path.finish, 0.25);
        let attended = v1::AttendedEvent { item_id: "17".into(), kind: v1::EventKind::Purchase.into(), weight: 0.75 };
        assert_eq!((&path.attended[..], path.reason.as_str()), (&[attended][..], "bought 17 (75 %)"));
        let step = &path.steps[0];
        assert_eq!((step.codebook, step.token, step.probability), (3, 200, 0.5));
        assert_eq!((step.divergence, step.pruned_siblings, step.inconsistent), (Some(0.01), 2, true));
        assert_eq!(step.beliefs, [v1::CategoryBelief { category: "Hair Care".into(), probability: 0.9 }]);
    }

    #[test]
    fn every_reason_has_its_name_on_the_wire() {
        for reason in AssignmentReason::ALL {
            let sent = assignment(&Assignment { reason, ..given(("model", None)) }).reason();
            let name = format!("ASSIGNMENT_REASON_{}", reason.name().to_uppercase());
            assert_eq!(sent.as_str_name(), name);
        }
    }

    #[test]
    fn a_result_is_an_answer_or_a_status() {
        use v1::recommend_result::Outcome;
        assert!(matches!(result(Ok(answer()), "r").outcome, Some(Outcome::Response(_))));
        match result(Err(Failure::UnknownVariant("x".into())), "r").outcome {
            Some(Outcome::Status(status)) => assert_eq!(status.code, 5),
            other => panic!("{other:?}"),
        }
    }
}
