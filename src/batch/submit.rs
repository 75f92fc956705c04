//! The caller's end of a lane.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::queue::{Priority, Queue, Reply};
use crate::domain::{Failure, Lateness};

/// What came back for one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered<A> {
    /// The worker's answer.
    pub answer: A,
    /// From enqueue to the start of its batch.
    pub queue_wait: Duration,
    /// How many jobs ran with it, itself included.
    pub batch_size: usize,
}

/// Hands jobs to the worker. Dropping it closes the lane.
pub struct Submitter<J, A> {
    queue: Arc<Queue<J, A>>,
}

impl<J, A> Submitter<J, A> {
    pub(super) fn new(queue: Arc<Queue<J, A>>) -> Self {
        Self { queue }
    }

    /// Waits in line and for the answer, no longer than `deadline`. Dropping the future takes the job out of the queue.
    ///
    /// # Errors
    /// `Late` when the deadline passes on the way, `Overloaded` when the job cannot be done by its deadline or the queue
    /// is full, `NotReady` when the lane is closed, `Internal` when the worker dropped the job, and what the worker
    /// itself answers.
    pub async fn submit(&self, job: J, deadline: Instant) -> Result<Answered<A>, Failure> {
        let answered = self.wait(job, deadline, Priority::Serving).await;
        if let Err(failure) = &answered {
            self.queue.metrics.count_late(failure);
        }
        answered
    }

    /// [`Submitter::submit`] for nobody: the job is done when nothing else waits, and does not count as late.
    ///
    /// # Errors
    /// As [`Submitter::submit`]; `Overloaded` whenever others wait.
    pub async fn submit_shadow(&self, job: J, deadline: Instant) -> Result<Answered<A>, Failure> {
        self.wait(job, deadline, Priority::Shadow).await
    }

    async fn wait(&self, job: J, deadline: Instant, priority: Priority) -> Reply<A> {
        let (id, reply) = self.queue.enqueue(job, deadline, priority)?;
        let mut place = Place { queue: &self.queue, id, reply };
        match timeout_at(deadline.into(), &mut place.reply).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) => Err(Failure::Internal("the worker dropped the job".into())),
            Err(_) if self.queue.leave(id) => Err(Failure::Late(Lateness::Dequeue)),
            Err(_) => Err(Failure::Late(Lateness::Answer)),
        }
    }

    /// Refuses, and counts, what is late before it is worth any work.
    pub fn refuse_late(&self, deadline: Instant) -> Result<(), Failure> {
        if deadline > Instant::now() {
            return Ok(());
        }
        let late = Failure::Late(Lateness::Enqueue);
        self.queue.metrics.count_late(&late);
        Err(late)
    }

    /// How much of its time a job that came now must have, as a share; 0 while nobody waits. Above 1 it is refused.
    pub fn pressure(&self, deadline: Instant) -> f64 {
        self.queue.pressure(deadline)
    }

    /// What a job that came now would be refused with as one too many.
    pub fn refusal(&self, deadline: Instant) -> Option<Failure> {
        self.queue.refusal(deadline)
    }

    /// How many jobs wait.
    pub fn depth(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    /// Ends the lane: those who wait and those who come later are told that it is not ready.
    pub fn close(&self) {
        let stopping = Failure::NotReady { reason: "shutting down", retry_after: Duration::from_secs(1) };
        self.queue.close(&stopping, stopping.clone());
    }
}

impl<J, A> Drop for Submitter<J, A> {
    fn drop(&mut self) {
        self.close();
    }
}

/// A caller's place in line: given up when the caller stops waiting.
struct Place<'a, J, A> {
    queue: &'a Queue<J, A>,
    id: u64,
    reply: oneshot::Receiver<Reply<A>>,
}

impl<J, A> Drop for Place<'_, J, A> {
    fn drop(&mut self) {
        // After an answer nothing is in line; only a caller that went away leaves a job behind.
        if !self.reply.is_terminated() {
            self.queue.leave(self.id);
        }
    }
}
