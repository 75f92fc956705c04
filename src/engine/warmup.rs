//! Visits every shape that requests will have, so that none of them pays for the first time.

use crate::catalog::Index;
use crate::decode::{
    Advance, Ask, DecodeError, DecodeJob, DecodeSettings, Decoder, Depth, MOST_SCORES, Opening, PathModel, Shape,
};
use crate::domain::{EventKind, Filter, History, HistoryEntry, ItemNumber, Token};

use super::EngineConfig;

/// How many items the warm-up asks for.
const WANTED: usize = 10;

/// Checks that the network fits the index, then decodes once for every batch size and history length of the config, the
/// largest first: what it finds room for serves the others, and the requests that come. Before, a network that wants to have
/// seen certain shapes sees them.
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
    let most = Shape {
        requests: config.batch.max_batch,
        events: lengths.first().copied().unwrap_or(1),
        paths: settings.beam + settings.reserve,
    };
    for shape in model.shapes(most) {
        visit(model, index, shape).map_err(DecodeError::Model)?;
    }
    for &length in &lengths {
        for &size in &sizes {
            let size = size.min(config.batch.max_batch);
            let histories: Vec<History> = (0..size).map(|user| history(user, length, index.len())).collect();
            // A network that holds the catalogue answers by another way where no paths are told.
            let ways: &[bool] = if model.resident().is_some() { &[true, false] } else { &[true] };
            for &explain in ways {
                let job = |history| DecodeJob { history, k: WANTED, root: &root, settings, explain, bias: None };
                let jobs: Vec<DecodeJob<'_>> = histories.iter().map(job).collect();
                decoder.decode(model, index, &jobs, &everybody)?;
            }
        }
    }
    Ok(())
}

/// Has the network encode, score and read paths to the last codebook, all in this shape, by each way that it has.
fn visit<M: PathModel>(model: &mut M, index: &Index, shape: Shape) -> Result<(), M::Error> {
    let histories: Vec<History> = (0..shape.requests).map(|user| history(user, shape.events, index.len())).collect();
    model.encode(&histories.iter().collect::<Vec<_>>())?;
    let scored = (MOST_SCORES / index.len()).clamp(1, shape.requests);
    model.score_items(0..scored, &mut vec![0.0; scored * index.len()])?;
    let begin = |request| Advance { request, extends: None };
    let begins: Vec<Advance> = (0..shape.requests).map(begin).collect();
    model.advance(&begins, true)?;
    let mut steps = vec![begins];
    for codebook in 0..model.shape().codebooks {
        let next = |path: usize| {
            let request = path / shape.paths;
            let parent = if codebook == 0 { request } else { path };
            Advance { request, extends: Some((parent, Token { codebook: codebook as u8, entry: 0 })) }
        };
        let rows: Vec<Advance> = (0..shape.requests * shape.paths).map(next).collect();
        model.advance(&rows, true)?;
        steps.push(rows);
    }
    if model.resident().is_none() || shape.requests * index.len() > MOST_SCORES {
        return Ok(());
    }
    model.encode(&histories.iter().collect::<Vec<_>>())?;
    let Some(resident) = model.resident() else { return Ok(()) };
    let everything = vec![u64::MAX; index.len().div_ceil(64)];
    let opening = Opening { eligible: &everything, bias: None, shortlist: None };
    resident.open(&vec![opening; shape.requests])?;
    let ask = |path| Ask { path, listed: None };
    for rows in steps {
        let asks: Vec<Ask> = rows.into_iter().map(ask).collect();
        // Beliefs are compared from the first token on.
        let divergences = asks.iter().any(|ask| ask.path.extends.is_some());
        resident.read(&asks, Depth { children: shape.paths, divergences })?;
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
