//! How much a key may ask: a bucket of tokens that fills at a steady rate.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A bucket. Who finds a whole token in it may take several: the bucket then owes them, so that a batch is neither split
/// nor free.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Tokens a second.
    rate: f64,
    /// Most tokens.
    burst: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(rate: f64, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst.max(1));
        Self { rate, burst, state: Mutex::new(State { tokens: burst, at: now }) }
    }

    /// Takes `tokens`, or says how long until there is one.
    pub(super) fn take(&self, tokens: usize, now: Instant) -> Result<(), Duration> {
        let mut state = self.fill(now);
        if state.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - state.tokens) / self.rate));
        }
        state.tokens -= tokens as f64;
        Ok(())
    }

    /// Takes `tokens`, whatever is in it.
    pub(super) fn owe(&self, tokens: usize, now: Instant) {
        self.fill(now).tokens -= tokens as f64;
    }

    fn fill(&self, now: Instant) -> std::sync::MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let gained = now.saturating_duration_since(state.at).as_secs_f64() * self.rate;
        state.tokens = (state.tokens + gained).min(self.burst);
        state.at = state.at.max(now);
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let after = |ms: u64| start + Duration::from_millis(ms);
        let bucket = Bucket::new(10.0, 3, start);
        assert!((0..3).all(|_| bucket.take(1, start).is_ok()));
        assert_eq!(bucket.take(1, start), Err(Duration::from_millis(100)));
        assert!(bucket.take(1, after(100)).is_ok());
        assert!(bucket.take(1, after(150)).is_err());
        // It never holds more than a burst.
        assert!((0..3).all(|_| bucket.take(1, after(60_000)).is_ok()));
        assert!(bucket.take(1, after(60_000)).is_err());
    }

    #[test]
    fn a_batch_passes_whole_and_is_paid_for_afterwards() {
        let start = Instant::now();
        let bucket = Bucket::new(10.0, 2, start);
        assert!(bucket.take(1, start).is_ok());
        bucket.owe(20, start);
        assert_eq!(bucket.take(1, start), Err(Duration::from_secs(2)));
        assert!(bucket.take(5, start + Duration::from_millis(2001)).is_ok());
        // A clock that goes back neither pays nor costs.
        assert!(bucket.take(1, start).is_err());
    }
}
