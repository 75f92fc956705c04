//! Answers of the last seconds, for who asks the same again.

use std::fmt::{self, Debug, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::{Recommendation, Violation};

/// Section `[recommend.cache]` of the settings; `src/config/defaults.toml` says what each is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Most answers that are kept; 0: none, 1 to 10,000,000.
    pub entries: usize,
    /// How long an answer is given again, in milliseconds; 1 to 3,600,000.
    pub fresh_ms: u64,
    /// How long it is given again where the engine has no time, in milliseconds; `fresh_ms` to 86,400,000.
    pub stale_ms: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { entries: 0, fresh_ms: 30_000, stale_ms: 300_000 }
    }
}

impl CacheConfig {
    /// Names every field that is out of range, from the section above.
    pub(super) fn problems(&self) -> Vec<Violation> {
        let mut wrong = Vec::new();
        let mut within = |field: &str, value: u64, low: u64, high: u64| {
            if !(low..=high).contains(&value) {
                wrong.push(Violation::new(format!("cache.{field}"), format!("{value}: expected {low} to {high}")));
            }
        };
        within("entries", self.entries as u64, 0, 10_000_000);
        within("fresh_ms", self.fresh_ms, 1, 3_600_000);
        within("stale_ms", self.stale_ms, self.fresh_ms, 86_400_000);
        wrong
    }
}

/// What was asked, of which bundle: everything that an answer depends on, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// Of something whose `Debug` tells all of it. Equal texts are equal questions; a number is told to its last digit.
    pub(super) fn of(question: &impl Debug) -> Self {
        let mut text = Hashed(Sha256::new());
        // Hashing cannot fail.
        let _ = write!(text, "{question:?}");
        Self(text.0.finalize().into())
    }
}

struct Hashed(Sha256);

impl Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text);
        Ok(())
    }
}

/// An answer that was given before.
#[derive(Debug, Clone)]
pub(super) struct Cached {
    at: Instant,
    pub(super) items: Arc<[Recommendation]>,
    pub(super) short: bool,
}

/// The answers; those asked for least make room.
#[derive(Debug)]
pub(super) struct AnswerCache {
    config: CacheConfig,
    /// None: the cache is off.
    answers: Option<Cache<Key, Cached>>,
}

impl AnswerCache {
    pub(super) fn new(config: CacheConfig) -> Self {
        Self { config, answers: (config.entries > 0).then(|| Cache::new(config.entries)) }
    }

    /// Whether it is worth to work out keys.
    pub(super) fn is_on(&self) -> bool {
        self.answers.is_some()
    }

    /// What was answered a short while ago.
    pub(super) fn fresh(&self, key: Key) -> Option<Cached> {
        self.younger(key, self.config.fresh_ms)
    }

    /// What was answered some while ago: better than nothing.
    pub(super) fn stale(&self, key: Key) -> Option<Cached> {
        self.younger(key, self.config.stale_ms)
    }

    pub(super) fn put(&self, key: Key, items: &[Recommendation], short: bool) {
        if let Some(answers) = &self.answers {
            answers.insert(key, Cached { at: Instant::now(), items: items.into(), short });
        }
    }

    fn younger(&self, key: Key, ms: u64) -> Option<Cached> {
        let cached = self.answers.as_ref()?.get(&key)?;
        (cached.at.elapsed() <= Duration::from_millis(ms)).then_some(cached)
    }
}
