//! What a decode is asked and what it answers.

use thiserror::Error;

use crate::catalog::{Candidates, Index};
use crate::domain::{History, ItemNumber, Path};

use super::bias::Bias;
use super::limits::Room;
use super::settings::{DecodeSettings, Engine};

/// One request of a batch.
#[derive(Debug, Clone, Copy)]
pub struct DecodeJob<'a> {
    /// What the user did, oldest first; at least one entry.
    pub history: &'a History,
    /// How many items are wanted.
    pub k: usize,
    /// The items that may be answered.
    pub root: &'a Candidates,
    /// How to search; valid.
    pub settings: &'a DecodeSettings,
    /// Whether to tell each item's path.
    pub explain: bool,
    /// What is added to scores, and how many of a kind may be answered; none: nothing, and any number.
    pub bias: Option<&'a Bias>,
}

impl<'a> DecodeJob<'a> {
    /// The room that its limits leave; none where there are no limits.
    pub(super) fn room(&self, index: &'a Index) -> Option<Room<'a>> {
        self.bias.filter(|bias| !bias.limits.is_none()).map(|bias| Room::new(&bias.limits, index))
    }

    /// How many items are to be answered: fewer than are wanted where there are not so many, or its limits let fewer pass.
    pub(super) fn needed(&self, index: &'a Index) -> usize {
        match self.room(index) {
            None => self.k.min(self.root.len()),
            Some(mut room) => self.root.iter().filter(|&item| room.take(item)).take(self.k).count(),
        }
    }

    /// Paths that hold at most so many candidates together are all finished.
    pub(super) fn few(&self) -> usize {
        self.settings.finish_together.saturating_mul(self.settings.beam.max(self.k))
    }

    /// Whether CORP compares the belief of paths of so many tokens with that of their parents.
    pub(super) fn corp_reads(&self, depth: usize) -> bool {
        self.settings.corp && self.settings.engine != Engine::Draft && depth > self.settings.corp_from
    }

    /// Items that a draft ranks anew; none for other engines.
    pub(super) fn drafted(&self) -> usize {
        if self.settings.engine == Engine::Draft { self.settings.draft_items.max(self.k) } else { 0 }
    }

    /// How many of the scorer's best items its engine looks at, at most.
    pub(super) fn looked_at(&self) -> usize {
        match self.settings.engine {
            Engine::Exact => self.k,
            Engine::Beam | Engine::Draft => self.settings.shortlist.max(self.k).max(self.drafted()),
        }
    }
}

/// One answered item.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// The item.
    pub item: ItemNumber,
    /// Natural log of p(item | history) over the candidates, as the search found it; finite.
    pub score: f32,
    /// How the search came to it; only when asked to explain, and never from the exact scorer.
    pub path: Option<Path>,
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// min(k, candidates) items, each once: higher score first, then higher prior, then lower number. With limits those
    /// of the candidates that come first in this order and pass.
    pub items: Vec<Ranked>,
    /// There were fewer than k candidates, or the limits let fewer pass.
    pub short: bool,
    /// Paths that CORP ended.
    pub pruned: u32,
    /// The items that those paths held; only when asked to explain.
    pub pruned_items: Vec<ItemNumber>,
    /// Calls of the decoder that this request took part in.
    pub passes: u32,
    /// Scores that were not finite numbers, and were read as the worst. More than none: the network is broken.
    pub non_finite: u32,
}

/// Why a batch got no answers.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError<E> {
    /// The network failed.
    #[error("{0}")]
    Model(E),
    /// Network and index do not belong together, or the network's answer has another shape than it should.
    #[error("{what}: {found}, expected {expected}")]
    Shape {
        /// What was measured.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The size it should have.
        expected: usize,
    },
    /// A request came without history: there is nothing to encode.
    #[error("job {0} has an empty history")]
    EmptyHistory(usize),
    /// A network that went through candidates itself does so no more.
    #[error("the network stopped to go through candidates itself")]
    NotResident,
}

impl<E> DecodeError<E> {
    /// Refuses a size that is not the expected one.
    pub(super) fn unless_equal(what: &'static str, found: usize, expected: usize) -> Result<(), Self> {
        if found == expected { Ok(()) } else { Err(DecodeError::Shape { what, found, expected }) }
    }

    /// Refuses a size above the one expected.
    pub(super) fn unless_at_most(what: &'static str, found: usize, expected: usize) -> Result<(), Self> {
        if found <= expected { Ok(()) } else { Err(DecodeError::Shape { what, found, expected }) }
    }
}
