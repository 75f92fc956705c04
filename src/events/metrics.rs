//! What the event log counts.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::domain::EventKind;

#[derive(Debug, Clone)]
pub(super) struct EventsMetrics {
    events: IntCounterVec,
    pub(super) duplicates: IntCounter,
    pub(super) failed: IntCounter,
    pub(super) exposures: IntCounter,
    pub(super) exposures_dropped: IntCounter,
    pub(super) written: Histogram,
    pub(super) together: Histogram,
    pub(super) bytes: IntGauge,
    pub(super) segments: IntGauge,
}

impl EventsMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            events: IntCounterVec::new(Opts::new("reg4rec_events_total", "Events recorded, by kind."), &["kind"])?,
            duplicates: IntCounter::new(
                "reg4rec_events_duplicates_total",
                "Events that were in the log already, by their id.",
            )?,
            failed: IntCounter::new("reg4rec_events_failed_total", "Events that the log could not take in.")?,
            exposures: IntCounter::new(
                "reg4rec_exposures_total",
                "Answers of experiments' arms that were written to the event log.",
            )?,
            exposures_dropped: IntCounter::new(
                "reg4rec_exposures_dropped_total",
                "Answers of experiments' arms that the event log was too busy, or could not be written, to take in.",
            )?,
            written: Histogram::with_opts(
                HistogramOpts::new("reg4rec_events_write_seconds", "Seconds to write and sync what waited.")
                    .buckets(vec![0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0]),
            )?,
            together: Histogram::with_opts(
                HistogramOpts::new("reg4rec_events_per_write", "Events that were written together.")
                    .buckets(vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0]),
            )?,
            bytes: IntGauge::new("reg4rec_events_log_bytes", "Bytes of the event log.")?,
            segments: IntGauge::new("reg4rec_events_log_segments", "Files of the event log.")?,
        };
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.duplicates.clone()))?;
        registry.register(Box::new(metrics.failed.clone()))?;
        registry.register(Box::new(metrics.exposures.clone()))?;
        registry.register(Box::new(metrics.exposures_dropped.clone()))?;
        registry.register(Box::new(metrics.written.clone()))?;
        registry.register(Box::new(metrics.together.clone()))?;
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.segments.clone()))?;
        EventKind::ALL.iter().for_each(|kind| drop(metrics.events.with_label_values(&[kind.name()])));
        Ok(metrics)
    }

    pub(super) fn count(&self, kind: EventKind) {
        self.events.with_label_values(&[kind.name()]).inc();
    }
}
