//! A batch of requests through the search, in fixed steps.

use std::ops::Range;

use rayon::prelude::*;

use crate::catalog::Index;
use crate::domain::{History, breathe};

use super::alone::{Counted, threads_to_use};
use super::exact::exact;
use super::job::{DecodeError, DecodeJob, Outcome};
use super::near::sharpen;
use super::resident_search::ResidentSearch;
use super::scoring::{Advance, PathModel, PathState, TokenVectors};
use super::scratch::Scratch;
use super::search::{Memory, Search};
use super::settings::Engine;
use super::watch::{Part, Watch};

/// Most scores that are held at once: 64 MiB. A batch that has more is scored a part at a time.
pub(crate) const MOST_SCORES: usize = 1 << 24;

/// Items are scored nearly first where at most one in so many is looked at then: to score a few again costs more each.
const WORTH_NEARLY: usize = 8;

/// Answers every job of a batch as [`Decoder::decode`] does, with memory of its own.
///
/// # Errors
/// As [`Decoder::decode`].
pub fn decode<M: PathModel>(
    model: &mut M,
    index: &Index,
    jobs: &[DecodeJob<'_>],
    wanted: &dyn Fn(usize) -> bool,
) -> Result<Vec<Option<Outcome>>, DecodeError<M::Error>> {
    Decoder::default().decode(model, index, jobs, wanted)
}

/// What batches need for a while, kept from one to the next.
#[derive(Debug, Default)]
pub struct Decoder {
    scratches: Vec<Scratch>,
    /// Of searches that are over.
    memories: Vec<Memory>,
    /// s(i) of the requests that are worked at, `[requests, items]`.
    scores: Vec<f32>,
    pub(super) watch: Watch,
}

/// A request that was encoded.
struct Encoded<'a> {
    /// Its place among the jobs.
    at: usize,
    way: Way<'a>,
}

/// How a request is answered, and how far it got.
#[allow(clippy::large_enum_variant, reason = "most are searches, and none lives longer than a batch")]
enum Way<'a> {
    /// By the scorer alone.
    Exact,
    Search(Search<'a>),
    Answered(Outcome),
    /// Nobody wants it any more.
    Dropped,
}

impl<'a> Encoded<'a> {
    fn search(&self) -> Option<&Search<'a>> {
        match &self.way {
            Way::Search(search) => Some(search),
            _ => None,
        }
    }
}

impl Decoder {
    /// A decoder that tells `watch` what it turns to.
    pub fn watched(watch: fn(Part)) -> Self {
        Self { watch: Watch::by(watch), ..Self::default() }
    }

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
        &mut self,
        model: &mut M,
        index: &Index,
        jobs: &[DecodeJob<'_>],
        wanted: &dyn Fn(usize) -> bool,
    ) -> Result<Vec<Option<Outcome>>, DecodeError<M::Error>> {
        check_model(model, index)?;
        let _counted = Counted::new();
        let mut outcomes: Vec<Option<Outcome>> = vec![None; jobs.len()];
        let resides = model.resident().is_some();
        let (mut encoded, mut resident) = (Vec::with_capacity(jobs.len()), Vec::new());
        for (at, job) in jobs.iter().enumerate().filter(|(at, _)| wanted(*at)) {
            // Fewer where items came since they were drawn: numbers stay.
            DecodeError::unless_at_most("the catalogue of the candidates", job.root.catalogue_len(), index.len())?;
            if job.k == 0 || job.root.is_empty() {
                outcomes[at] = Some(Outcome { short: job.root.len() < job.k, ..Outcome::default() });
            } else if job.history.is_empty() {
                return Err(DecodeError::EmptyHistory(at));
            } else if resides && ResidentSearch::fits(job, index) {
                resident.push(at);
            } else {
                let way = match job.settings.engine {
                    Engine::Exact => Way::Exact,
                    Engine::Beam | Engine::Draft => {
                        let memory = self.memories.pop().unwrap_or_default();
                        Way::Search(Search::new(job, index, encoded.len(), memory))
                    }
                };
                encoded.push(Encoded { at, way });
            }
        }
        if !resident.is_empty() {
            self.decode_resident(model, index, jobs, &resident, wanted, &mut outcomes)?;
        }
        if encoded.is_empty() {
            return Ok(outcomes);
        }
        self.watch.turns_to(Part::Encode);
        model.keep_attention(encoded.iter().any(|request| request.search().is_some() && jobs[request.at].explain));
        let histories: Vec<&History> = encoded.iter().map(|request| jobs[request.at].history).collect();
        let searched = encoded.iter().any(|request| request.search().is_some());
        let read = if searched { model.encode(&histories) } else { model.encode_for_scores(&histories) };
        read.map_err(DecodeError::Model)?;

        for request in encoded.iter_mut().filter(|request| !wanted(request.at)) {
            request.way = Way::Dropped;
        }
        let mut before = self.begin(model, index, jobs, &mut encoded)?;
        let mut searches: Vec<(usize, Search<'_>)> = Vec::with_capacity(encoded.len());
        for Encoded { at, way } in encoded {
            match way {
                Way::Answered(outcome) => outcomes[at] = Some(outcome),
                Way::Search(search) => searches.push((at, search)),
                Way::Exact | Way::Dropped => {}
            }
        }
        loop {
            for (at, search) in searches.extract_if(.., |(_, search)| search.is_over()) {
                self.watch.turns_to(Part::Answers);
                let (outcome, memory) = search.finish();
                outcomes[at] = Some(outcome);
                self.memories.push(memory);
            }
            searches.retain(|(at, _)| wanted(*at));
            if searches.is_empty() {
                return Ok(outcomes);
            }
            self.watch.turns_to(Part::Passes);
            let states = advance(model, searches.iter().map(|(_, search)| search))?;
            self.step(&mut searches, &states, &before, model.token_vectors());
            before = states;
        }
    }

    /// Scores all items for every request; answers those that the scorer alone ranks, and takes the first step of the
    /// others. Answers the states of the `<BOS>` rows.
    fn begin<M: PathModel>(
        &mut self,
        model: &mut M,
        index: &Index,
        jobs: &[DecodeJob<'_>],
        encoded: &mut [Encoded<'_>],
    ) -> Result<Vec<PathState>, DecodeError<M::Error>> {
        self.watch.turns_to(Part::Passes);
        let states = advance(model, encoded.iter().filter_map(Encoded::search))?;
        let (items, mut row) = (index.len(), 0);
        let most = (MOST_SCORES / items).max(1);
        for (part, requests) in encoded.chunks_mut(most).enumerate() {
            let places = part * most..part * most + requests.len();
            self.watch.turns_to(Part::Scorer);
            self.scores.resize(requests.len() * items, 0.0);
            // Limits reach further down than any number of best items.
            let far = |job: &DecodeJob<'_>| job.room(index).is_some() || job.looked_at() > items / WORTH_NEARLY;
            let nearly = if requests.iter().any(|request| far(&jobs[request.at])) {
                model.score_items(places.clone(), &mut self.scores).map(|()| false)
            } else {
                model.score_items_nearly(places.clone(), &mut self.scores)
            };
            if nearly.map_err(DecodeError::Model)? {
                let scratch = first(&mut self.scratches, self.watch);
                // One request after the other.
                scratch.lone = true;
                for ((request, place), scores) in requests.iter().zip(places).zip(self.scores.chunks_exact_mut(items)) {
                    sharpen(model, index, &jobs[request.at], place, scores, scratch)?;
                }
            }
            let mut work: Vec<_> = Vec::with_capacity(requests.len());
            for (request, scores) in requests.iter_mut().zip(self.scores.chunks_exact_mut(items)) {
                let first = row;
                row += usize::from(request.search().is_some());
                work.push((request, scores, first));
            }
            let tokens = model.token_vectors();
            share(&mut work, &mut self.scratches, self.watch, |(request, scores, row), scratch| {
                match &mut request.way {
                    Way::Search(search) => search.begin(&states[*row], *row, scores, tokens, scratch),
                    Way::Exact => request.way = Way::Answered(exact(scores, index, &jobs[request.at], scratch)),
                    Way::Answered(_) | Way::Dropped => {}
                }
            });
        }
        Ok(states)
    }

    /// Every search takes in what was read of its paths.
    fn step(
        &mut self,
        searches: &mut [(usize, Search<'_>)],
        states: &[PathState],
        before: &[PathState],
        tokens: TokenVectors<'_>,
    ) {
        let mut work: Vec<(&mut Search<'_>, Range<usize>)> = Vec::with_capacity(searches.len());
        let mut row = 0;
        for (_, search) in searches {
            let rows = row..row + search.rows().count();
            row = rows.end;
            work.push((search, rows));
        }
        share(&mut work, &mut self.scratches, self.watch, |(search, rows), scratch| {
            search.step(&states[rows.clone()], rows.start, before, tokens, scratch);
        });
    }
}

/// The room of the first thread.
fn first(scratches: &mut Vec<Scratch>, watch: Watch) -> &mut Scratch {
    if scratches.is_empty() {
        scratches.push(Scratch::new(watch));
    }
    &mut scratches[0]
}

/// Requests share nothing, so that a batch is worked off by as many threads as there are; a lone request stays on this
/// one, which shares long walks over items with the others.
fn share<T: Send>(
    work: &mut [T],
    scratches: &mut Vec<Scratch>,
    watch: Watch,
    run: impl Fn(&mut T, &mut Scratch) + Sync,
) {
    let threads = threads_to_use().clamp(1, work.len().max(1));
    scratches.resize_with(threads.max(scratches.len()), || Scratch::new(watch));
    scratches.iter_mut().for_each(|scratch| scratch.lone = work.len() == 1);
    let share = work.len().div_ceil(threads).max(1);
    let run = |item: &mut T, scratch: &mut Scratch| {
        breathe();
        run(item, scratch);
    };
    if threads == 1 {
        work.iter_mut().for_each(|item| run(item, &mut scratches[0]));
    } else {
        let shares = work.par_chunks_mut(share).zip(scratches);
        shares.for_each(|(share, scratch)| share.iter_mut().for_each(|item| run(item, scratch)));
    }
}

/// Refuses a network that was not made for the index.
fn check_model<M: PathModel>(model: &M, index: &Index) -> Result<(), DecodeError<M::Error>> {
    let (network, codes) = (model.shape(), index.codes().shape());
    DecodeError::unless_equal("the network's codebooks", network.codebooks, codes.codebooks)?;
    DecodeError::unless_equal("the network's codebook entries", network.entries, codes.entries)?;
    let tokens = model.token_vectors();
    if let Some(sums) = tokens.sums {
        DecodeError::unless_equal("the network's token sums", sums.len(), index.len() * tokens.width)?;
    }
    DecodeError::unless_equal("the network's token vectors", tokens.rows.len(), codes.tokens() * tokens.width)
}

/// The states of all rows of the searches, their shapes checked.
fn advance<'s, 'a: 's, M: PathModel>(
    model: &mut M,
    searches: impl Iterator<Item = &'s Search<'a>>,
) -> Result<Vec<PathState>, DecodeError<M::Error>> {
    let (mut rows, mut beliefs) = (Vec::<Advance>::new(), false);
    for search in searches {
        rows.extend(search.rows());
        beliefs |= search.reads_beliefs();
    }
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let states = model.advance(&rows, beliefs).map_err(DecodeError::Model)?;
    let width = model.token_vectors().width;
    DecodeError::unless_equal("path states", states.len(), rows.len())?;
    for state in &states {
        DecodeError::unless_equal("a path's refinement", state.refinement.len(), width)?;
        if beliefs {
            DecodeError::unless_equal("a path's beliefs", state.beliefs.len(), model.categories())?;
        }
    }
    Ok(states)
}
