//! Whether and how sharply CORP prunes: chosen on validation users, never on test.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::catalog::Index;
use crate::decode::{DecodeSettings, Engine, PathModel};
use crate::evaluation::{Metrics, Question, RankError, Ranker, Search, Tally, Trial};
use crate::training::evaluate::Ranking;

/// Users that the sweep ranks for.
const USERS: usize = 1_500;

/// Users that are ranked for together.
const BATCH: usize = 256;

/// Thresholds that are tried, in nats, after CORP switched off.
const THETAS: [f32; 8] = [0.02, 0.04, 0.06, 0.08, 0.10, 0.15, 0.20, 0.30];

/// One setting that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trialled {
    /// `exact`, `beam`, or `beam, corp <theta>`.
    pub setting: String,
    /// On the validation users, seen items filtered.
    pub recall_at_10: f64,
    /// On the validation users, seen items filtered.
    pub ndcg_at_10: f64,
}

/// The sweep and what it chose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// How the bundle decodes by default.
    pub settings: DecodeSettings,
    /// Validation users that were ranked for.
    pub users: usize,
    /// All that was tried, the exact scorer first.
    pub tried: Vec<Trialled>,
}

/// Tries the exact scorer and, unless the bundle is to answer with that, the beam without CORP and with CORP at several
/// thresholds. CORP stays on at the threshold with the best NDCG@10 unless leaving it off is better.
pub(in crate::training) fn calibrate<M: PathModel>(
    network: &mut M,
    index: &Index,
    held_out: &[Trial],
    engine: Ranking,
) -> Result<Calibration, RankError> {
    let every = held_out.len().div_ceil(USERS).max(1);
    let trials: Vec<Trial> = held_out.iter().step_by(every).cloned().collect();
    let mut tried = Vec::new();
    let mut measure = |setting: String, settings: &DecodeSettings| {
        let scores = filtered(&mut Search::new(network, index, settings.clone()), &trials, index.len())?;
        tried.push(Trialled { setting, recall_at_10: scores.recall_at_10, ndcg_at_10: scores.ndcg_at_10 });
        Ok::<f64, RankError>(scores.ndcg_at_10)
    };
    let open = DecodeSettings { corp: false, ..DecodeSettings::default() };
    let exact = DecodeSettings { engine: Engine::Exact, ..open.clone() };
    measure("exact".to_owned(), &exact)?;
    let draft = DecodeSettings { engine: Engine::Draft, ..open.clone() };
    let settings = match engine {
        Ranking::Beam => None,
        Ranking::Exact => Some(exact),
        Ranking::Draft => {
            measure("draft".to_owned(), &draft)?;
            Some(draft)
        }
    };
    if let Some(settings) = settings {
        return Ok(Calibration { settings, users: trials.len(), tried });
    }
    let mut best = (measure("beam".to_owned(), &open)?, open.clone());
    for theta in THETAS {
        let settings = DecodeSettings { corp: true, theta, ..open.clone() };
        let score = measure(format!("beam, corp {theta}"), &settings)?;
        // Equal scores go to the later, laxer setting that prunes: it explains more and costs nothing.
        if score >= best.0 {
            best = (score, settings);
        }
    }
    Ok(Calibration { settings: best.1, users: trials.len(), tried })
}

/// Metrics with seen items left out, the only ones that the choice goes by.
pub(in crate::training) fn filtered<M: PathModel>(
    search: &mut Search<'_, M>,
    trials: &[Trial],
    items: usize,
) -> Result<Metrics, RankError> {
    let mut tally = Tally::default();
    for batch in trials.chunks(BATCH) {
        let questions: Vec<Question<'_>> = batch
            .iter()
            .map(|trial| Question { history: &trial.history, k: 20.min(items), exclude: &trial.seen })
            .collect();
        for (trial, list) in batch.iter().zip(search.rank(&questions)?) {
            tally.add(list.iter().position(|&item| item == trial.target));
        }
    }
    Ok(tally.mean())
}

impl fmt::Display for Calibration {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} users, seen items filtered: recall@10 / ndcg@10", self.users)?;
        for tried in &self.tried {
            write!(out, "\n{:<16} {:.4} / {:.4}", tried.setting, tried.recall_at_10, tried.ndcg_at_10)?;
        }
        let chosen = &self.settings;
        match chosen.engine {
            Engine::Exact => write!(out, "\nanswers with the exact scorer, as asked"),
            Engine::Draft => write!(out, "\nanswers with the draft, as asked"),
            Engine::Beam if chosen.corp => write!(out, "\nchosen: corp {}", chosen.theta),
            Engine::Beam => write!(out, "\nchosen: no corp"),
        }
    }
}
