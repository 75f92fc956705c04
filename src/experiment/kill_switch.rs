//! Whether an arm does harm: too many failures, too slow, too many empty answers, within a sliding window.

use std::fmt;
use std::time::{Duration, Instant};

use super::config::KillSwitchConfig;

/// A window moves on by this part of itself.
const SLOTS: usize = 10;
/// What a 99th percentile leaves above itself.
const ABOVE_P99: f64 = 0.01;

/// How one request went that an arm answered, or tried to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    /// From the request to its answer or failure.
    pub(super) took: Duration,
    /// It failed, and not by the caller's fault.
    pub(super) failed: bool,
    /// An answer without an item.
    pub(super) empty: bool,
}

/// What an arm did to be killed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Harm {
    /// The share of requests that failed.
    Errors(f64),
    /// The share of requests that took longer than the 99th percentile may.
    Slow(f64),
    /// The share of answers without an item.
    Empty(f64),
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errors(share) => write!(f, "{:.1} % of its requests failed", share * 100.0),
            Self::Slow(share) => write!(f, "{:.1} % of its requests were too slow", share * 100.0),
            Self::Empty(share) => write!(f, "{:.1} % of its answers were empty", share * 100.0),
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    requests: u64,
    failed: u64,
    slow: u64,
    empty: u64,
}

/// The attempts of one arm in the last while, counted in slots.
#[derive(Debug)]
pub(super) struct Window {
    config: KillSwitchConfig,
    began: Instant,
    /// Number of the newest slot since the beginning.
    newest: u64,
    slots: [Tally; SLOTS],
}

impl Window {
    pub(super) fn new(config: KillSwitchConfig, now: Instant) -> Self {
        Self { config, began: now, newest: 0, slots: [Tally::default(); SLOTS] }
    }

    /// Counts an attempt that ended `now`, and says whether the window shows harm.
    pub(super) fn count(&mut self, attempt: Attempt, now: Instant) -> Option<Harm> {
        self.move_on(now);
        let slot = &mut self.slots[self.newest as usize % SLOTS];
        slot.requests += 1;
        slot.failed += u64::from(attempt.failed);
        slot.slow += u64::from(attempt.took > Duration::from_millis(self.config.max_p99_ms));
        slot.empty += u64::from(attempt.empty);
        self.harm()
    }

    fn move_on(&mut self, now: Instant) {
        let slot = Duration::from_secs(self.config.window_s) / SLOTS as u32;
        let number = (now.saturating_duration_since(self.began).as_nanos() / slot.as_nanos().max(1)) as u64;
        // At most all slots are emptied, however long nothing came.
        for passed in self.newest.max(number.saturating_sub(SLOTS as u64))..number {
            self.slots[(passed + 1) as usize % SLOTS] = Tally::default();
        }
        self.newest = self.newest.max(number);
    }

    fn harm(&self) -> Option<Harm> {
        let sum = |count: fn(&Tally) -> u64| self.slots.iter().map(count).sum::<u64>();
        let requests = sum(|slot| slot.requests);
        if requests < self.config.min_requests {
            return None;
        }
        let share = |count: fn(&Tally) -> u64| sum(count) as f64 / requests as f64;
        let (failed, slow) = (share(|slot| slot.failed), share(|slot| slot.slow));
        let answered = requests - sum(|slot| slot.failed);
        let empty = if answered == 0 { 0.0 } else { sum(|slot| slot.empty) as f64 / answered as f64 };
        let harms = [
            (failed > self.config.max_error_share, Harm::Errors(failed)),
            (slow > ABOVE_P99, Harm::Slow(slow)),
            (empty > self.config.max_empty_share, Harm::Empty(empty)),
        ];
        harms.into_iter().find(|(is, _)| *is).map(|(_, harm)| harm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Attempt = Attempt { took: Duration::from_millis(5), failed: false, empty: false };
    const FAILED: Attempt = Attempt { failed: true, ..GOOD };
    const SLOW: Attempt = Attempt { took: Duration::from_millis(101), ..GOOD };
    const EMPTY: Attempt = Attempt { empty: true, ..GOOD };

    fn config() -> KillSwitchConfig {
        KillSwitchConfig {
            window_s: 100,
            min_requests: 100,
            max_error_share: 0.1,
            max_p99_ms: 100,
            max_empty_share: 0.5,
        }
    }

    /// What a window says after `bad` of 1000 requests, spread evenly.
    fn after(bad: usize, attempt: Attempt) -> Option<Harm> {
        let now = Instant::now();
        let mut window = Window::new(config(), now);
        // The bad ones last, so that no part of them is a larger share than all.
        (0..1000).filter_map(|at| window.count(if at >= 1000 - bad { attempt } else { GOOD }, now)).last()
    }

    #[test]
    fn each_harm_begins_past_its_bound() {
        assert_eq!((after(100, FAILED), after(101, FAILED)), (None, Some(Harm::Errors(0.101))));
        assert_eq!((after(10, SLOW), after(11, SLOW)), (None, Some(Harm::Slow(0.011))));
        assert_eq!((after(500, EMPTY), after(501, EMPTY)), (None, Some(Harm::Empty(0.501))));
    }

    #[test]
    fn few_requests_prove_nothing() {
        let now = Instant::now();
        let mut window = Window::new(config(), now);
        assert!((0..99).all(|_| window.count(FAILED, now).is_none()));
        assert_eq!(window.count(FAILED, now), Some(Harm::Errors(1.0)));
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut window = Window::new(config(), start);
        assert!((0..90).all(|_| window.count(FAILED, at(5)).is_none()));
        // The first slot is still in the window, then no longer.
        assert_eq!(window.count(FAILED, at(95)), None);
        for _ in 0..8 {
            assert_eq!(window.count(GOOD, at(99)), None);
        }
        assert!(window.count(GOOD, at(99)).is_some());
        assert_eq!(window.count(GOOD, at(110)), None);
        for _ in 0..200 {
            assert_eq!(window.count(GOOD, at(115)), None);
        }
        // Nothing for hours, then too little to judge by.
        assert!((0..99).all(|_| window.count(FAILED, at(100_000)).is_none()));
    }

    #[test]
    fn bounds_of_one_never_kill() {
        let now = Instant::now();
        let lenient = KillSwitchConfig { max_error_share: 1.0, max_empty_share: 1.0, ..config() };
        let mut window = Window::new(lenient, now);
        assert!((0..500).all(|_| window.count(FAILED, now).is_none()));
        let mut window = Window::new(lenient, now);
        assert!((0..500).all(|_| window.count(EMPTY, now).is_none()));
    }
}
