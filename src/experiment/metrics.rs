//! What experiments count. Every series of a configured experiment exists from the start.

use std::time::Duration;

use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::domain::{Assignment, AssignmentReason};

use super::draw::Experiment;

/// The arm label of requests that got no arm.
pub(super) const NO_ARM: &str = "none";

/// Seconds: from a cached answer to a very late one.
const SECONDS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// The metrics of all experiments. Clones share them.
#[derive(Debug, Clone)]
pub struct ExperimentMetrics {
    assignments: IntCounterVec,
    p_value: GaugeVec,
    requests: IntCounterVec,
    errors: IntCounterVec,
    empty: IntCounterVec,
    durations: HistogramVec,
    killed: IntGaugeVec,
}

impl ExperimentMetrics {
    /// Registers them, as yet without a series.
    ///
    /// # Errors
    /// When a metric of the same name is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let arm = ["experiment", "arm"];
        let counter = |name: &str, about: &str| IntCounterVec::new(Opts::new(name, about), &arm);
        let metrics = Self {
            assignments: IntCounterVec::new(
                Opts::new("reg4rec_experiment_assignments_total", "Answers, by what each experiment said of them."),
                &["experiment", "arm", "reason"],
            )?,
            p_value: GaugeVec::new(
                Opts::new(
                    "reg4rec_experiment_srm_p_value",
                    "p of the chi-square test that units are delivered to arms by their weights; 1 before the first.",
                ),
                &["experiment"],
            )?,
            requests: counter("reg4rec_experiment_arm_requests_total", "Requests that an arm answered or tried to.")?,
            errors: counter("reg4rec_experiment_arm_errors_total", "Requests at which an arm failed.")?,
            empty: counter("reg4rec_experiment_arm_empty_total", "Answers of an arm without an item.")?,
            durations: HistogramVec::new(
                HistogramOpts::new(
                    "reg4rec_experiment_arm_duration_seconds",
                    "Seconds from a request to an arm's answer or failure.",
                )
                .buckets(SECONDS.to_vec()),
                &arm,
            )?,
            killed: IntGaugeVec::new(
                Opts::new("reg4rec_experiment_arm_killed", "1 for an arm that did harm and gets no traffic."),
                &arm,
            )?,
        };
        metrics.register(registry)?;
        Ok(metrics)
    }

    fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.assignments.clone()))?;
        registry.register(Box::new(self.p_value.clone()))?;
        registry.register(Box::new(self.requests.clone()))?;
        registry.register(Box::new(self.errors.clone()))?;
        registry.register(Box::new(self.empty.clone()))?;
        registry.register(Box::new(self.durations.clone()))?;
        registry.register(Box::new(self.killed.clone()))
    }

    /// Begins anew with the series of these experiments.
    pub(super) fn show<'a>(&self, experiments: impl Iterator<Item = &'a Experiment>) {
        self.assignments.reset();
        self.p_value.reset();
        [&self.requests, &self.errors, &self.empty].into_iter().for_each(IntCounterVec::reset);
        self.durations.reset();
        self.killed.reset();
        for experiment in experiments {
            self.p_value(&experiment.key, 1.0);
            let (with_arm, without): (Vec<AssignmentReason>, _) =
                AssignmentReason::ALL.into_iter().partition(|reason| reason.has_arm());
            for reason in without {
                self.assignments.with_label_values(&[&experiment.key, NO_ARM, reason.name()]);
            }
            for arm in &experiment.arms {
                let labels = [experiment.key.as_str(), arm.name.as_str()];
                for reason in &with_arm {
                    self.assignments.with_label_values(&[labels[0], labels[1], reason.name()]);
                }
                for counter in [&self.requests, &self.errors, &self.empty] {
                    counter.with_label_values(&labels);
                }
                self.durations.with_label_values(&labels);
                self.killed.with_label_values(&labels);
            }
        }
    }

    pub(super) fn assigned(&self, assignment: &Assignment) {
        let arm = assignment.arm.as_deref().unwrap_or(NO_ARM);
        self.assignments.with_label_values(&[&assignment.experiment, arm, assignment.reason.name()]).inc();
    }

    pub(super) fn p_value(&self, experiment: &str, p: f64) {
        self.p_value.with_label_values(&[experiment]).set(p);
    }

    pub(super) fn attempt(&self, experiment: &str, arm: &str, took: Duration, failed: bool, empty: bool) {
        let labels = [experiment, arm];
        self.requests.with_label_values(&labels).inc();
        self.errors.with_label_values(&labels).inc_by(failed.into());
        self.empty.with_label_values(&labels).inc_by(empty.into());
        self.durations.with_label_values(&labels).observe(took.as_secs_f64());
    }

    pub(super) fn kill(&self, experiment: &str, arm: &str) {
        self.killed.with_label_values(&[experiment, arm]).set(1);
    }
}
