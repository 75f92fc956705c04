//! Visits every shape that requests will have, so that none of them pays for the first time.

use crate::catalog::Index;
use crate::decode::{DecodeError, DecodeJob, DecodeSettings, PathModel, decode};
use crate::domain::{EventKind, Filter, History, HistoryEntry, ItemNumber};

use super::EngineConfig;

/// How many items the warm-up asks for.
const WANTED: usize = 10;

/// Checks that the network fits the index, then decodes once for every batch size and history length of the config.
pub(super) fn warm_up<M: PathModel>(
    model: &mut M,
    index: &Index,
    settings: &DecodeSettings,
    config: &EngineConfig,
) -> Result<(), DecodeError<M::Error>> {
    let everybody = |_: usize| true;
    decode(model, index, &[], &everybody)?;
    if index.is_empty() {
        return Ok(());
    }
    let root = index.root(&Filter::default(), &[]);
    for &length in &config.warmup_histories {
        for &size in &config.warmup_batches {
            let size = size.min(config.batch.max_batch);
            let histories: Vec<History> = (0..size).map(|user| history(user, length, index.len())).collect();
            let job = |history| DecodeJob { history, k: WANTED, root: &root, settings, explain: true, bias: None };
            let jobs: Vec<DecodeJob<'_>> = histories.iter().map(job).collect();
            decode(model, index, &jobs, &everybody)?;
        }
    }
    Ok(())
}

/// Some history of `length` events, another one for every user.
fn history(user: usize, length: usize, items: usize) -> History {
    let entry = |place: usize| HistoryEntry {
        item: ((user * 7919 + place * 104_729) % items) as ItemNumber,
        kind: EventKind::View,
        time: place as i64 * 3600,
    };
    (0..length).map(entry).collect()
}
