//! Requests with known answers, and the shapes to warm up: what a server runs on a bundle before it serves it.

use std::collections::HashSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::BundleError;
use super::manifest::{GOLDEN_FILE, WARMUP_FILE};
use crate::domain::EventKind;

/// Largest k that a request may ask for.
const MOST_ANSWERS: usize = 1000;
/// Largest batch that is worth warming.
const LARGEST_BATCH: usize = 4096;

/// One request and the answer that this bundle gave when it was published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Oldest first; at least one event, all of items of the bundle.
    pub history: Vec<GoldenEvent>,
    /// How many items were asked for, 1 to 1000.
    pub k: usize,
    /// Whether the items of the history were left out.
    pub exclude_seen: bool,
    /// The decode settings that were used, whole.
    pub settings: Value,
    /// Best first, no item twice, at most k.
    pub answers: Vec<GoldenAnswer>,
    /// Largest difference of scores that still counts as equal; finite, not negative.
    pub tolerance: f32,
}

/// One event of a golden request's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenEvent {
    /// An item of the bundle.
    pub item_id: String,
    /// What was done.
    pub kind: EventKind,
    /// Unix time in seconds.
    pub time: i64,
}

/// One expected answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenAnswer {
    /// An item of the bundle.
    pub item_id: String,
    /// Natural logarithm of its probability; finite.
    pub score: f32,
}

/// A shape of input to run once before the first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmupShape {
    /// Requests in the batch, 1 to 4096.
    pub batch: usize,
    /// Events in each history, 1 to the network's `max_history`.
    pub history: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GoldenFile {
    requests: Vec<Golden>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WarmupFile {
    shapes: Vec<WarmupShape>,
}

impl Golden {
    /// What is wrong with `found` (item ids with scores, best first), or nothing.
    ///
    /// Rank by rank the scores must agree within the tolerance. Items may stand in another order only among
    /// expected scores that agree within the tolerance, and another item may appear only level with the last
    /// expected one: rounding may break such ties either way.
    pub fn mismatch(&self, found: &[(&str, f32)]) -> Option<String> {
        if found.len() != self.answers.len() {
            return Some(format!("{} answers, expected {}", found.len(), self.answers.len()));
        }
        let level = |a: f32, b: f32| (a - b).abs() <= self.tolerance;
        let mut seen = HashSet::new();
        for (rank, (&(item, score), wanted)) in found.iter().zip(&self.answers).enumerate() {
            if !level(score, wanted.score) {
                return Some(format!(
                    "rank {rank}: score {score} for {item:?}, expected {} within {}",
                    wanted.score, self.tolerance
                ));
            }
            let expected = self.answers.iter().find(|answer| answer.item_id == item).or(self.answers.last());
            let tied = expected.is_some_and(|answer| level(answer.score, score));
            if !tied || !seen.insert(item) {
                return Some(format!("rank {rank}: item {item:?}, expected {:?}", wanted.item_id));
            }
        }
        None
    }
}

pub(super) fn pack_golden(golden: &[Golden]) -> Result<Vec<u8>, BundleError> {
    pack(GOLDEN_FILE, &GoldenFile { requests: golden.to_vec() })
}

pub(super) fn pack_warmup(shapes: &[WarmupShape]) -> Result<Vec<u8>, BundleError> {
    pack(WARMUP_FILE, &WarmupFile { shapes: shapes.to_vec() })
}

/// Reads the golden requests; every item must satisfy `known`.
pub(super) fn read_golden(bytes: &[u8], known: impl Fn(&str) -> bool) -> Result<Vec<Golden>, BundleError> {
    let golden = read::<GoldenFile>(GOLDEN_FILE, bytes)?.requests;
    for (at, request) in golden.iter().enumerate() {
        let refuse = |reason: String| Err(BundleError::new(GOLDEN_FILE, format!("requests[{at}]: {reason}")));
        if !(1..=MOST_ANSWERS).contains(&request.k) {
            return refuse(format!("k: {}, expected 1 to {MOST_ANSWERS}", request.k));
        }
        if request.history.is_empty() {
            return refuse("history: empty, expected at least one event".to_owned());
        }
        if request.answers.len() > request.k {
            return refuse(format!("{} answers, expected at most k = {}", request.answers.len(), request.k));
        }
        if !request.settings.is_object() {
            return refuse("settings: expected an object".to_owned());
        }
        if !request.tolerance.is_finite() || request.tolerance < 0.0 {
            return refuse(format!("tolerance: {}, expected a finite number from 0", request.tolerance));
        }
        let events = request.history.iter().map(|event| &event.item_id);
        let answers = request.answers.iter().map(|answer| &answer.item_id);
        if let Some(stranger) = events.chain(answers.clone()).find(|id| !known(id)) {
            return refuse(format!("item {stranger:?} is not in items.parquet"));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = answers.clone().find(|id| !seen.insert(*id)) {
            return refuse(format!("item {twice:?} is answered twice"));
        }
        if let Some(answer) = request.answers.iter().find(|answer| !answer.score.is_finite()) {
            return refuse(format!("item {:?}: score {}, expected a finite one", answer.item_id, answer.score));
        }
    }
    Ok(golden)
}

/// Reads the shapes to warm up.
pub(super) fn read_warmup(bytes: &[u8], max_history: usize) -> Result<Vec<WarmupShape>, BundleError> {
    let shapes = read::<WarmupFile>(WARMUP_FILE, bytes)?.shapes;
    for (at, shape) in shapes.iter().enumerate() {
        for (field, value, most) in [("batch", shape.batch, LARGEST_BATCH), ("history", shape.history, max_history)] {
            if !(1..=most).contains(&value) {
                return Err(BundleError::new(
                    WARMUP_FILE,
                    format!("shapes[{at}].{field}: {value}, expected 1 to {most}"),
                ));
            }
        }
    }
    Ok(shapes)
}

fn pack<T: Serialize>(file: &str, content: &T) -> Result<Vec<u8>, BundleError> {
    let mut bytes = serde_json::to_vec_pretty(content)
        .map_err(|error| BundleError::new(file, format!("cannot be written: {error}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn read<T: DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<T, BundleError> {
    serde_json::from_slice(bytes).map_err(|error| BundleError::new(file, error.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::sample;

    #[test]
    fn answers_match_up_to_ties_within_the_tolerance() {
        let mut golden = sample::parts().golden.remove(0);
        golden.tolerance = 0.01;
        assert_eq!(golden.mismatch(&[("item-1", -0.505), ("item-2", -1.25)]), None);
        for (found, reason) in [
            (vec![("item-1", -0.5)], "1 answers, expected 2"),
            (vec![("item-1", -0.52), ("item-2", -1.25)], "rank 0: score"),
            (vec![("item-1", f32::NAN), ("item-2", -1.25)], "rank 0: score"),
            (vec![("item-2", -0.5), ("item-1", -1.25)], "rank 0: item \"item-2\""),
            (vec![("item-1", -0.5), ("item-1", -1.25)], "rank 1: item"),
        ] {
            let mismatch = golden.mismatch(&found).expect(reason);
            assert!(mismatch.starts_with(reason), "{mismatch}");
        }
        // Level with the last expected answer another item may stand, and level answers may change places.
        assert_eq!(golden.mismatch(&[("item-1", -0.5), ("item-3", -1.255)]), None);
        golden.answers[0].score = -1.245;
        assert_eq!(golden.mismatch(&[("item-2", -1.249), ("item-1", -1.249)]), None);
        assert!(golden.mismatch(&[("item-2", -1.249), ("item-2", -1.249)]).is_some());
    }
}
