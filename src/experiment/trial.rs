//! One request on its way through the experiments: which variant and settings to ask, what to do when that fails, and
//! what to tell and count in the end.

use std::sync::Arc;
use std::time::Instant;

use crate::domain::{
    Assignment, AssignmentReason, DecodeOverrides, ExposedArm, Failure, RecommendAnswer, RecommendRequest,
};

use super::draw::{Arm, Subject};
use super::kill_switch::Attempt;
use super::running::Experiments;

/// What one experiment says of a request, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Which experiment, counted from 0.
    pub(super) experiment: usize,
    /// The arm that the unit drew or was forced into.
    pub(super) arm: Option<usize>,
    /// The arm that the request is answered by; the control instead of a killed arm, none after a fallback.
    pub(super) applied: Option<usize>,
    /// Why.
    pub(super) reason: AssignmentReason,
    /// Stands for the unit.
    pub(super) unit: u64,
}

/// One request that has been drawn for. Ask what [`Trial::variant`] and [`Trial::decode`] say, again for as long as
/// [`Trial::falls_back`], and then [`Trial::settle`]. One that is dropped before was given up by its caller: its arms
/// count the time that it had taken.
#[derive(Debug)]
pub struct Trial {
    experiments: Arc<Experiments>,
    verdicts: Vec<Verdict>,
    began: Instant,
    /// The variant that the request names; empty: none.
    named: String,
    own: DecodeOverrides,
}

impl Trial {
    pub(super) fn new(experiments: Arc<Experiments>, verdicts: Vec<Verdict>, request: &RecommendRequest) -> Self {
        let (named, own) = (request.variant.clone(), request.decode);
        Self { experiments, verdicts, began: Instant::now(), named, own }
    }

    /// The variant to ask: what the request names, or else what an arm does. Empty: the default one.
    pub fn variant(&self) -> &str {
        let of_arm = || self.verdicts.iter().find_map(|verdict| self.applied(verdict)?.variant.as_deref());
        if self.named.is_empty() { of_arm().unwrap_or_default() } else { &self.named }
    }

    /// The decode settings to ask with: the request's own, and where it says nothing those of the arms. No two arms set
    /// the same one, which the settings of experiments are held to.
    pub fn decode(&self) -> DecodeOverrides {
        let arms = self.verdicts.iter().filter_map(|verdict| self.applied(verdict));
        arms.fold(self.own, |decode, arm| decode.or(arm.decode))
    }

    /// Whether to ask again: an arm's variant is not loaded, or its engine failed, and without the arm another answer is
    /// possible.
    pub fn falls_back(&mut self, failure: &Failure) -> bool {
        let reason = match failure {
            Failure::UnknownVariant(_) => AssignmentReason::FallbackNotLoaded,
            Failure::Internal(_) | Failure::NotReady { .. } => AssignmentReason::FallbackError,
            // Nothing is left to be done in time, or the fault is the caller's, or no request for items fails so.
            Failure::Late(_) | Failure::Overloaded { .. } | Failure::Invalid(_) | Failure::Denied(_) => return false,
            Failure::OverQuota { .. } | Failure::Unauthenticated(_) => return false,
            Failure::Off(_) | Failure::UnknownItem(_) | Failure::UnknownBundle(_) | Failure::Unmet { .. } => {
                return false;
            }
        };
        // The arm that chose the variant is to blame before those that only changed its settings.
        let chose = |verdict: &Verdict| self.applied(verdict).is_some_and(|arm| arm.variant.is_some());
        let changed = |verdict: &Verdict| self.applied(verdict).is_some_and(Arm::changes);
        let at = self.verdicts.iter().position(chose).or_else(|| self.verdicts.iter().position(changed));
        let Some(at) = at else { return false };
        let blamed = self.verdicts[at];
        if reason == AssignmentReason::FallbackError {
            self.attempted(&blamed, true, false);
        }
        let verdict = &mut self.verdicts[at];
        verdict.applied = None;
        // What the control does in place of a killed arm is not the arm's doing.
        if verdict.reason != AssignmentReason::Killed {
            verdict.reason = reason;
        }
        true
    }

    /// The arms that the request got, also those that something else answered for: what the event log is to know once
    /// there is nothing to fall back from any more.
    pub fn exposed(&self, request: &RecommendRequest) -> Vec<ExposedArm> {
        let subject = Subject { user_id: &request.user_id, attributes: &request.attributes };
        let exposed = |verdict: &Verdict| {
            let running = &self.experiments.list[verdict.experiment];
            let unit = running.experiment.unit_mark(subject);
            Some(ExposedArm { design: Arc::clone(&running.design), arm: verdict.arm?, unit, reason: verdict.reason })
        };
        self.verdicts.iter().filter_map(exposed).collect()
    }

    /// Counts the outcome, and tells in the answer what the experiments said.
    pub fn settle(mut self, outcome: Result<RecommendAnswer, Failure>) -> Result<RecommendAnswer, Failure> {
        let verdicts = std::mem::take(&mut self.verdicts);
        let (failed, empty) = match &outcome {
            Ok(answer) => (false, answer.items.is_empty()),
            // The caller's fault says nothing of an arm.
            Err(Failure::Invalid(_) | Failure::Denied(_) | Failure::UnknownVariant(_)) => return outcome,
            Err(Failure::OverQuota { .. } | Failure::Unauthenticated(_)) => return outcome,
            Err(Failure::Off(_) | Failure::UnknownItem(_) | Failure::UnknownBundle(_) | Failure::Unmet { .. }) => {
                return outcome;
            }
            Err(Failure::Internal(_) | Failure::NotReady { .. } | Failure::Late(_) | Failure::Overloaded { .. }) => {
                (true, false)
            }
        };
        verdicts.iter().for_each(|verdict| self.attempted(verdict, failed, empty));
        let mut answer = outcome?;
        for verdict in &verdicts {
            if let (AssignmentReason::Assigned, Some(arm)) = (verdict.reason, verdict.applied) {
                self.experiments.deliver(verdict, arm);
            }
        }
        let mut assignments: Vec<_> =
            verdicts.iter().map(|verdict| self.assignment(verdict, &answer.variant)).collect();
        assignments.iter().for_each(|assignment| self.experiments.metrics().assigned(assignment));
        assignments.sort_by_key(|assignment| assignment.arm.is_none());
        let told = assignments.iter().take_while(|assignment| assignment.arm.is_some()).count();
        assignments.truncate(told.max(1));
        answer.assignments = assignments;
        Ok(answer)
    }

    fn applied(&self, verdict: &Verdict) -> Option<&Arm> {
        Some(&self.experiments.list[verdict.experiment].experiment.arms[verdict.applied?])
    }

    /// Counts that the arm that the unit drew was asked.
    fn attempted(&self, verdict: &Verdict, failed: bool, empty: bool) {
        if let Some(arm) = verdict.applied.filter(|_| verdict.applied == verdict.arm) {
            self.experiments.attempt(verdict, arm, Attempt { took: self.began.elapsed(), failed, empty });
        }
    }

    fn assignment(&self, verdict: &Verdict, answered: &str) -> Assignment {
        let experiment = &self.experiments.list[verdict.experiment].experiment;
        Assignment {
            experiment: experiment.key.clone(),
            arm: verdict.arm.map(|arm| experiment.arms[arm].name.clone()),
            variant: answered.to_owned(),
            version: experiment.version.clone(),
            reason: verdict.reason,
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        for verdict in std::mem::take(&mut self.verdicts) {
            self.attempted(&verdict, false, false);
        }
    }
}
