//! What the rest of the process holds of an engine.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::batch::{Answered, Submitter};
use crate::catalog::Candidates;
use crate::decode::{Bias, DecodeSettings, Outcome};
use crate::domain::{Failure, History};

use super::growth::{Growth, Growths};

/// One decode to be done.
#[derive(Debug, Clone)]
pub struct DecodeRequest {
    /// Oldest first; at least one entry.
    pub history: History,
    /// How many items are wanted.
    pub k: usize,
    /// The items that may be answered.
    pub root: Candidates,
    /// How to search; valid.
    pub settings: DecodeSettings,
    /// Whether to tell each item's path.
    pub explain: bool,
    /// What is added to scores, and how many of a kind may be answered; neutral: nothing, and any number.
    pub bias: Bias,
    /// When the answer is worth nothing any more.
    pub deadline: Instant,
}

/// What came of it, and what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineAnswer {
    /// The items.
    pub outcome: Outcome,
    /// How many requests ran in the same batch, itself included.
    pub batch_size: usize,
    /// From enqueue to the start of the batch.
    pub queue_wait: Duration,
    /// The encoder, for the whole batch.
    pub encode: Duration,
    /// The decoder's passes and the search between them, for the whole batch.
    pub search: Duration,
}

/// What the engine's thread says of one job.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) outcome: Outcome,
    pub(super) encode: Duration,
    pub(super) search: Duration,
}

/// A way to one engine. Clones share it. Dropping the last one ends the engine's thread and waits for it: at most as
/// long as the batch that runs.
#[derive(Clone)]
pub struct EngineHandle {
    inner: Arc<Inner>,
}

impl EngineHandle {
    pub(super) fn new(
        name: String,
        submitter: Submitter<DecodeRequest, Decoded>,
        alive: watch::Receiver<bool>,
        growths: Arc<Growths>,
        thread: JoinHandle<()>,
    ) -> Self {
        Self { inner: Arc::new(Inner { name, submitter, alive, growths, thread: Some(thread) }) }
    }

    /// Decodes in the next batch. Dropping the future gives the job up, wherever it is.
    ///
    /// # Errors
    /// `Late`, `Overloaded` and `NotReady` as the queue says, `Internal` when the network fails or the engine stops.
    pub async fn decode(&self, request: DecodeRequest) -> Result<EngineAnswer, Failure> {
        if request.history.is_empty() {
            // It would fail its whole batch.
            return Err(Failure::Internal("a decode without history".into()));
        }
        let deadline = request.deadline;
        Ok(told(self.inner.submitter.submit(request, deadline).await?))
    }

    /// [`EngineHandle::decode`] for nobody: done when nothing else waits.
    ///
    /// # Errors
    /// As [`EngineHandle::decode`]; `Overloaded` whenever others wait.
    pub async fn decode_shadow(&self, request: DecodeRequest) -> Result<EngineAnswer, Failure> {
        if request.history.is_empty() {
            return Err(Failure::Internal("a decode without history".into()));
        }
        let deadline = request.deadline;
        Ok(told(self.inner.submitter.submit_shadow(request, deadline).await?))
    }

    /// Lets the engine decode over more items from the next batch on: every request that comes after this. Requests that
    /// wait with candidates of the index before are decoded over those.
    pub fn grow(&self, growth: Growth) {
        self.inner.growths.put(growth);
    }

    /// Refuses, and counts, a request whose deadline has passed before it is worth any work.
    pub fn refuse_late(&self, deadline: Instant) -> Result<(), Failure> {
        self.inner.submitter.refuse_late(deadline)
    }

    /// How much of its time a request that came now must have, as a share; 0 while none waits. Above 1 it is refused.
    pub fn pressure(&self, deadline: Instant) -> f64 {
        self.inner.submitter.pressure(deadline)
    }

    /// What a request that came now would be refused with as one too many.
    pub fn refusal(&self, deadline: Instant) -> Option<Failure> {
        self.inner.submitter.refusal(deadline)
    }

    /// The name it was started under.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// How many requests wait for a batch.
    pub fn queue_depth(&self) -> usize {
        self.inner.submitter.depth()
    }

    /// Whether its thread runs. Once false it stays false.
    pub fn alive(&self) -> bool {
        *self.inner.alive.borrow()
    }

    /// Turns false when the engine stops. The watch does not keep the engine running.
    pub fn watch_alive(&self) -> watch::Receiver<bool> {
        self.inner.alive.clone()
    }
}

fn told(answered: Answered<Decoded>) -> EngineAnswer {
    let Decoded { outcome, encode, search } = answered.answer;
    let (batch_size, queue_wait) = (answered.batch_size, answered.queue_wait);
    EngineAnswer { outcome, batch_size, queue_wait, encode, search }
}

impl std::fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineHandle").field("name", &self.name()).field("alive", &self.alive()).finish()
    }
}

struct Inner {
    name: String,
    submitter: Submitter<DecodeRequest, Decoded>,
    alive: watch::Receiver<bool>,
    growths: Arc<Growths>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.submitter.close();
        if let Some(thread) = self.thread.take() {
            // It catches its own panics and has logged them.
            drop(thread.join());
        }
    }
}
