//! Settings of experiments, as they stand in section `[experiments]` of the server's settings.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::domain::{DecodeOverrides, Engine, Secret, Violation};

use super::bucket::HashVersion;
use super::validate;

/// All experiments of a server; `src/config/defaults.toml` says what each setting is for.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExperimentsConfig {
    /// The file of the versions that operators set. Empty: none, and they may set none.
    pub path: PathBuf,
    /// The token that gives the right to force arms. Empty: nobody may.
    pub force_token: Secret,
    /// When an arm does harm.
    pub kill_switch: KillSwitchConfig,
    /// The experiments.
    pub experiment: Vec<ExperimentConfig>,
    /// Arms that answer nobody.
    pub shadow: Vec<ShadowConfig>,
}

/// An arm that answers nobody: a copy of some requests goes to it when there is nothing else to do, and what it would have
/// answered is counted and compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShadowConfig {
    /// Its name in metrics; 1 to 64 of A-Z a-z 0-9 - _ .
    pub name: String,
    /// The variant that is asked. None: the default one.
    pub variant: Option<String>,
    /// The share of users whose requests are copied; 0 to 1.
    pub share: f64,
    /// Decode settings, where they differ from the request's or the variant's.
    pub decode: ArmDecode,
}

impl Default for ShadowConfig {
    fn default() -> Self {
        Self { name: String::new(), variant: None, share: 1.0, decode: ArmDecode::default() }
    }
}

impl ExperimentsConfig {
    /// Names every field that is wrong, of each experiment and between them.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let wrong = validate::all(self);
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

/// One experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExperimentConfig {
    /// Its name in answers and metrics; 1 to 64 of A-Z a-z 0-9 - _ .
    pub key: String,
    /// What is hashed with the unit. None: the key.
    pub seed: Option<String>,
    /// How both are hashed.
    pub hash_version: HashVersion,
    /// What is assigned: `user_id`, or the name of a request's attribute.
    pub unit: String,
    /// The sides; the first is the control.
    pub arms: Vec<ArmConfig>,
    /// Share of each arm's range that takes part; 0 to 1.
    pub coverage: f64,
    /// Experiments of one layer share no unit. None: a layer of its own.
    pub layer: Option<String>,
    /// Which part of the layer's units this experiment has: from, up to but not including.
    pub namespace: [f64; 2],
    /// Share of the units that get no arm; 0 to 1.
    pub holdout: f64,
    /// What is hashed with a unit to hold it out. None: the seed and `__holdout`. Experiments that name the same one
    /// hold out the same units.
    pub holdout_seed: Option<String>,
    /// What must hold of a request; all of it.
    pub eligibility: Vec<Condition>,
    /// When it begins. None: it has begun.
    pub start: Option<Moment>,
    /// When it is over. None: never.
    pub end: Option<Moment>,
}

impl Default for ExperimentConfig {
    fn default() -> Self {
        Self {
            key: String::new(),
            seed: None,
            hash_version: HashVersion::default(),
            unit: USER_ID.to_owned(),
            arms: Vec::new(),
            coverage: 1.0,
            layer: None,
            namespace: [0.0, 1.0],
            holdout: 0.0,
            holdout_seed: None,
            eligibility: Vec::new(),
            start: None,
            end: None,
        }
    }
}

/// The unit that is no attribute: whose history it is.
pub(super) const USER_ID: &str = "user_id";

impl ExperimentConfig {
    /// What is hashed with the unit.
    pub(super) fn seed(&self) -> &str {
        self.seed.as_deref().unwrap_or(&self.key)
    }

    /// The weights of the arms: as given, or equal ones where none is given.
    pub(super) fn weights(&self) -> Vec<f64> {
        if self.arms.iter().all(|arm| arm.weight.is_none()) {
            return super::bucket::equal_weights(self.arms.len());
        }
        self.arms.iter().map(|arm| arm.weight.unwrap_or_default()).collect()
    }
}

/// One side of an experiment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArmConfig {
    /// Its name in answers and metrics.
    pub name: String,
    /// The variant that answers. None: the default one.
    pub variant: Option<String>,
    /// Its share of the units. None: an equal one; then no arm may have one.
    pub weight: Option<f64>,
    /// Decode settings of this arm, where they differ from the variant's.
    pub decode: ArmDecode,
}

/// Decode settings of an arm; a request's own win.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArmDecode {
    /// What ranks the items.
    pub engine: Option<Engine>,
    /// Live paths kept a step; 1 to 1000.
    pub beam: Option<usize>,
    /// CORP's threshold in nats; 0 to ln 2.
    pub theta: Option<f32>,
    /// Whether CORP prunes.
    pub corp: Option<bool>,
    /// Step on to the last codebook.
    pub full_path: Option<bool>,
}

impl From<ArmDecode> for DecodeOverrides {
    fn from(decode: ArmDecode) -> Self {
        let ArmDecode { engine, beam, theta, corp, full_path } = decode;
        Self { engine, beam, theta, corp, full_path }
    }
}

/// What must hold of one attribute of a request; exactly one of the three is set. An attribute that a request lacks
/// equals nothing and is in no list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Condition {
    /// Which: `user_id`, or the name of an attribute.
    pub attribute: String,
    /// It is this.
    pub equals: Option<String>,
    /// It is one of these.
    #[serde(rename = "in")]
    pub one_of: Option<Vec<String>>,
    /// It is none of these.
    pub not_in: Option<Vec<String>>,
}

/// When an arm does harm, and twice as much as the others, and loses its traffic. It stays so until its experiment is changed
/// or the server starts anew.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KillSwitchConfig {
    /// How far back one looks, in seconds; 1 to 86,400.
    pub window_s: u64,
    /// Fewer requests than this in the window prove nothing; 1 to 1,000,000.
    pub min_requests: u64,
    /// More than this share of requests that failed is harm; 0 to 1, and 1 never is.
    pub max_error_share: f64,
    /// A 99th percentile of the time to an answer above this is harm, in milliseconds; 1 to 3,600,000.
    pub max_p99_ms: u64,
    /// More than this share of answers without an item is harm; 0 to 1, and 1 never is.
    pub max_empty_share: f64,
}

impl Default for KillSwitchConfig {
    fn default() -> Self {
        Self { window_s: 300, min_requests: 200, max_error_share: 0.1, max_p99_ms: 3_000, max_empty_share: 0.5 }
    }
}

/// A point in time, in Unix seconds; written as in `2026-01-31T00:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "i64")]
pub struct Moment(pub i64);

impl TryFrom<String> for Moment {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parsed = OffsetDateTime::parse(&text, &Rfc3339);
        let expected = |_| format!("{text:?} is no time, expected one as 2026-01-31T00:00:00Z");
        parsed.map(|time| Self(time.unix_timestamp())).map_err(expected)
    }
}

impl From<Moment> for i64 {
    fn from(moment: Moment) -> i64 {
        moment.0
    }
}
