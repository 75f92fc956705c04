//! Admission, queue and batches: callers submit jobs and await answers, one worker thread takes them in batches.
//!
//! Generic over the job. A [`lane`] has two ends: the [`Submitter`], async, refuses what is late or cannot finish in
//! time and takes a job back out of the queue when its caller goes away; the [`Worker`], a plain thread, takes what waits
//! whenever it is free, as much as a limit and the deadlines of the jobs let run together. There is no waiting for company
//! unless a linger is configured: while one batch runs, the next one fills by itself. Lanes of one device run their batches
//! in [`Turns`].

mod config;
mod estimate;
mod metrics;
mod queue;
mod submit;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
mod turns;
mod worker;

use std::sync::Arc;

pub use config::BatchConfig;
pub use metrics::BatchMetrics;
pub use submit::{Answered, Submitter};
pub use turns::Turns;
pub use worker::{Batch, Worker};

use queue::Queue;

/// The two ends of a new queue at a device. `name` labels its depth in the metrics; it must come from a closed list.
pub fn lane<J, A>(
    name: &str,
    config: BatchConfig,
    device: &Turns,
    metrics: &BatchMetrics,
) -> (Submitter<J, A>, Worker<J, A>) {
    let queue = Arc::new(Queue::new(config, metrics.clone(), name));
    (Submitter::new(queue.clone()), Worker::new(queue, device.join()))
}
