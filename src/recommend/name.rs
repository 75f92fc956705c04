//! From numbers back to names: items, categories, and requests without a name of their own.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::catalog::View;
use crate::domain::{Attended, EventKind, HistoryEntry, ItemNumber, NamedPath, Path, Recommendation, Step};
use crate::engine::Ranked;

/// Longest title in a reason, in characters.
const TITLE: usize = 40;

/// One ranked item as its owner knows it. `history` is what was decoded.
pub(super) fn item(view: &View, history: &[HistoryEntry], ranked: Ranked) -> Recommendation {
    let item = view.item(ranked.item);
    Recommendation {
        item_id: item.id,
        score: ranked.score,
        title: item.title,
        categories: item.categories,
        path: ranked.path.map(|found| path(view, history, found)),
    }
}

fn path(view: &View, history: &[HistoryEntry], path: Path) -> NamedPath {
    let index = view.index();
    let names = |step: &Step| {
        let name = |category: u32| index.category_names().get(category as usize).cloned().unwrap_or_default();
        step.beliefs.iter().map(|belief| name(belief.category)).collect()
    };
    let category_names: Vec<Vec<String>> = path.steps.iter().map(names).collect();
    let event = |attended: &Attended| history.get(attended.event);
    let name = |entry: &HistoryEntry| (index.id(entry.item).to_owned(), entry.kind);
    NamedPath {
        event_names: path.attended.iter().filter_map(event).map(name).collect(),
        reason: reason(view, history, &path, &category_names),
        category_names,
        path,
    }
}

/// `clicked Rose soap (45 %), bought Red hat (20 %); 90 % sure of Hair`
fn reason(view: &View, history: &[HistoryEntry], path: &Path, category_names: &[Vec<String>]) -> String {
    let mut told: Vec<(ItemNumber, String)> = Vec::new();
    for Attended { event, weight } in &path.attended {
        let Some(entry) = history.get(*event).filter(|entry| told.iter().all(|(item, _)| *item != entry.item)) else {
            continue;
        };
        let item = view.item(entry.item);
        let title: String = item.title.unwrap_or(item.id).chars().take(TITLE).collect();
        told.push((entry.item, format!("{} {title} ({:.0} %)", did(entry.kind), weight * 100.0)));
        if told.len() == 2 {
            break;
        }
    }
    let told = told.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(", ");
    let belief = path.steps.last().and_then(|step| step.beliefs.first());
    let category = category_names.last().and_then(|names| names.first());
    let sure = belief.zip(category).map(|(belief, name)| format!("{:.0} % sure of {name}", belief.probability * 100.0));
    [Some(told).filter(|told| !told.is_empty()), sure].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// What the user did with the item.
fn did(kind: EventKind) -> &'static str {
    match kind {
        EventKind::View => "viewed",
        EventKind::Click => "clicked",
        EventKind::Cart => "put into the cart",
        EventKind::Purchase => "bought",
        EventKind::Hide => "hid",
        EventKind::Rating => "rated",
    }
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
