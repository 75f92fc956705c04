//! The report as it is printed: the names of its fields are those of the JSON.

use std::collections::BTreeSet;

use serde::Serialize;

use super::comparison::Comparison;

/// What a log says of its experiments.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The probability, at most, that a band ever leaves the truth out; of each band by itself.
    pub alpha: f64,
    /// Exposures after which the bands are tightest.
    pub tightest_at: u64,
    /// Exposures, each request id once.
    pub exposures: u64,
    /// Exposures of a request id that was there before; left out.
    pub repeated_exposures: u64,
    /// Events, each event id once.
    pub events: u64,
    /// Events of an event id that was there before; left out.
    pub repeated_events: u64,
    /// Events that name an exposure.
    pub joined: u64,
    /// Events that do not.
    pub unjoined: Unjoined,
    /// By key.
    pub experiments: Vec<ExperimentReport>,
}

/// Events that belong to no exposure of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Unjoined {
    /// They name no request.
    pub without_request_id: u64,
    /// They name one that no exposure has: an answer of no experiment, or one whose exposure was dropped or deleted.
    pub unknown_request_id: u64,
}

/// What came of one experiment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExperimentReport {
    /// Its key.
    pub experiment: String,
    /// The versions of its settings that are taken together: their arms and weights are equal.
    pub versions: BTreeSet<String>,
    /// When the first and the last exposure that is taken was given, in Unix milliseconds.
    pub first_ms: i64,
    /// See `first_ms`.
    pub last_ms: i64,
    /// Exposures under other arms or weights than the newest; left out.
    pub superseded: u64,
    /// Exposures of an arm to a unit that was assigned to another before, as when a seed changed; left out.
    pub crossed: u64,
    /// p of the chi-square test that units were delivered by the weights.
    pub sample_ratio_p: f64,
    /// The first is the control.
    pub arms: Vec<ArmReport>,
    /// The lift of CTR over time, for the picture.
    #[serde(skip)]
    pub timeline: Vec<Point>,
}

/// What came of one arm. Only answers of the reason `assigned` count, but for the last four numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmReport {
    /// Its name.
    pub arm: String,
    /// Its share of the units, by the settings.
    pub weight: f64,
    /// Units that were given an answer of it.
    pub units: u64,
    /// Answers.
    pub impressions: u64,
    /// Clicks on those answers' items.
    pub clicks: u64,
    /// Answers with at least one click.
    pub clicked: u64,
    /// `clicked / impressions`. None: no answers.
    pub ctr: Option<f64>,
    /// Purchases that name those answers.
    pub conversions: u64,
    /// The sum of the purchases' values.
    pub value: f64,
    /// Over the control. None: this is the control.
    pub over_control: Option<Lifts>,
    /// Answers of this arm to callers who asked for it.
    pub forced: u64,
    /// Answers of the control to units of this arm, which did harm.
    pub killed: u64,
    /// Answers of the default variant to units of this arm, whose variant was not loaded.
    pub fallback_not_loaded: u64,
    /// Answers of the default variant to units of this arm, whose engine failed.
    pub fallback_error: u64,
}

/// An arm over the control. None: there is too little to compare yet.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Lifts {
    /// Of CTR.
    pub ctr: Option<Comparison>,
    /// Of purchases per unit.
    pub conversions: Option<Comparison>,
    /// Of the purchases' value per unit.
    pub value: Option<Comparison>,
}

/// The arms but the control over it, at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// CTR of each arm but the first.
    pub ctr: Vec<Option<Comparison>>,
}
