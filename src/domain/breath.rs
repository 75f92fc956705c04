//! Long work that stands back: threads that pause every now and then, so that those who are in a hurry get their core.
//!
//! A low priority alone is not enough. A scheduler that is fair lets a thread of low weight run too, at times, and then until
//! its next tick: on Linux up to four milliseconds, even while another core is idle. A thread that sleeps for a moment makes it
//! choose anew.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

/// How long such a thread works on, at most as far as its work asks often enough.
const BREATH: Duration = Duration::from_micros(200);
/// How long it pauses then; the system's timers add some 50 microseconds.
const PAUSE: Duration = Duration::from_micros(20);

thread_local! {
    /// When the thread paused last; none: it never does.
    static PAUSED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// From here on this thread pauses wherever its work lets it ([`breathe`]).
pub fn stand_back() {
    PAUSED.set(Some(Instant::now()));
}

/// Between two parts of long work: pauses, if this thread stands back and has worked for long enough. It costs others nothing.
#[allow(clippy::disallowed_methods, reason = "only a thread that asked for it sleeps, and no runtime's does")]
pub fn breathe() {
    if let Some(last) = PAUSED.get()
        && last.elapsed() >= BREATH
    {
        thread::sleep(PAUSE);
        PAUSED.set(Some(Instant::now()));
    }
}

/// [`breathe`] in a loop of short turns, `at` the number of the turn: in every 1024th.
#[inline(always)]
pub fn breathe_at(at: usize) {
    if at.is_multiple_of(1024) {
        breathe();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pauses(work: Duration) -> usize {
        let (began, mut pauses, mut last) = (Instant::now(), 0, PAUSED.get());
        while began.elapsed() < work {
            breathe();
            pauses += usize::from(PAUSED.get() != last);
            last = PAUSED.get();
        }
        pauses
    }

    #[test]
    fn only_who_stands_back_pauses_and_not_at_every_part() {
        let work = 20 * BREATH;
        assert_eq!(pauses(work), 0);
        let quiet = thread::spawn(move || {
            stand_back();
            pauses(work)
        });
        let paused = quiet.join().unwrap();
        assert!((1..=20).contains(&paused), "{paused} pauses in twenty breaths");
        assert_eq!(pauses(work), 0);
    }
}
