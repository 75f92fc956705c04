//! Visits every shape that requests will have, so that none of them pays for the first time.

use crate::catalog::Index;
use crate::decode::{DecodeError, DecodeJob, DecodeSettings, Decoder, PathModel};
use crate::domain::{EventKind, Filter, History, HistoryEntry, ItemNumber};

use super::EngineConfig;

/// How many items the warm-up asks for.
const WANTED: usize = 10;

/// Checks that the network fits the index, then decodes once for every batch size and history length of the config, the
/// largest first: what it finds room for serves the others, and the requests that come.
pub(super) fn warm_up<M: PathModel>(
    model: &mut M,
    decoder: &mut Decoder,
    index: &Index,
    settings: &DecodeSettings,
    config: &EngineConfig,
) -> Result<(), DecodeError<M::Error>> {
    let everybody = |_: usize| true;
    decoder.decode(model, index, &[], &everybody)?;
    if index.is_empty() {
        return Ok(());
    }
    let root = index.root(&Filter::default(), &[]);
    let [lengths, sizes] = [&config.warmup_histories, &config.warmup_batches].map(|shapes| {
        let mut shapes = shapes.clone();
        shapes.sort_unstable_by(|one, other| other.cmp(one));
        shapes
    });
    for &length in &lengths {
        for &size in &sizes {
            let size = size.min(config.batch.max_batch);
            let histories: Vec<History> = (0..size).map(|user| history(user, length, index.len())).collect();
            let job = |history| DecodeJob { history, k: WANTED, root: &root, settings, explain: true, bias: None };
            let jobs: Vec<DecodeJob<'_>> = histories.iter().map(job).collect();
            decoder.decode(model, index, &jobs, &everybody)?;
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
