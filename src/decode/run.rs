//! A batch of requests through the search, in fixed steps.

use rayon::prelude::*;

use crate::catalog::Index;
use crate::domain::History;

use super::exact::exact;
use super::job::{DecodeError, DecodeJob, Outcome};
use super::scoring::{Advance, ItemQuery, PathModel, PathState, Residuals};
use super::search::{Scratch, Search};
use super::settings::Engine;

/// Answers every job of a batch: one `encode`, then one `advance` a step for all jobs whose search goes on. A job's
/// outcome does not depend on its batch-mates beyond what the network's rounding does.
///
/// Before the batch and between steps `wanted(i)` is asked of every job that is not answered yet; a job that is not
/// wanted any more is dropped, and its outcome is `None`. Jobs that want no items or have no candidates are answered
/// without the network.
///
/// # Errors
/// What the network says; a network whose shape is not the index's; a job without history, or with another index's
/// candidates. The whole batch fails.
pub fn decode<M: PathModel>(
    model: &mut M,
    index: &Index,
    jobs: &[DecodeJob<'_>],
    wanted: &dyn Fn(usize) -> bool,
) -> Result<Vec<Option<Outcome>>, DecodeError<M::Error>> {
    check_model(model, index)?;
    let mut outcomes: Vec<Option<Outcome>> = vec![None; jobs.len()];
    let mut encoded = Vec::with_capacity(jobs.len());
    for (at, job) in jobs.iter().enumerate().filter(|(at, _)| wanted(*at)) {
        DecodeError::unless_equal("the catalogue of the candidates", job.root.catalogue_len(), index.len())?;
        if job.k == 0 || job.root.is_empty() {
            outcomes[at] = Some(Outcome { short: job.root.len() < job.k, ..Outcome::default() });
        } else if job.history.is_empty() {
            return Err(DecodeError::EmptyHistory(at));
        } else {
            encoded.push(at);
        }
    }
    if encoded.is_empty() {
        return Ok(outcomes);
    }

    let queries = encode(model, index, jobs, &encoded)?;
    let mut searches = Vec::with_capacity(encoded.len());
    for (request, (&at, mut query)) in encoded.iter().zip(queries).enumerate() {
        let job = &jobs[at];
        if let Some(bias) = job.bias {
            bias.add_to_query(&mut query, index.codes());
        }
        match job.settings.engine {
            Engine::Exact => outcomes[at] = Some(exact(&query, model.residuals(), index, job)),
            Engine::Beam => searches.push((at, Search::new(job, index, request, query))),
        }
    }

    let mut before: Vec<PathState> = Vec::new();
    let mut scratches = vec![Scratch::default()];
    loop {
        searches.retain(|(at, _)| wanted(*at));
        let rows: Vec<Advance> = searches.iter().flat_map(|(_, search)| search.rows()).collect();
        if rows.is_empty() {
            return Ok(outcomes);
        }
        let mut states = advance(model, index, &rows)?;
        step(&mut searches, &mut states, &before, model.residuals(), &mut scratches);
        before = states;
        for (at, search) in searches.extract_if(.., |(_, search)| search.is_over()) {
            outcomes[at] = Some(search.finish());
        }
    }
}

/// Every search takes in what was read of its paths. Searches share nothing, so that a batch is worked off by as many
/// threads as there are; a lone request stays on this one.
fn step(
    searches: &mut [(usize, Search<'_>)],
    states: &mut [PathState],
    before: &[PathState],
    residuals: Residuals<'_>,
    scratches: &mut Vec<Scratch>,
) {
    let mut work = Vec::with_capacity(searches.len());
    let (mut rest, mut first_row) = (states, 0);
    for (_, search) in searches {
        let (states, others) = rest.split_at_mut(search.rows().count());
        let rows = states.len();
        work.push(Work { search, states, first_row });
        (rest, first_row) = (others, first_row + rows);
    }
    let threads = rayon::current_num_threads().clamp(1, work.len().max(1));
    scratches.resize_with(threads.max(scratches.len()), Scratch::default);
    let share = work.len().div_ceil(threads).max(1);
    let run = |(share, scratch): (&mut [Work<'_, '_>], &mut Scratch)| {
        for Work { search, states, first_row } in share {
            search.step(states, *first_row, before, residuals, scratch);
        }
    };
    if threads == 1 {
        work.chunks_mut(share).zip(scratches).for_each(run);
    } else {
        work.par_chunks_mut(share).zip(scratches).for_each(run);
    }
}

/// One search and what was read of its paths.
struct Work<'w, 'a> {
    search: &'w mut Search<'a>,
    states: &'w mut [PathState],
    /// The row of the first of them.
    first_row: usize,
}

/// Refuses a network that was not made for the index.
fn check_model<M: PathModel>(model: &M, index: &Index) -> Result<(), DecodeError<M::Error>> {
    let (network, codes) = (model.shape(), index.codes().shape());
    DecodeError::unless_equal("the network's codebooks", network.codebooks, codes.codebooks)?;
    DecodeError::unless_equal("the network's codebook entries", network.entries, codes.entries)?;
    let residuals = model.residuals();
    DecodeError::unless_equal("the network's residuals", residuals.rows.len(), index.len() * residuals.width)
}

/// The queries of the jobs `encoded`, their shapes checked.
fn encode<M: PathModel>(
    model: &mut M,
    index: &Index,
    jobs: &[DecodeJob<'_>],
    encoded: &[usize],
) -> Result<Vec<ItemQuery>, DecodeError<M::Error>> {
    let histories: Vec<&History> = encoded.iter().map(|&at| jobs[at].history).collect();
    let queries = model.encode(&histories).map_err(DecodeError::Model)?;
    let (tokens, width) = (index.codes().shape().tokens(), model.residuals().width);
    DecodeError::unless_equal("encoded queries", queries.len(), encoded.len())?;
    for query in &queries {
        DecodeError::unless_equal("token scores", query.token_scores.len(), tokens)?;
        DecodeError::unless_equal("residual query", query.residual.len(), width)?;
    }
    Ok(queries)
}

/// The states of all rows, their shapes checked.
fn advance<M: PathModel>(
    model: &mut M,
    index: &Index,
    rows: &[Advance],
) -> Result<Vec<PathState>, DecodeError<M::Error>> {
    let states = model.advance(rows).map_err(DecodeError::Model)?;
    let tokens = index.codes().shape().tokens();
    DecodeError::unless_equal("path states", states.len(), rows.len())?;
    for state in &states {
        DecodeError::unless_equal("token refinements", state.token_refinements.len(), tokens)?;
    }
    Ok(states)
}
