//! The worker's end of a lane.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Answered;
use super::queue::{Priority, Queue, Running, Waiting};
use super::turns::{Seat, Turn};
use crate::domain::Failure;

/// How long shadow work waits for its turn before it looks whether somebody came to be served.
const SHADOW_PATIENCE: Duration = Duration::from_millis(2);

/// Takes batches, one after the other. When it is dropped, also by a panic, everybody who waits is told.
pub struct Worker<J, A> {
    queue: Arc<Queue<J, A>>,
    seat: Seat,
}

impl<J, A> Worker<J, A> {
    pub(super) fn new(queue: Arc<Queue<J, A>>, seat: Seat) -> Self {
        Self { queue, seat }
    }

    /// Blocks until a job may be taken and it is this lane's turn at the device, then takes those that wait, oldest first:
    /// at most `max_batch`, and no more than their deadlines let run together. None when the lane is closed.
    pub fn next_batch(&self) -> Option<Batch<J, A>> {
        loop {
            let (priority, cost) = match self.queue.wish_now() {
                Some(wish) => wish,
                None => {
                    // Others must not wait in line behind nothing.
                    self.seat.leave();
                    self.queue.wish()?
                }
            };
            let patience = (priority == Priority::Shadow).then_some(SHADOW_PATIENCE);
            let began = Instant::now();
            let Some(turn) = self.seat.turn(priority, cost, patience) else { continue };
            let mut state = self.queue.lock();
            if state.closed.is_some() {
                return None;
            }
            // Taken only now, so that the batch is made of all that came meanwhile.
            let jobs = self.queue.take(&mut state);
            if jobs.is_empty() {
                continue;
            }
            let taken = Instant::now();
            state.running = Some(Running { since: taken, jobs: jobs.len() });
            drop(state);
            self.queue.metrics.device_wait.observe(taken.saturating_duration_since(began).as_secs_f64());
            self.queue.metrics.batch_size.observe(jobs.len() as f64);
            for job in &jobs {
                let waited = taken.saturating_duration_since(job.enqueued);
                self.queue.metrics.queue_wait.observe(waited.as_secs_f64());
            }
            return Some(Batch { queue: self.queue.clone(), jobs, taken, turn: Some(turn) });
        }
    }
}

impl<J, A> Drop for Worker<J, A> {
    fn drop(&mut self) {
        let later = Failure::NotReady { reason: "the engine has stopped", retry_after: Duration::from_secs(5) };
        self.queue.close(&Failure::Internal("the engine has stopped".into()), later);
    }
}

/// Jobs that run together. Those it does not answer before it is dropped fail as internal.
pub struct Batch<J, A> {
    queue: Arc<Queue<J, A>>,
    jobs: Vec<Waiting<J, A>>,
    taken: Instant,
    /// Given up when it has run.
    turn: Option<Turn>,
}

impl<J, A> Batch<J, A> {
    /// How many jobs; at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// The jobs, in the order in which `answer` wants their answers.
    pub fn jobs(&self) -> impl ExactSizeIterator<Item = &J> {
        self.jobs.iter().map(|waiting| &waiting.job)
    }

    /// Orders the jobs by a key; equal keys stay as they came.
    pub fn order_by_key<K: Ord>(&mut self, key: impl Fn(&J) -> K) {
        self.jobs.sort_by_key(|waiting| key(&waiting.job));
    }

    /// Whether job `place` is still worth working on: its caller waits and its deadline lies ahead.
    pub fn wanted(&self, place: usize) -> bool {
        self.jobs.get(place).is_some_and(|job| !job.reply.is_closed() && job.deadline > Instant::now())
    }

    /// Answers every job, in the order of `jobs`, and lets the lane learn how long the batch took.
    pub fn answer(mut self, answers: impl IntoIterator<Item = Result<A, Failure>>) {
        let size = self.jobs.len();
        let mut state = self.queue.lock();
        let now = Instant::now();
        state.estimate.record(now.saturating_duration_since(self.taken), size);
        state.estimate.held(self.jobs.iter().filter_map(|job| job.held(now)));
        let next = state.next();
        drop(state);
        // Another lane's batch may run while the answers of this one go out.
        if let Some(turn) = self.turn.take() {
            turn.end(next);
        }
        for (waiting, answer) in self.jobs.drain(..).zip(answers) {
            let queue_wait = self.taken.saturating_duration_since(waiting.enqueued);
            let answered = answer.map(|answer| Answered { answer, queue_wait, batch_size: size });
            // A caller that stopped waiting is no failure of ours; its side has counted why.
            drop(waiting.reply.send(answered));
        }
    }
}

impl<J, A> Drop for Batch<J, A> {
    fn drop(&mut self) {
        self.queue.lock().running = None;
    }
}
