//! A batch of requests through the search where candidates are with the network, in fixed steps.

use rayon::prelude::*;

use crate::catalog::Index;
use crate::domain::{History, breathe};

use super::job::{DecodeError, DecodeJob, Outcome};
use super::resident::{Ask, Depth, ResidentModel, Step};
use super::resident_search::ResidentSearch;
use super::run::{Decoder, MOST_SCORES};
use super::scoring::PathModel;
use super::watch::Part;

impl Decoder {
    /// Answers those of the jobs that are `chosen`, by place, into `outcomes`: one `encode`, then one `read` a step for all
    /// whose search goes on. Jobs that are not wanted any more are dropped, and have no outcome. The model is a
    /// [`ResidentModel`], and the jobs fit.
    ///
    /// # Errors
    /// What the network says, or an answer of another shape than was asked for. The whole batch fails.
    pub(super) fn decode_resident<M: PathModel>(
        &mut self,
        model: &mut M,
        index: &Index,
        jobs: &[DecodeJob<'_>],
        chosen: &[usize],
        wanted: &dyn Fn(usize) -> bool,
        outcomes: &mut [Option<Outcome>],
    ) -> Result<(), DecodeError<M::Error>> {
        model.keep_attention(false);
        for chosen in chosen.chunks((MOST_SCORES / index.len().max(1)).max(1)) {
            let mut searches: Vec<(usize, ResidentSearch<'_>)> = Vec::with_capacity(chosen.len());
            for &at in chosen.iter().filter(|&&at| wanted(at)) {
                searches.push((at, ResidentSearch::new(&jobs[at], index, searches.len())));
            }
            if searches.is_empty() {
                continue;
            }
            self.watch.turns_to(Part::Encode);
            let histories: Vec<&History> = searches.iter().map(|(at, _)| jobs[*at].history).collect();
            model.encode(&histories).map_err(DecodeError::Model)?;
            let Some(resident) = model.resident() else { return Err(DecodeError::NotResident) };
            self.watch.turns_to(Part::Scorer);
            let openings: Vec<_> = searches.iter().map(|(_, search)| search.opening()).collect();
            resident.open(&openings).map_err(DecodeError::Model)?;
            self.search(resident, searches, wanted, outcomes)?;
        }
        Ok(())
    }

    /// Steps until no search goes on.
    fn search<E>(
        &mut self,
        model: &mut dyn ResidentModel<Error = E>,
        mut searches: Vec<(usize, ResidentSearch<'_>)>,
        wanted: &dyn Fn(usize) -> bool,
        outcomes: &mut [Option<Outcome>],
    ) -> Result<(), DecodeError<E>> {
        let mut begun = false;
        loop {
            self.watch.turns_to(Part::Answers);
            for (at, search) in searches.extract_if(.., |(_, search)| search.is_over()) {
                outcomes[at] = Some(search.finish());
            }
            // `<BOS>` is read for all that were opened.
            searches.retain(|(at, _)| !begun || wanted(*at));
            if searches.is_empty() {
                return Ok(());
            }
            begun = true;
            self.watch.turns_to(Part::Passes);
            let (mut asks, mut firsts) = (Vec::<Ask>::new(), Vec::with_capacity(searches.len()));
            let mut depth = Depth { children: 0, divergences: false };
            for (_, search) in &searches {
                firsts.push(asks.len());
                asks.extend(search.asks());
                let wants = search.wants();
                depth.children = depth.children.max(wants.children);
                depth.divergences |= wants.divergences;
            }
            let step = model.read(&asks, depth).map_err(DecodeError::Model)?;
            check(&step, &asks)?;
            self.watch.turns_to(Part::Selection);
            searches.par_iter_mut().zip(firsts).for_each(|((_, search), first)| {
                breathe();
                search.step(&step, first);
            });
        }
    }
}

/// Refuses a step that is not what was asked for.
fn check<E>(step: &Step, asks: &[Ask]) -> Result<(), DecodeError<E>> {
    DecodeError::unless_equal("paths that were read", step.paths.len(), asks.len())?;
    for (told, ask) in step.paths.iter().zip(asks) {
        DecodeError::unless_equal("a path's candidates", told.listed.len(), ask.listed.unwrap_or(0))?;
        DecodeError::unless_at_most("the end of a path's candidates", told.listed.end, step.listed.len())?;
        DecodeError::unless_at_most("the end of a path's children", told.children.end, step.children.len())?;
    }
    Ok(())
}
