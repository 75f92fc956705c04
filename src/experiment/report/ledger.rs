//! The join: which events follow from which exposure, each counted once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::replay;
use super::sequence::ConfidenceSequence;
use super::summary::{Report, Unjoined};
use crate::domain::{AssignmentReason, Design, EventKind, Exposure, UserEvent, Violation};

/// A text as 128 bits of its SHA-256: among 10^9 texts two are alike with a probability below 10^-20.
pub(super) type Mark = u128;

/// An exposure, as far as the report needs it.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) at_ms: i64,
    pub(super) parts: Vec<Part>,
}

/// The part that one experiment has in an exposure.
#[derive(Debug)]
pub(super) struct Part {
    /// Which of the ledger's designs.
    pub(super) design: usize,
    pub(super) arm: usize,
    pub(super) unit: Mark,
    pub(super) reason: AssignmentReason,
}

/// An event that names a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Happened {
    pub(super) at_ms: i64,
    pub(super) request: Mark,
    pub(super) kind: EventKind,
    pub(super) value: f64,
}

/// What a log holds of exposures and events. Told in any order; told twice, it counts once.
#[derive(Debug, Default)]
pub struct Ledger {
    shown: Vec<Shown>,
    by_request: HashMap<Mark, usize>,
    happened: Vec<Happened>,
    event_ids: HashSet<Mark>,
    designs: Vec<Arc<Design>>,
    events: u64,
    repeated_exposures: u64,
    repeated_events: u64,
    without_request_id: u64,
}

impl Ledger {
    /// An exposure of the log; of one request id the first counts. `at_ms`: when the answer was given.
    pub fn exposed(&mut self, at_ms: i64, exposure: &Exposure) {
        let request = mark(&exposure.request_id);
        if self.by_request.contains_key(&request) {
            self.repeated_exposures += 1;
            return;
        }
        let mut parts = Vec::with_capacity(exposure.arms.len());
        for exposed in &exposure.arms {
            let unit = mark(exposed.unit.as_deref().unwrap_or(&exposure.user_id));
            let design = self.place(&exposed.design);
            parts.push(Part { design, arm: exposed.arm, unit, reason: exposed.reason });
        }
        self.by_request.insert(request, self.shown.len());
        self.shown.push(Shown { at_ms, parts });
    }

    /// An event of the log; of one event id the first counts, and one without counts every time. `at_ms`: when it arrived.
    pub fn happened(&mut self, at_ms: i64, event: &UserEvent) {
        if !event.event_id.is_empty() && !self.event_ids.insert(mark(&event.event_id)) {
            self.repeated_events += 1;
            return;
        }
        self.events += 1;
        if event.request_id.is_empty() {
            self.without_request_id += 1;
            return;
        }
        let value = event.event.value.map_or(0.0, f64::from);
        self.happened.push(Happened { at_ms, request: mark(&event.request_id), kind: event.event.kind, value });
    }

    /// The keys of the experiments that exposures name.
    pub fn experiments(&self) -> Vec<&str> {
        self.designs_by_key().into_keys().collect()
    }

    /// What came of every experiment; `only`: of this one. Bands leave the truth out with probability `alpha`, and are
    /// tightest after `tightest_at` exposures.
    ///
    /// # Errors
    /// See [`ConfidenceSequence::new`]; an experiment that no exposure names is named with those that there are.
    pub fn report(&self, alpha: f64, tightest_at: u64, only: Option<&str>) -> Result<Report, Vec<Violation>> {
        let sequence = ConfidenceSequence::new(alpha, tightest_at)?;
        let mut designs = self.designs_by_key();
        if let Some(only) = only.filter(|only| !designs.contains_key(only)) {
            let known: Vec<&str> = designs.into_keys().collect();
            let expected = match known.as_slice() {
                [] => "the log holds no exposure of any".to_owned(),
                known => format!("one of {}", known.join(", ")),
            };
            return Err(vec![Violation::new("experiment", format!("{only:?}: {expected}"))]);
        }
        designs.retain(|key, _| only.is_none_or(|only| only == *key));
        let known = |event: &Happened| self.by_request.contains_key(&event.request);
        let joined = self.happened.iter().filter(|event| known(event)).count() as u64;
        Ok(Report {
            alpha,
            tightest_at,
            exposures: self.shown.len() as u64,
            repeated_exposures: self.repeated_exposures,
            events: self.events,
            repeated_events: self.repeated_events,
            joined,
            unjoined: Unjoined {
                without_request_id: self.without_request_id,
                unknown_request_id: self.happened.len() as u64 - joined,
            },
            experiments: designs.into_values().map(|designs| replay::experiment(self, &designs, sequence)).collect(),
        })
    }

    pub(super) fn design(&self, at: usize) -> &Design {
        &self.designs[at]
    }

    pub(super) fn shown(&self) -> &[Shown] {
        &self.shown
    }

    /// The events that name an exposure, each with which one.
    pub(super) fn joined(&self) -> impl Iterator<Item = (usize, &Happened)> {
        self.happened.iter().filter_map(|event| Some((*self.by_request.get(&event.request)?, event)))
    }

    fn designs_by_key(&self) -> BTreeMap<&str, Vec<usize>> {
        let mut keys = BTreeMap::<&str, Vec<usize>>::new();
        for (at, design) in self.designs.iter().enumerate() {
            keys.entry(&design.experiment).or_default().push(at);
        }
        keys
    }

    fn place(&mut self, design: &Arc<Design>) -> usize {
        // There are few, and the newest is the likeliest.
        let known = self.designs.iter().rposition(|known| known == design);
        known.unwrap_or_else(|| {
            self.designs.push(Arc::clone(design));
            self.designs.len() - 1
        })
    }
}

fn mark(text: &str) -> Mark {
    let digest = Sha256::digest(text);
    let mut head = [0; 16];
    head.copy_from_slice(&digest[..16]);
    Mark::from_le_bytes(head)
}
