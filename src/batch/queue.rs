//! The state that both ends of a lane share, behind one lock that is never held while a job runs.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use tokio::sync::oneshot;

use super::estimate::ServiceEstimate;
use super::{Answered, BatchConfig, BatchMetrics};
use crate::domain::{Failure, Lateness, Overload};

/// What a refused caller is told to wait at least: a shorter wait would be spent on the way.
const SHORTEST_RETRY: Duration = Duration::from_millis(10);

/// What it is told when the queue is full and no batch has run yet.
const UNKNOWN_RETRY: Duration = Duration::from_millis(100);

/// How much of its time a job may be predicted to need and still enter. A job let in to the brim leaves no room for a
/// batch that stalls, and jobs that are nearly late when they are taken make small batches, which are dear.
const ROOM: f64 = 0.6;

pub(super) type Reply<A> = Result<Answered<A>, Failure>;

/// Most shadow jobs that run together: a serving job that comes meanwhile waits for them.
const SHADOWS_TOGETHER: usize = 8;

/// Who a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Somebody who waits for it.
    Serving,
    /// Nobody: it is done when there is nothing else to do, and else not at all.
    Shadow,
}

/// A job that waits.
pub(super) struct Waiting<J, A> {
    pub(super) id: u64,
    pub(super) job: J,
    pub(super) enqueued: Instant,
    /// How long it would take, as predicted when it came.
    pub(super) predicted: Option<Duration>,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Reply<A>>,
}

/// A batch that runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub(super) since: Instant,
    pub(super) jobs: usize,
}

impl<J, A> Waiting<J, A> {
    /// What was predicted of it, and what it has taken until now.
    pub(super) fn held(&self, now: Instant) -> Option<(Duration, Duration)> {
        Some((self.predicted?, now.saturating_duration_since(self.enqueued)))
    }
}

pub(super) struct State<J, A> {
    /// Ids ascend from front to back.
    pub(super) waiting: VecDeque<Waiting<J, A>>,
    /// Taken when nobody else waits; ids ascend as well.
    shadows: VecDeque<Waiting<J, A>>,
    pub(super) estimate: ServiceEstimate,
    /// The batch that runs now.
    pub(super) running: Option<Running>,
    next_id: u64,
    /// Once set, the answer to every later job.
    pub(super) closed: Option<Failure>,
}

pub(super) struct Queue<J, A> {
    state: Mutex<State<J, A>>,
    arrived: Condvar,
    pub(super) config: BatchConfig,
    pub(super) metrics: BatchMetrics,
    depth: IntGauge,
}

impl<J, A> State<J, A> {
    /// What the next batch is for; none where nobody waits.
    pub(super) fn next(&self) -> Option<Priority> {
        match (self.waiting.is_empty(), self.shadows.is_empty()) {
            (false, _) => Some(Priority::Serving),
            (true, false) => Some(Priority::Shadow),
            (true, true) => None,
        }
    }
}

impl<J, A> Queue<J, A> {
    pub(super) fn new(config: BatchConfig, metrics: BatchMetrics, lane: &str) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            shadows: VecDeque::new(),
            estimate: ServiceEstimate::default(),
            running: None,
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
    pub(super) fn enqueue(
        &self,
        job: J,
        deadline: Instant,
        priority: Priority,
    ) -> Result<(u64, oneshot::Receiver<Reply<A>>), Failure> {
        let now = Instant::now();
        if deadline <= now {
            return Err(Failure::Late(Lateness::Enqueue));
        }
        let mut state = self.lock();
        if let Some(why) = &state.closed {
            return Err(why.clone());
        }
        let predicted = match priority {
            Priority::Serving => self.admit(&state, now, deadline)?,
            Priority::Shadow => self.admit_shadow(&state)?,
        };
        let (reply, answered) = oneshot::channel();
        let id = state.next_id;
        state.next_id += 1;
        let waiting = Waiting { id, job, enqueued: now, predicted, deadline, reply };
        match priority {
            Priority::Serving => {
                state.waiting.push_back(waiting);
                self.depth.inc();
            }
            Priority::Shadow => state.shadows.push_back(waiting),
        }
        drop(state);
        self.arrived.notify_one();
        Ok((id, answered))
    }

    /// Refuses what finds the queue full, and what would be done too late. What finds nobody waiting always enters: only
    /// batches that run keep the estimate honest. Answers how long it will take, where that can be predicted.
    fn admit(&self, state: &State<J, A>, now: Instant, deadline: Instant) -> Result<Option<Duration>, Failure> {
        let overloaded =
            |reason, after: Duration| Err(Failure::Overloaded { reason, retry_after: after.max(SHORTEST_RETRY) });
        let full = state.estimate.batch(self.config.max_batch);
        if state.waiting.len() >= self.config.max_queue {
            return overloaded(Overload::QueueFull, full.unwrap_or(UNKNOWN_RETRY));
        }
        let left = deadline.saturating_duration_since(now);
        let predicted = self.predicted(state, now, left);
        let needed = predicted.map_or(Duration::ZERO, |predicted| Self::needed(state, predicted));
        if needed > left { overloaded(Overload::PredictedLate, needed - left) } else { Ok(predicted) }
    }

    /// Lets a few shadow jobs in while nobody waits who is served. Their time is not predicted, and teaches nothing.
    fn admit_shadow(&self, state: &State<J, A>) -> Result<Option<Duration>, Failure> {
        if state.waiting.is_empty() && state.shadows.len() < SHADOWS_TOGETHER {
            return Ok(None);
        }
        Err(Failure::Overloaded { reason: Overload::QueueFull, retry_after: UNKNOWN_RETRY })
    }

    /// How long until a job would be done that came now, `left` being what it has; none while nobody waits, and before the
    /// first batch has ended.
    fn predicted(&self, state: &State<J, A>, now: Instant, left: Duration) -> Option<Duration> {
        let ahead = state.waiting.len();
        let size = self.batch_within(state, left);
        let whole = state.estimate.batch(size).filter(|_| ahead > 0)?;
        let (batches, rest) = ((ahead + 1) / size, (ahead + 1) % size);
        let last = if rest > 0 { state.estimate.batch(rest)? } else { Duration::ZERO };
        let work = whole.saturating_mul(u32::try_from(batches).unwrap_or(u32::MAX)).saturating_add(last);
        Some(self.rest_of_running(state, now).saturating_add(work))
    }

    /// How much time a job must have of which that is predicted.
    fn needed(state: &State<J, A>, predicted: Duration) -> Duration {
        let needed = predicted.as_secs_f64() * state.estimate.stretch() / ROOM;
        Duration::try_from_secs_f64(needed).unwrap_or(Duration::MAX)
    }

    /// How much of its time a job that came now must have, as a share; 0 while nobody waits. Above 1 it is refused.
    pub(super) fn pressure(&self, deadline: Instant) -> f64 {
        let (state, now) = (self.lock(), Instant::now());
        let left = deadline.saturating_duration_since(now);
        let predicted = self.predicted(&state, now, left).unwrap_or_default();
        Self::needed(&state, predicted).as_secs_f64() / left.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// What a job that came now would be refused with, but for a lane that is closed.
    pub(super) fn refusal(&self, deadline: Instant) -> Option<Failure> {
        let state = self.lock();
        if state.closed.is_some() { None } else { self.admit(&state, Instant::now(), deadline).err() }
    }

    /// The jobs of a batch, of those that may take `allowed` from when they came. A third of that: while one batch runs
    /// another one's worth of jobs comes, and the last third is room for what nobody foresaw.
    fn batch_within(&self, state: &State<J, A>, allowed: Duration) -> usize {
        state.estimate.fitting(allowed / 3, self.config.max_batch)
    }

    /// What a batch that runs still takes. One that has taken longer than expected is expected to take as much longer
    /// again.
    fn rest_of_running(&self, state: &State<J, A>, now: Instant) -> Duration {
        let Some(Running { since, jobs }) = state.running else { return Duration::ZERO };
        let whole = state.estimate.batch(jobs).unwrap_or_default();
        whole.abs_diff(now.saturating_duration_since(since))
    }

    /// Takes a job out again because nobody waits for it any more. False when it had left the queue before.
    pub(super) fn leave(&self, id: u64) -> bool {
        let mut state = self.lock();
        if let Ok(place) = state.shadows.binary_search_by_key(&id, |waiting| waiting.id) {
            return state.shadows.remove(place).is_some();
        }
        let Ok(place) = state.waiting.binary_search_by_key(&id, |waiting| waiting.id) else { return false };
        state.waiting.remove(place);
        self.depth.dec();
        true
    }

    /// Blocks until jobs may be taken, and says what for and how long a batch of them takes, where that is known. None when
    /// the queue is closed.
    pub(super) fn wish(&self) -> Option<(Priority, Option<Duration>)> {
        self.wish_of(&*self.filled()?)
    }

    /// As [`Self::wish`], without waiting: none also when no jobs may be taken yet.
    pub(super) fn wish_now(&self) -> Option<(Priority, Option<Duration>)> {
        let state = self.lock();
        if state.closed.is_none() && self.is_filled(&state) { self.wish_of(&state) } else { None }
    }

    fn wish_of(&self, state: &State<J, A>) -> Option<(Priority, Option<Duration>)> {
        let priority = state.next()?;
        let jobs = match priority {
            Priority::Serving => state.waiting.len(),
            Priority::Shadow => state.shadows.len(),
        };
        Some((priority, state.estimate.batch(jobs.min(self.config.max_batch))))
    }

    /// Whether the oldest job has lingered long enough, or a whole batch is there.
    fn is_filled(&self, state: &State<J, A>) -> bool {
        state.waiting.front().map_or(!state.shadows.is_empty(), |oldest| {
            oldest.enqueued.elapsed() >= self.config.linger() || state.waiting.len() >= self.config.max_batch
        })
    }

    /// Blocks until jobs may be taken: some wait, and the oldest has lingered long enough or a whole batch is there.
    /// None when the queue is closed.
    fn filled(&self) -> Option<MutexGuard<'_, State<J, A>>> {
        let mut state = self.lock();
        while state.closed.is_none() {
            if self.is_filled(&state) {
                return Some(state);
            }
            state = match state.waiting.front() {
                None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(oldest) => {
                    let rest = self.config.linger().saturating_sub(oldest.enqueued.elapsed());
                    self.arrived.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        None
    }

    /// Takes from the front of the queue what makes one batch: as many as the tightest of their deadlines lets run
    /// together. What is late, or cannot be done in time any more, is answered so; what nobody waits for is dropped.
    pub(super) fn take(&self, state: &mut State<J, A>) -> Vec<Waiting<J, A>> {
        let now = Instant::now();
        if state.waiting.is_empty() {
            let together = state.shadows.len().min(self.config.max_batch);
            let wanted = |job: &Waiting<J, A>| !job.reply.is_closed() && job.deadline > now;
            return state.shadows.drain(..together).filter(wanted).collect();
        }
        let mut taken = Vec::with_capacity(state.waiting.len().min(self.config.max_batch));
        let mut most = self.config.max_batch;
        while taken.len() < most {
            let Some(front) = state.waiting.pop_front() else { break };
            if front.reply.is_closed() {
                self.depth.dec();
                continue;
            }
            let left = front.deadline.saturating_duration_since(now);
            // By the estimate alone the last one is not given up: without batches the estimate would never change.
            let hopeless = state.estimate.batch(1).is_some_and(|alone| alone > left) && !state.waiting.is_empty();
            if left.is_zero() || hopeless {
                self.depth.dec();
                state.estimate.held(front.held(now).into_iter());
                // A caller that is gone as well needs no answer.
                drop(front.reply.send(Err(Failure::Late(Lateness::Dequeue))));
                continue;
            }
            let allowed = front.deadline.saturating_duration_since(front.enqueued);
            let together = self.batch_within(state, allowed).min(state.estimate.fitting(left, self.config.max_batch));
            if taken.len() + 1 > together {
                state.waiting.push_front(front);
                break;
            }
            most = most.min(together);
            self.depth.dec();
            taken.push(front);
        }
        taken
    }

    /// Ends the queue: answers those who wait with `waiting`, those who come later with `later`. The first close holds.
    pub(super) fn close(&self, waiting: &Failure, later: Failure) {
        let mut state = self.lock();
        state.closed.get_or_insert(later);
        let left = std::mem::take(&mut state.waiting);
        let shadows = std::mem::take(&mut state.shadows);
        drop(state);
        self.arrived.notify_all();
        for job in shadows {
            drop(job.reply.send(Err(waiting.clone())));
        }
        for job in left {
            self.depth.dec();
            drop(job.reply.send(Err(waiting.clone())));
        }
    }
}
