//! What the queue counts.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::domain::{Failure, Lateness};

/// Counters of all lanes. Registered once, cloned into every lane.
#[derive(Debug, Clone)]
pub struct BatchMetrics {
    pub(super) queue_wait: Histogram,
    pub(super) device_wait: Histogram,
    pub(super) batch_size: Histogram,
    late: IntCounterVec,
    depth: IntGaugeVec,
}

impl BatchMetrics {
    /// Registers the series, each at zero. Fails when they are registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let waits = |name: &str, about: &str| {
            Histogram::with_opts(HistogramOpts::new(name, about).buckets(vec![
                0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
            ]))
        };
        let queue_wait = waits("reg4rec_queue_wait_seconds", "Time from enqueue to the start of the batch")?;
        let device_wait =
            waits("reg4rec_device_wait_seconds", "Time that a batch waited for its turn among a device's lanes")?;
        let sizes = vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
        let batch_size =
            Histogram::with_opts(HistogramOpts::new("reg4rec_batch_size", "Jobs in a batch").buckets(sizes))?;
        let late = IntCounterVec::new(
            Opts::new("reg4rec_deadline_exceeded_total", "Jobs given up because their deadline passed"),
            &["where"],
        )?;
        let depth = IntGaugeVec::new(Opts::new("reg4rec_queue_depth", "Jobs that wait for a batch"), &["lane"])?;
        PLACES.iter().for_each(|&place| drop(late.with_label_values(&[place_name(place)])));
        registry.register(Box::new(queue_wait.clone()))?;
        registry.register(Box::new(device_wait.clone()))?;
        registry.register(Box::new(batch_size.clone()))?;
        registry.register(Box::new(late.clone()))?;
        registry.register(Box::new(depth.clone()))?;
        Ok(Self { queue_wait, device_wait, batch_size, late, depth })
    }

    pub(super) fn depth(&self, lane: &str) -> IntGauge {
        self.depth.with_label_values(&[lane])
    }

    /// Counts a failure if it is one of being late.
    pub(super) fn count_late(&self, failure: &Failure) {
        if let Failure::Late(place) = failure {
            self.late.with_label_values(&[place_name(*place)]).inc();
        }
    }
}

const PLACES: [Lateness; 4] = [Lateness::Enqueue, Lateness::Dequeue, Lateness::Step, Lateness::Answer];

fn place_name(place: Lateness) -> &'static str {
    match place {
        Lateness::Enqueue => "enqueue",
        Lateness::Dequeue => "dequeue",
        Lateness::Step => "step",
        Lateness::Answer => "answer",
    }
}
