//! Settings of the live catalogue.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::Violation;

/// Section `[catalogue]` of the settings; `src/config/defaults.toml` says what each is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CatalogueConfig {
    /// The directory of the log of changes; empty: the catalogue is what bundles say.
    pub path: PathBuf,
    /// Most calls that wait to change the catalogue; 1 to 100,000.
    pub max_queue: usize,
    /// How often the overlay is folded into the index, in milliseconds; 100 to 86,400,000.
    pub fold_ms: u64,
    /// An overlay of so many items is folded at once; 1 to 1,000,000.
    pub max_overlay: usize,
}

impl Default for CatalogueConfig {
    fn default() -> Self {
        Self { path: PathBuf::new(), max_queue: 256, fold_ms: 60_000, max_overlay: 2000 }
    }
}

impl CatalogueConfig {
    /// Names every field that is out of range.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        let mut within = |field: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                wrong.push(Violation::new(field, format!("{value}: expected {least} to {most}")));
            }
        };
        within("max_queue", self.max_queue as u64, 1, 100_000);
        within("fold_ms", self.fold_ms, 100, 86_400_000);
        within("max_overlay", self.max_overlay as u64, 1, 1_000_000);
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Whether the catalogue may be changed at all.
    pub fn is_set(&self) -> bool {
        !self.path.as_os_str().is_empty()
    }

    /// How often the overlay is folded into the index.
    pub fn fold(&self) -> Duration {
        Duration::from_millis(self.fold_ms)
    }
}
