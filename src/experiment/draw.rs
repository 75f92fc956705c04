//! Who gets which arm: a pure function of an experiment's settings, a unit, attributes and the time.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::domain::{AssignmentReason, DecodeOverrides, Design};

use super::bucket::{BucketRange, HashVersion, bucket_ranges, choose, in_namespace};
use super::config::{Condition, ExperimentConfig, USER_ID};

/// What is known of whoever asks.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Whose history it is; may be empty.
    pub user_id: &'a str,
    /// Free attributes of the request.
    pub attributes: &'a BTreeMap<String, String>,
}

impl<'a> Subject<'a> {
    fn attribute(&self, name: &str) -> Option<&'a str> {
        let value = if name == USER_ID { Some(self.user_id) } else { self.attributes.get(name).map(String::as_str) };
        value.filter(|value| name != USER_ID || !value.is_empty())
    }
}

/// What became of a draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draw {
    /// An arm, counted from 0.
    Arm(usize),
    /// None, and why.
    Out(AssignmentReason),
}

/// One side of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    /// Its name.
    pub name: String,
    /// The variant that answers; none: the default one.
    pub variant: Option<String>,
    /// Its decode settings.
    pub decode: DecodeOverrides,
}

impl Arm {
    /// Whether it answers otherwise than a request without an arm would be.
    pub(super) fn changes(&self) -> bool {
        self.variant.is_some() || self.decode != DecodeOverrides::default()
    }
}

/// An experiment, ready to draw.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// Its name.
    pub key: String,
    /// Twelve hexadecimal digits of the SHA-256 of its settings.
    pub version: String,
    /// Its sides; the first is the control.
    pub arms: Vec<Arm>,
    /// The share of each arm.
    pub weights: Vec<f64>,
    unit: String,
    seed: String,
    hash: HashVersion,
    ranges: Vec<BucketRange>,
    layer: Option<(String, BucketRange)>,
    holdout: f64,
    holdout_seed: String,
    eligibility: Vec<Condition>,
    start: i64,
    end: i64,
}

impl Experiment {
    /// The experiment of valid settings.
    pub fn new(config: &ExperimentConfig) -> Self {
        let weights = config.weights();
        let [start, end] = config.namespace;
        let part = BucketRange { start, end };
        let arm = |arm: &super::config::ArmConfig| Arm {
            name: arm.name.clone(),
            variant: arm.variant.clone(),
            decode: arm.decode.into(),
        };
        Self {
            key: config.key.clone(),
            version: version(config),
            arms: config.arms.iter().map(arm).collect(),
            ranges: bucket_ranges(&weights, config.coverage),
            weights,
            unit: config.unit.clone(),
            seed: config.seed().to_owned(),
            hash: config.hash_version,
            layer: config.layer.clone().map(|layer| (layer, part)),
            holdout: config.holdout,
            holdout_seed: config.holdout_seed.clone().unwrap_or_else(|| format!("{}__holdout", config.seed())),
            eligibility: config.eligibility.clone(),
            start: config.start.map_or(i64::MIN, i64::from),
            end: config.end.map_or(i64::MAX, i64::from),
        }
    }

    /// Draws for one request at `now`, in Unix seconds. None: the experiment does not run.
    pub fn draw(&self, subject: Subject<'_>, now: i64) -> Option<Draw> {
        if !(self.start..self.end).contains(&now) {
            return None;
        }
        Some(self.draw_while_running(subject).map_or_else(Draw::Out, Draw::Arm))
    }

    fn draw_while_running(&self, subject: Subject<'_>) -> Result<usize, AssignmentReason> {
        let meets = |condition: &Condition| meets(condition, subject.attribute(&condition.attribute));
        let unit = self.unit(subject).filter(|_| self.eligibility.iter().all(meets));
        let unit = unit.ok_or(AssignmentReason::NotEligible)?;
        if HashVersion::V2.bucket(&self.holdout_seed, unit) < self.holdout {
            return Err(AssignmentReason::Holdout);
        }
        if self.layer.as_ref().is_some_and(|(layer, part)| !in_namespace(unit, layer, *part)) {
            return Err(AssignmentReason::NotInNamespace);
        }
        choose(self.hash.bucket(&self.seed, unit), &self.ranges).ok_or(AssignmentReason::NotInCoverage)
    }

    /// What of its settings the outcome is read by.
    pub(super) fn design(&self) -> Design {
        Design {
            experiment: self.key.clone(),
            version: self.version.clone(),
            arms: self.arms.iter().map(|arm| arm.name.clone()).collect(),
            weights: self.weights.clone(),
        }
    }

    /// Stands for the unit in the event log where that is no user: 24 hexadecimal digits of its SHA-256, as an attribute
    /// may name a person whom nobody can be asked to forget. None: the user is the unit, or the request lacks it.
    pub(super) fn unit_mark(&self, subject: Subject<'_>) -> Option<String> {
        let unit = self.unit(subject).filter(|_| self.unit != USER_ID)?;
        Some(Sha256::digest(unit).iter().take(12).map(|byte| format!("{byte:02x}")).collect())
    }

    /// What is assigned; none when the request lacks it.
    pub(super) fn unit<'a>(&self, subject: Subject<'a>) -> Option<&'a str> {
        subject.attribute(&self.unit).filter(|unit| !unit.is_empty())
    }
}

/// Whether a condition holds of an attribute's value; none: the request lacks it.
fn meets(condition: &Condition, value: Option<&str>) -> bool {
    let listed = |list: &Vec<String>| value.is_some_and(|value| list.iter().any(|one| one == value));
    condition.equals.as_deref().is_none_or(|wanted| value == Some(wanted))
        && condition.one_of.as_ref().is_none_or(listed)
        && !condition.not_in.as_ref().is_some_and(listed)
}

/// Equal settings have equal versions, whatever order a file has them in.
fn version(config: &ExperimentConfig) -> String {
    // Only maps with keys that are no texts and failing writers fail, and settings have neither; what `Debug` tells
    // differs between any two settings as well.
    let text = serde_json::to_string(config).unwrap_or_else(|_| format!("{config:?}"));
    Sha256::digest(text).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
