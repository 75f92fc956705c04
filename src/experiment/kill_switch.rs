//! Whether an arm does harm: too many failures, too slow, too many empty answers, within a sliding window, and more so than
//! the other arms.

use std::fmt;
use std::time::{Duration, Instant};

use super::config::KillSwitchConfig;

/// A window moves on by this part of itself.
const SLOTS: usize = 10;
/// What a 99th percentile leaves above itself.
const ABOVE_P99: f64 = 0.01;
/// An arm's own harm is at least so many times that of the other arms. When a server is overloaded, or its disk stalls, all
/// arms fail alike, and none of them is to blame.
const OWN: f64 = 2.0;

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

/// What came of a window's requests.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
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

    /// Counts an attempt that ended `now`, and says what the window holds.
    pub(super) fn count(&mut self, attempt: Attempt, now: Instant) -> Tally {
        self.move_on(now);
        let slot = &mut self.slots[self.newest as usize % SLOTS];
        slot.requests += 1;
        slot.failed += u64::from(attempt.failed);
        slot.slow += u64::from(attempt.took > Duration::from_millis(self.config.max_p99_ms));
        slot.empty += u64::from(attempt.empty);
        self.sum()
    }

    /// What the window holds `now`.
    pub(super) fn tally(&mut self, now: Instant) -> Tally {
        self.move_on(now);
        self.sum()
    }

    fn sum(&self) -> Tally {
        self.slots.iter().fold(Tally::default(), |sum, slot| sum.and(*slot))
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
}

impl Tally {
    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            failed: self.failed + other.failed,
            slow: self.slow + other.slow,
            empty: self.empty + other.empty,
        }
    }

    /// Failed and slow requests as shares of all, empty answers as a share of the answers.
    fn shares(&self) -> [f64; 3] {
        let share = |part: u64, of: u64| if of == 0 { 0.0 } else { part as f64 / of as f64 };
        let Self { requests, failed, slow, empty } = *self;
        [share(failed, requests), share(slow, requests), share(empty, requests - failed)]
    }

    /// The harm that an arm does of which this came, measured by what came of all `others` in the same time.
    pub(super) fn harm(&self, others: impl FnOnce() -> Self, config: &KillSwitchConfig) -> Option<Harm> {
        let bounds = [config.max_error_share, ABOVE_P99, config.max_empty_share];
        let own = self.shares();
        if self.requests < config.min_requests || own.iter().zip(bounds).all(|(own, bound)| *own <= bound) {
            return None;
        }
        // Fewer requests say something of a harm that is everywhere than prove one.
        let theirs = Some(others()).filter(|others| others.requests >= config.min_requests.div_ceil(10));
        let theirs = theirs.map_or([0.0; 3], |others| others.shares());
        let harms = [Harm::Errors, Harm::Slow, Harm::Empty];
        let at = (0..3).find(|&at| own[at] > bounds[at] && own[at] >= OWN * theirs[at])?;
        Some(harms[at](own[at]))
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

    /// What a window says of an arm without others.
    fn harm(window: &mut Window, attempt: Attempt, now: Instant) -> Option<Harm> {
        let config = window.config;
        window.count(attempt, now).harm(Tally::default, &config)
    }

    /// What a window says after `bad` of 1000 requests, spread evenly.
    fn after(bad: usize, attempt: Attempt) -> Option<Harm> {
        let now = Instant::now();
        let mut window = Window::new(config(), now);
        // The bad ones last, so that no part of them is a larger share than all.
        (0..1000).filter_map(|at| harm(&mut window, if at >= 1000 - bad { attempt } else { GOOD }, now)).last()
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
        assert!((0..99).all(|_| harm(&mut window, FAILED, now).is_none()));
        assert_eq!(harm(&mut window, FAILED, now), Some(Harm::Errors(1.0)));
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut window = Window::new(config(), start);
        assert!((0..90).all(|_| harm(&mut window, FAILED, at(5)).is_none()));
        // The first slot is still in the window, then no longer.
        assert_eq!(harm(&mut window, FAILED, at(95)), None);
        for _ in 0..8 {
            assert_eq!(harm(&mut window, GOOD, at(99)), None);
        }
        assert!(harm(&mut window, GOOD, at(99)).is_some());
        assert_eq!(harm(&mut window, GOOD, at(110)), None);
        for _ in 0..200 {
            assert_eq!(harm(&mut window, GOOD, at(115)), None);
        }
        // Nothing for hours, then too little to judge by.
        assert!((0..99).all(|_| harm(&mut window, FAILED, at(100_000)).is_none()));
    }

    #[test]
    fn bounds_of_one_never_kill() {
        let now = Instant::now();
        let lenient = KillSwitchConfig { max_error_share: 1.0, max_empty_share: 1.0, ..config() };
        let mut window = Window::new(lenient, now);
        assert!((0..500).all(|_| harm(&mut window, FAILED, now).is_none()));
        let mut window = Window::new(lenient, now);
        assert!((0..500).all(|_| harm(&mut window, EMPTY, now).is_none()));
    }

    #[test]
    fn harm_that_all_arms_suffer_is_nobodys() {
        let of = |failed: u64| Tally { requests: 1000, failed, ..Tally::default() };
        let harm = |own: u64, others: Tally| of(own).harm(|| others, &config());
        assert_eq!(harm(900, of(900)), None);
        assert_eq!(harm(300, of(151)), None);
        assert_eq!(harm(300, of(150)), Some(Harm::Errors(0.3)));
        let few = Tally { requests: 9, failed: 9, ..Tally::default() };
        assert_eq!(harm(300, few), Some(Harm::Errors(0.3)), "few requests excuse nothing either");
        let slow = |slow: u64| Tally { requests: 1000, slow, ..Tally::default() };
        assert_eq!(slow(30).harm(|| slow(20), &config()), None);
        assert_eq!(slow(30).harm(|| of(900), &config()), Some(Harm::Slow(0.03)), "another harm is no excuse");
    }
}
