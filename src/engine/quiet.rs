//! Work that nobody waits for, beside that which somebody does: one thread that gives way.

use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::domain::stand_back;

/// How nice its thread is to the others, where the platform lets a thread be. It has a tenth of a core that somebody else
/// wants as well, so that a bundle still comes when a machine has no rest at all.
const NICE: i32 = 10;

/// One thread of low priority that pauses often, where its work lets it. What it runs spreads to no other thread: work
/// that it would share out stays with it, so that none of it stands before the requests of those who are served.
/// Clones are the same thread.
#[derive(Debug, Clone)]
pub struct Quiet {
    pool: Arc<ThreadPool>,
}

impl Quiet {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn new() -> Result<Self, ThreadPoolBuildError> {
        let pool =
            ThreadPoolBuilder::new().num_threads(1).thread_name(|_| "quiet".into()).start_handler(|_| give_way());
        Ok(Self { pool: Arc::new(pool.build()?) })
    }

    /// Runs this there, and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }
}

fn give_way() {
    lower_priority();
    stand_back();
}

#[cfg(target_os = "linux")]
fn lower_priority() {
    // Of this thread alone, as Linux has it. It only makes others faster: where it may not be, all goes on as before.
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "the loading thread keeps its priority");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {
    tracing::debug!(wanted = NICE, "threads have no priority of their own here");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The niceness of the thread that asks, as the kernel tells it: the 19th field of its `stat`.
    #[cfg(target_os = "linux")]
    fn niceness() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn its_thread_gives_way_and_no_other_does() {
        let before = niceness();
        let quiet = Quiet::new().unwrap();
        assert_eq!(quiet.run(niceness), NICE);
        assert_eq!(niceness(), before);
    }

    #[test]
    fn what_it_would_share_out_stays_in_its_one_thread() {
        let quiet = Quiet::new().unwrap();
        let (one, other) = quiet.run(|| {
            let here = || std::thread::current().id();
            rayon::join(here, here)
        });
        assert_eq!((one, quiet.run(rayon::current_num_threads)), (other, 1));
    }
}
