//! How to search.

use std::f32::consts::LN_2;

use serde::{Deserialize, Serialize};

use crate::domain::{DecodeOverrides, Violation};

pub use crate::domain::Engine;

/// Which codebooks a path's children come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expansion {
    /// The one unused codebook that the model is surest of, so that no item is reached twice.
    #[default]
    Crss,
    /// Every unused codebook, duplicates merged by token set; for comparison.
    Flat,
    /// The first unused codebook, as a tokenizer with an order would have it; for comparison.
    Fixed,
    /// Any unused codebook, drawn by the path's tokens; for comparison.
    Random,
}

/// Settings of one request's decode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecodeSettings {
    /// B: live paths kept a step; 1 to 1000.
    pub beam: usize,
    /// Paths read beyond the beam each step, to take the places of those that CORP prunes; 0 to 1000.
    pub reserve: usize,
    /// Whether CORP prunes.
    pub corp: bool,
    /// CORP's threshold on the Jensen-Shannon divergence of two beliefs, in nats; 0 to ln 2.
    pub theta: f32,
    /// The first t for which c_t is compared with c_{t+1}: 1 exempts the first token, which always moves the belief.
    pub corp_from: usize,
    /// A path with at most so many candidates is finished.
    pub finish_at: usize,
    /// All paths are finished once together they hold at most so many candidates a place of the beam (or a wanted
    /// item, where more items are wanted than the beam is wide).
    pub finish_together: usize,
    /// Step on to the last codebook instead of finishing early.
    pub full_path: bool,
    /// Which codebooks a path's children come from.
    pub expansion: Expansion,
    /// What ranks the items.
    pub engine: Engine,
    /// The beam search starts from the scorer's best so many candidates; at least 1. It bounds the cost of the first
    /// step in large catalogues; probabilities are then over these.
    pub shortlist: usize,
    /// S: how many of the scorer's best items the engine `draft` ranks anew, and never fewer than are wanted; 1 to 1000.
    pub draft_items: usize,
}

impl Default for DecodeSettings {
    fn default() -> Self {
        Self {
            beam: 20,
            reserve: 4,
            corp: true,
            theta: 0.06,
            corp_from: 1,
            finish_at: 8,
            finish_together: 4,
            full_path: false,
            expansion: Expansion::Crss,
            engine: Engine::Beam,
            shortlist: 65_536,
            draft_items: 64,
        }
    }
}

impl DecodeSettings {
    /// The widest beam, the largest reserve and the longest draft.
    pub const WIDEST: usize = 1000;

    /// Names every field that is out of range, what it holds and what was expected.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let widest = Self::WIDEST;
        let mut violations = Vec::new();
        if !(1..=widest).contains(&self.beam) {
            violations.push(Violation::new("beam", format!("{}: expected 1 to {widest}", self.beam)));
        }
        if self.reserve > widest {
            violations.push(Violation::new("reserve", format!("{}: expected 0 to {widest}", self.reserve)));
        }
        if !(0.0..=LN_2).contains(&self.theta) {
            violations.push(Violation::new("theta", format!("{}: expected 0 to ln 2 = {LN_2}", self.theta)));
        }
        if self.shortlist == 0 {
            violations.push(Violation::new("shortlist", "0: expected at least 1"));
        }
        if !(1..=widest).contains(&self.draft_items) {
            violations.push(Violation::new("draft_items", format!("{}: expected 1 to {widest}", self.draft_items)));
        }
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }

    /// The same search with a narrower beam; none where that changes nothing.
    pub fn narrowed(&self, beam: usize) -> Option<Self> {
        (self.engine == Engine::Beam && beam < self.beam).then(|| Self { beam, ..self.clone() })
    }

    /// These settings with a request's own in their places.
    pub fn with(&self, overrides: &DecodeOverrides) -> Self {
        Self {
            beam: overrides.beam.unwrap_or(self.beam),
            theta: overrides.theta.unwrap_or(self.theta),
            corp: overrides.corp.unwrap_or(self.corp),
            full_path: overrides.full_path.unwrap_or(self.full_path),
            engine: overrides.engine.unwrap_or(self.engine),
            ..self.clone()
        }
    }
}
