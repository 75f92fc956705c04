//! What an experiment said of one request.

use super::Secret;

/// An arm that a caller asks for by name, as people do who look into an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct ForcedArm {
    /// What the caller offers as proof of the right to.
    pub token: Secret,
    /// The experiment's key.
    pub experiment: String,
    /// The arm's name.
    pub arm: String,
}

impl ForcedArm {
    /// Where a call's metadata names it, as `EXPERIMENT=ARM`.
    pub const FIELD: &str = "x-reg4rec-force-arm";
    /// Where a call's metadata holds the token.
    pub const TOKEN_FIELD: &str = "x-reg4rec-force-token";
}

/// What one experiment said of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The experiment's key.
    pub experiment: String,
    /// The arm that the unit drew or was forced into, also where something else had to answer; none: it got no arm.
    pub arm: Option<String>,
    /// The variant that answered.
    pub variant: String,
    /// Version of the experiment's settings: equal settings have equal versions.
    pub version: String,
    /// Why this arm, or why none, or why the arm did not answer.
    pub reason: AssignmentReason,
}

/// Why a request got an arm, got none, or was not answered by it. Its number stands in event logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AssignmentReason {
    /// The unit's bucket lies in the arm's range.
    Assigned = 0,
    /// The caller asked for the arm and may.
    Forced = 1,
    /// No arm: the unit is held out.
    Holdout = 2,
    /// No arm: the request lacks the unit, or its attributes do not meet the conditions.
    NotEligible = 3,
    /// No arm: the unit is in another part of the experiment's layer.
    NotInNamespace = 4,
    /// No arm: the unit's bucket lies in no arm's range.
    NotInCoverage = 5,
    /// The arm does harm and gets no traffic; the first arm answered, or the default variant where that is the one.
    Killed = 6,
    /// The arm's variant is not loaded; the default variant answered.
    FallbackNotLoaded = 7,
    /// The arm's engine failed; the default variant answered.
    FallbackError = 8,
}

impl AssignmentReason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 9] = [
        Self::Assigned,
        Self::Forced,
        Self::Holdout,
        Self::NotEligible,
        Self::NotInNamespace,
        Self::NotInCoverage,
        Self::Killed,
        Self::FallbackNotLoaded,
        Self::FallbackError,
    ];

    /// The name in metrics and in the tool's output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Forced => "forced",
            Self::Holdout => "holdout",
            Self::NotEligible => "not_eligible",
            Self::NotInNamespace => "not_in_namespace",
            Self::NotInCoverage => "not_in_coverage",
            Self::Killed => "killed",
            Self::FallbackNotLoaded => "fallback_not_loaded",
            Self::FallbackError => "fallback_error",
        }
    }

    /// Whether a request for this reason has an arm.
    pub fn has_arm(self) -> bool {
        !matches!(self, Self::Holdout | Self::NotEligible | Self::NotInNamespace | Self::NotInCoverage)
    }
}
