//! Shadow arms: who is copied to one, and what came of it.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::domain::DecodeOverrides;

use super::bucket::HashVersion;
use super::config::ShadowConfig;

/// One shadow arm.
#[derive(Debug, Clone)]
pub struct Shadow {
    /// Its name in metrics.
    pub name: String,
    /// The variant that is asked; empty: the default one.
    pub variant: String,
    /// Decode settings that win over the request's.
    pub decode: DecodeOverrides,
    share: f64,
}

impl Shadow {
    /// The shadow arm of valid settings.
    pub fn new(config: &ShadowConfig) -> Self {
        let ShadowConfig { name, variant, share, decode } = config.clone();
        Self { name, variant: variant.unwrap_or_default(), decode: decode.into(), share }
    }

    /// Whether the requests of this user are copied: always the same users, and more of them as the share grows.
    pub fn copies(&self, user: &str) -> bool {
        self.share >= 1.0 || HashVersion::V2.bucket(&self.name, user) < self.share
    }
}

/// What came of one copy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ShadowOutcome {
    /// An answer: the share of the returned items that it holds as well, and whether both begin with the same.
    Answered {
        /// 0 to 1.
        overlap: f64,
        /// Whether both begin with the same item.
        first: bool,
        /// From the copy's start to its answer.
        took: Duration,
    },
    /// Its engine had other work, or too many copies were under way.
    Dropped,
    /// It failed, or its variant is not loaded.
    Failed,
}

/// What shadow arms count. Clones share it.
#[derive(Debug, Clone)]
pub struct ShadowMetrics {
    requests: IntCounterVec,
    first: IntCounterVec,
    overlap: HistogramVec,
    seconds: HistogramVec,
}

const RESULTS: [&str; 3] = ["answered", "dropped", "failed"];

impl ShadowMetrics {
    /// Registers them, as yet without a series.
    ///
    /// # Errors
    /// When a metric of the same name is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let shares = (0..=10).map(|tenth| f64::from(tenth) / 10.0).collect();
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new("reg4rec_shadow_requests_total", "Requests that were copied to a shadow arm"),
                &["shadow", "result"],
            )?,
            first: IntCounterVec::new(
                Opts::new("reg4rec_shadow_same_first_total", "Answers of a shadow arm that begin as the returned one"),
                &["shadow"],
            )?,
            overlap: HistogramVec::new(
                HistogramOpts::new(
                    "reg4rec_shadow_overlap",
                    "Share of the returned items that a shadow arm answers too",
                )
                .buckets(shares),
                &["shadow"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new("reg4rec_shadow_duration_seconds", "Seconds to an answer of a shadow arm")
                    .buckets(vec![0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]),
                &["shadow"],
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.first.clone()))?;
        registry.register(Box::new(metrics.overlap.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        Ok(metrics)
    }

    /// Begins anew with the series of these arms.
    pub fn show(&self, shadows: &[Shadow]) {
        self.requests.reset();
        self.first.reset();
        self.overlap.reset();
        self.seconds.reset();
        for Shadow { name, .. } in shadows {
            RESULTS.iter().for_each(|result| drop(self.requests.with_label_values(&[name, *result])));
            self.first.with_label_values(&[name]);
            self.overlap.with_label_values(&[name]);
            self.seconds.with_label_values(&[name]);
        }
    }

    /// Counts what came of one copy.
    pub fn count(&self, shadow: &str, outcome: ShadowOutcome) {
        let [answered, dropped, failed] = RESULTS;
        let result = match outcome {
            ShadowOutcome::Answered { overlap, first, took } => {
                self.first.with_label_values(&[shadow]).inc_by(first.into());
                self.overlap.with_label_values(&[shadow]).observe(overlap);
                self.seconds.with_label_values(&[shadow]).observe(took.as_secs_f64());
                answered
            }
            ShadowOutcome::Dropped => dropped,
            ShadowOutcome::Failed => failed,
        };
        self.requests.with_label_values(&[shadow, result]).inc();
    }
}
