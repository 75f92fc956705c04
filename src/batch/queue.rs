//! The state that both ends of a lane share, behind one lock that is never held while a job runs.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use tokio::sync::oneshot;

use super::estimate::ServiceEstimate;
use super::metrics::Refusal;
use super::{Answered, BatchConfig, BatchMetrics};
use crate::domain::{Failure, Lateness};

/// What a refused caller is told to wait at least: a shorter wait would be spent on the way.
const SHORTEST_RETRY: Duration = Duration::from_millis(10);

/// What it is told when the queue is full and no batch has run yet.
const UNKNOWN_RETRY: Duration = Duration::from_millis(100);

pub(super) type Reply<A> = Result<Answered<A>, Failure>;

/// A job that waits.
pub(super) struct Waiting<J, A> {
    pub(super) id: u64,
    pub(super) job: J,
    pub(super) enqueued: Instant,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Reply<A>>,
}

pub(super) struct State<J, A> {
    /// Ids ascend from front to back.
    pub(super) waiting: VecDeque<Waiting<J, A>>,
    pub(super) estimate: ServiceEstimate,
    /// When the batch that runs now was taken.
    pub(super) running_since: Option<Instant>,
    next_id: u64,
    /// Once set, the answer to every later job.
    closed: Option<Failure>,
}

pub(super) struct Queue<J, A> {
    state: Mutex<State<J, A>>,
    arrived: Condvar,
    pub(super) config: BatchConfig,
    pub(super) metrics: BatchMetrics,
    depth: IntGauge,
}

impl<J, A> Queue<J, A> {
    pub(super) fn new(config: BatchConfig, metrics: BatchMetrics, lane: &str) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            estimate: ServiceEstimate::default(),
            running_since: None,
            next_id: 0,
            closed: None,
        };
        let depth = metrics.depth(lane);
        Self { state: Mutex::new(state), arrived: Condvar::new(), config, metrics, depth }
    }

    /// No code that can panic runs under the lock, so a poisoned one still holds a whole state.
    pub(super) fn lock(&self) -> MutexGuard<'_, State<J, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a job in, or says why not. Answers its id and where its reply comes.
    pub(super) fn enqueue(&self, job: J, deadline: Instant) -> Result<(u64, oneshot::Receiver<Reply<A>>), Failure> {
        let now = Instant::now();
        if deadline <= now {
            return Err(Failure::Late(Lateness::Enqueue));
        }
        let mut state = self.lock();
        if let Some(why) = &state.closed {
            return Err(why.clone());
        }
        self.admit(&state, now, deadline)?;
        let (reply, answered) = oneshot::channel();
        let id = state.next_id;
        state.next_id += 1;
        state.waiting.push_back(Waiting { id, job, enqueued: now, deadline, reply });
        self.depth.inc();
        drop(state);
        self.arrived.notify_one();
        Ok((id, answered))
    }

    /// Refuses what finds the queue full, and what the backlog would make late. With less than one batch waiting a job
    /// always enters: it rides in the next batch, and only running batches keep the estimate honest.
    fn admit(&self, state: &State<J, A>, now: Instant, deadline: Instant) -> Result<(), Failure> {
        let backlog = state.waiting.len();
        let full = state.estimate.full();
        if backlog >= self.config.max_queue {
            self.metrics.refused(Refusal::QueueFull);
            return Err(Failure::Overloaded { retry_after: full.unwrap_or(UNKNOWN_RETRY).max(SHORTEST_RETRY) });
        }
        if backlog < self.config.max_batch {
            return Ok(());
        }
        let Some(full) = full else { return Ok(()) };
        let batches = backlog / self.config.max_batch + 1;
        let ahead = full.saturating_mul(u32::try_from(batches).unwrap_or(u32::MAX));
        let predicted = self.rest_of_running(state, now) + ahead;
        let left = deadline.saturating_duration_since(now);
        if predicted > left {
            self.metrics.refused(Refusal::PredictedLate);
            return Err(Failure::Overloaded { retry_after: (predicted - left).max(SHORTEST_RETRY) });
        }
        Ok(())
    }

    fn rest_of_running(&self, state: &State<J, A>, now: Instant) -> Duration {
        let (Some(since), Some(whole)) = (state.running_since, state.estimate.running()) else { return Duration::ZERO };
        whole.saturating_sub(now.saturating_duration_since(since))
    }

    /// Takes a job out again because nobody waits for it any more. False when it had left the queue before.
    pub(super) fn leave(&self, id: u64) -> bool {
        let mut state = self.lock();
        let Ok(place) = state.waiting.binary_search_by_key(&id, |waiting| waiting.id) else { return false };
        state.waiting.remove(place);
        self.depth.dec();
        true
    }

    /// Blocks until jobs may be taken: some wait, and the oldest has lingered long enough or a whole batch is there.
    /// None when the queue is closed.
    pub(super) fn filled(&self) -> Option<MutexGuard<'_, State<J, A>>> {
        let mut state = self.lock();
        loop {
            if state.closed.is_some() {
                return None;
            }
            let Some(oldest) = state.waiting.front() else {
                state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let lingered = oldest.enqueued.elapsed();
            if lingered >= self.config.linger() || state.waiting.len() >= self.config.max_batch {
                return Some(state);
            }
            let rest = self.config.linger() - lingered;
            state = self.arrived.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes the front of the queue, up to one batch. What is late is answered so; what nobody waits for is dropped.
    pub(super) fn take(&self, state: &mut State<J, A>) -> Vec<Waiting<J, A>> {
        let now = Instant::now();
        let mut taken = Vec::with_capacity(state.waiting.len().min(self.config.max_batch));
        while taken.len() < self.config.max_batch {
            let Some(front) = state.waiting.pop_front() else { break };
            self.depth.dec();
            if front.deadline <= now {
                // A caller that is gone as well needs no answer.
                drop(front.reply.send(Err(Failure::Late(Lateness::Dequeue))));
            } else if !front.reply.is_closed() {
                taken.push(front);
            }
        }
        taken
    }

    /// Ends the queue: answers those who wait with `waiting`, those who come later with `later`. The first close holds.
    pub(super) fn close(&self, waiting: &Failure, later: Failure) {
        let mut state = self.lock();
        state.closed.get_or_insert(later);
        let left = std::mem::take(&mut state.waiting);
        drop(state);
        self.arrived.notify_all();
        for job in left {
            self.depth.dec();
            drop(job.reply.send(Err(waiting.clone())));
        }
    }
}
