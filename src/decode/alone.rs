//! How much of the processor a batch has to itself.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Batches that this process decodes now.
static BATCHES: AtomicUsize = AtomicUsize::new(0);

/// Whether at most one batch is decoded in this process now. Threads that others keep busy would be waited for, so that a
/// request is shared out among several only then.
pub(crate) fn alone() -> bool {
    BATCHES.load(Ordering::Relaxed) <= 1
}

/// How many threads of its pool this batch may keep busy: its part, if others are decoded now, each by a pool of its own.
pub(crate) fn threads_to_use() -> usize {
    rayon::current_num_threads().div_ceil(BATCHES.load(Ordering::Relaxed).max(1))
}

/// Numbers of a walk over some that are worth a thread.
const WORTH_A_THREAD: usize = 1 << 16;

/// How many threads share a walk over so many numbers for a request that is alone in its batch, if nobody else is served.
pub(super) fn walkers(numbers: usize) -> usize {
    if alone() { (numbers / WORTH_A_THREAD).clamp(1, rayon::current_num_threads()) } else { 1 }
}

/// Counts as a batch while it lives.
pub(super) struct Counted;

impl Counted {
    pub(super) fn new() -> Self {
        BATCHES.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        BATCHES.fetch_sub(1, Ordering::Relaxed);
    }
}
