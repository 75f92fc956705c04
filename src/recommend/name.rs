//! From numbers back to names: items, categories, and requests without a name of their own.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::catalog::{Index, View};
use crate::domain::{NamedPath, Path, Recommendation, Step};
use crate::engine::Ranked;

/// One ranked item as its owner knows it.
pub(super) fn item(view: &View, ranked: Ranked) -> Recommendation {
    let item = view.item(ranked.item);
    Recommendation {
        item_id: item.id,
        score: ranked.score,
        title: item.title,
        categories: item.categories,
        path: ranked.path.map(|found| path(view.index(), found)),
    }
}

fn path(index: &Index, path: Path) -> NamedPath {
    let names = |step: &Step| {
        let name = |category: u32| index.category_names().get(category as usize).cloned().unwrap_or_default();
        step.beliefs.iter().map(|belief| name(belief.category)).collect()
    };
    NamedPath { category_names: path.steps.iter().map(names).collect(), path }
}

/// Makes up request ids: unique within a process by a counter, and across processes by a random start.
#[derive(Debug)]
pub(super) struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        // The standard library seeds its hashers from the system's randomness.
        Self { process: RandomState::new().hash_one(std::process::id()), next: AtomicU64::new(0) }
    }

    /// The caller's id, or a new one: 24 and more hexadecimal digits.
    pub(super) fn keep_or_make(&self, given: &str) -> String {
        if !given.is_empty() {
            return given.to_owned();
        }
        format!("{:016x}{:08x}", self.process, self.next.fetch_add(1, Ordering::Relaxed))
    }
}
