//! Settings of an engine.

use serde::{Deserialize, Serialize};

use crate::batch::BatchConfig;
use crate::domain::Violation;

/// How an engine batches and which shapes it visits before it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Its queue and batches.
    pub batch: BatchConfig,
    /// How many batches of all variants a device runs at once; 0 to 64. 0: on a CPU as many as it has cores, on a GPU one.
    pub at_once: usize,
    /// Batch sizes of the warm-up, each at least 1. Those above `batch.max_batch` are run at `batch.max_batch`.
    pub warmup_batches: Vec<usize>,
    /// History lengths of the warm-up, each at least 1; every one is run at every batch size.
    pub warmup_histories: Vec<usize>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            batch: BatchConfig::default(),
            at_once: 0,
            warmup_batches: vec![1, 8, 64],
            warmup_histories: vec![8, 16, 32, 50],
        }
    }
}

impl EngineConfig {
    /// Names every field that is out of range.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = self.batch.validate().err().unwrap_or_default();
        for violation in &mut wrong {
            violation.field.insert_str(0, "batch.");
        }
        if self.at_once > 64 {
            wrong.push(Violation::new("at_once", format!("{}: expected 0 to 64", self.at_once)));
        }
        for (field, sizes, most) in
            [("warmup_batches", &self.warmup_batches, 4096), ("warmup_histories", &self.warmup_histories, 10_000)]
        {
            for (place, size) in sizes.iter().enumerate().filter(|(_, size)| !(1..=most).contains(*size)) {
                wrong.push(Violation::new(format!("{field}[{place}]"), format!("{size}: expected 1 to {most}")));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}
