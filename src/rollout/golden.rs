//! Holds a warm engine against the answers that its bundle promises.

use std::time::{Duration, Instant};

use crate::artifact::{Golden, GoldenEvent};
use crate::catalog::Index;
use crate::domain::{Filter, HistoryEntry};
use crate::engine::{Bias, DecodeRequest, EngineHandle};

/// How long one golden request may take; it runs alone on a warm engine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks every golden request of a bundle, whose scores may be `tolerance` nats off where the bundle allows less. The error names
/// the first that is answered otherwise.
pub(super) async fn check(
    engine: &EngineHandle,
    index: &Index,
    golden: &[Golden],
    tolerance: f32,
) -> Result<(), String> {
    for (at, golden) in golden.iter().enumerate() {
        let golden = Golden { tolerance: golden.tolerance.max(tolerance), ..golden.clone() };
        check_one(engine, index, &golden).await.map_err(|reason| format!("golden request {at}: {reason}"))?;
    }
    Ok(())
}

async fn check_one(engine: &EngineHandle, index: &Index, golden: &Golden) -> Result<(), String> {
    let known = |event: &GoldenEvent| {
        let item = index.number(&event.item_id)?;
        Some(HistoryEntry { item, kind: event.kind, time: event.time })
    };
    let history: Vec<HistoryEntry> = golden.history.iter().filter_map(known).collect();
    if history.len() != golden.history.len() {
        return Err("an event's item is not in the index".to_owned());
    }
    let seen: Vec<_> = history.iter().filter(|_| golden.exclude_seen).map(|entry| entry.item).collect();
    let request = DecodeRequest {
        history,
        k: golden.k,
        root: index.root(&Filter::default(), &seen),
        settings: serde_json::from_value(golden.settings.clone()).map_err(|error| format!("settings: {error}"))?,
        explain: false,
        bias: Bias::default(),
        deadline: Instant::now() + PATIENCE,
    };
    let outcome = engine.decode(request).await.map_err(|failure| failure.to_string())?.outcome;
    let found: Vec<_> = outcome.items.iter().map(|ranked| (index.id(ranked.item), ranked.score)).collect();
    golden.mismatch(&found).map_or(Ok(()), Err)
}
