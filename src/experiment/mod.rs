//! Who gets which arm, what came of it, and when to distrust or stop an experiment.
//!
//! [`Experiment::draw`] is a pure function of settings, unit, attributes and time; its buckets ([`HashVersion`],
//! [`bucket_ranges`], [`choose`], [`in_namespace`]) agree with GrowthBook's SDKs. [`Experiments::enter`] draws for a
//! request; the [`Trial`] that it gives says whom to ask, falls back when an arm cannot answer, and counts the outcome:
//! per arm, for the sample-ratio alarm, and for the kill switch. [`report`] says in the end what came of it, from what the
//! event log holds. [`ExperimentBook`] keeps the versions that
//! operators set. No I/O but that file, counters and the log.

mod book;
mod bucket;
mod config;
mod draw;
mod kill_switch;
mod metrics;
pub mod report;
mod running;
mod sample_ratio;
mod shadow;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
mod trial;
mod validate;

pub use book::{BookError, ExperimentBook};
pub use bucket::{
    BucketRange, HashVersion, MAX_ARMS, bucket_ranges, choose, equal_weights, in_namespace, weight_problems,
};
pub use config::{
    ArmConfig, ArmDecode, Condition, ExperimentConfig, ExperimentsConfig, KillSwitchConfig, Moment, ShadowConfig,
};
pub use draw::{Arm, Draw, Experiment, Subject};
pub use metrics::ExperimentMetrics;
pub use running::Experiments;
pub use sample_ratio::{ALARM as SAMPLE_RATIO_ALARM, p_value};
pub use shadow::{Shadow, ShadowMetrics, ShadowOutcome};
pub use trial::Trial;
