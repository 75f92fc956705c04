//! `reflect`: whether reasoning pays. One bundle, the same users, everything else equal: engines, orders of codebooks, widths
//! of the beam, thresholds of CORP.

use std::fmt;
use std::path::PathBuf;

use anyhow::anyhow;
use burn::backend::Flex;
use clap::Args;
use serde::Serialize;

use super::dataset::{Dataset, Part, Split};
use super::evaluate::{Held, same_items};
use super::fit::Narrator;
use crate::artifact::load;
use crate::catalog::Index;
use crate::decode::{Advance, DecodeSettings, Engine, Expansion, PathModel};
use crate::domain::History;
use crate::evaluation::{Question, Search, Tally, Trial};
use crate::model::CpuScorer;

/// Users that are asked about together.
const BATCH: usize = 256;

/// Items of a list.
const LIST: usize = 10;

/// CORP's thresholds that are tried, nats.
const THETAS: [f32; 12] = [0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.10, 0.15, 0.20, 0.30];

/// Widths of the beam that CORP is tried at: where few paths live, a place is worth more.
const BEAMS: [usize; 3] = [20, 5, 2];

/// `reflect`: what reasoning brings.
#[derive(Debug, Clone, Args)]
pub struct ReflectArgs {
    /// The bundle's directory
    #[arg(long, value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Directory with interactions.parquet and items.parquet
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Which held-out events to rank for
    #[arg(long, value_enum, default_value = "valid")]
    pub split: Held,
    /// Users to rank for, evenly spread; all of them when there are no more
    #[arg(long, value_name = "N", default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub users: u32,
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub json: bool,
}

/// One setting and what it came to; seen items filtered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tried {
    /// What was set.
    pub setting: String,
    /// Share of targets among the first ten.
    pub recall_at_10: f64,
    /// Normalised discounted cumulative gain of the first ten.
    pub ndcg_at_10: f64,
    /// Paths that CORP ended, a request.
    pub pruned: f64,
    /// Share of the ended paths that held the target.
    pub pruned_hits: f64,
    /// Share of the requests that got fewer items than they asked for.
    pub short: f64,
}

/// How CORP does where the category head is right about the target, and where it is wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ByCategory {
    /// Share of the users whose likeliest category before the first token is the target's.
    pub accuracy: f64,
    /// NDCG@10 without CORP and with it at its default threshold, where the head is right.
    pub right: [f64; 2],
    /// The same where it is wrong.
    pub wrong: [f64; 2],
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reflection {
    /// Users that were ranked for.
    pub users: usize,
    /// Exact, draft, beam; and the beam with path heads of zero, which is to rank as the exact scorer does.
    pub engines: Vec<Tried>,
    /// Which codebook a path goes on with.
    pub orders: Vec<Tried>,
    /// CORP off and on.
    pub thresholds: Vec<Tried>,
    /// Whether the category head is what CORP lacks.
    pub category: ByCategory,
}

/// Ranks for the same users in every setting.
pub fn run(args: &ReflectArgs, narrator: &mut Narrator) -> anyhow::Result<Reflection> {
    let bundle = load(&args.bundle)?;
    let dataset = Dataset::read(&args.data)?;
    same_items(&bundle, &dataset)?;
    let trials = Split::new(&dataset).trials(match args.split {
        Held::Test => Part::Test,
        Held::Valid => Part::Valid,
    });
    let every = trials.len().div_ceil(args.users as usize).max(1);
    let trials: Vec<Trial> = trials.into_iter().step_by(every).collect();
    anyhow::ensure!(!trials.is_empty(), "no user has a target: leave-one-out wants at least three events of a user");

    let device = Default::default();
    let network = bundle.network::<Flex>(&device)?;
    let (sizes, index) = (&bundle.manifest.network, &bundle.index);
    let mut scorer = CpuScorer::new(&network, sizes.clone(), index.codes())?;
    let mut silent = CpuScorer::new(&network.with_silent_paths(), sizes.clone(), index.codes())?;
    let open = DecodeSettings { corp: false, ..DecodeSettings::default() };
    let mut measure = |scorer: &mut CpuScorer, setting: &str, settings: DecodeSettings, users: &[Trial]| {
        let tried = measure(scorer, index, setting, settings, users)?;
        narrator.say(&tried.to_string());
        anyhow::Ok(tried)
    };

    let by = |engine: Engine| DecodeSettings { engine, ..open.clone() };
    let engines = vec![
        measure(&mut scorer, "exact", by(Engine::Exact), &trials)?,
        measure(&mut scorer, "draft", by(Engine::Draft), &trials)?,
        measure(&mut scorer, "beam", open.clone(), &trials)?,
        measure(&mut silent, "beam, path heads zero", open.clone(), &trials)?,
    ];
    let mut orders = Vec::new();
    for (name, expansion) in [
        ("surest codebook (CRSS)", Expansion::Crss),
        ("first codebook", Expansion::Fixed),
        ("random codebook", Expansion::Random),
        ("every codebook (flat)", Expansion::Flat),
    ] {
        for beam in BEAMS {
            let settings = DecodeSettings { expansion, beam, ..open.clone() };
            orders.push(measure(&mut scorer, &format!("{name}, beam {beam}"), settings, &trials)?);
        }
    }
    let mut thresholds = Vec::new();
    for beam in BEAMS {
        let settings = DecodeSettings { beam, ..open.clone() };
        thresholds.push(measure(&mut scorer, &format!("beam {beam}, no CORP"), settings.clone(), &trials)?);
        for theta in THETAS {
            let settings = DecodeSettings { corp: true, theta, ..settings.clone() };
            thresholds.push(measure(&mut scorer, &format!("beam {beam}, theta {theta}"), settings, &trials)?);
        }
    }

    let (right, wrong) = by_belief(&mut scorer, index, &trials)?;
    let corp = DecodeSettings { corp: true, ..open.clone() };
    let mut both = |users: &[Trial]| -> anyhow::Result<[f64; 2]> {
        if users.is_empty() {
            return Ok([0.0; 2]);
        }
        let without = measure(&mut scorer, "no CORP", open.clone(), users)?.ndcg_at_10;
        Ok([without, measure(&mut scorer, "CORP", corp.clone(), users)?.ndcg_at_10])
    };
    let category =
        ByCategory { accuracy: right.len() as f64 / trials.len() as f64, right: both(&right)?, wrong: both(&wrong)? };
    Ok(Reflection { users: trials.len(), engines, orders, thresholds, category })
}

fn measure<M: PathModel>(
    model: &mut M,
    index: &Index,
    setting: &str,
    settings: DecodeSettings,
    trials: &[Trial],
) -> anyhow::Result<Tried> {
    let explain = settings.corp;
    let mut search = Search::new(model, index, settings);
    let mut tally = Tally::default();
    let (mut pruned, mut hits, mut short) = (0u64, 0u64, 0u64);
    for batch in trials.chunks(BATCH) {
        let questions: Vec<Question<'_>> = batch
            .iter()
            .map(|trial| Question { history: &trial.history, k: LIST.min(index.len()), exclude: &trial.seen })
            .collect();
        let outcomes = search.outcomes(&questions, explain).map_err(|error| anyhow!("{error}"))?;
        for (trial, outcome) in batch.iter().zip(outcomes) {
            tally.add(outcome.items.iter().position(|ranked| ranked.item == trial.target));
            pruned += u64::from(outcome.pruned);
            hits += outcome.pruned_items.iter().filter(|&&item| item == trial.target).count() as u64;
            short += u64::from(outcome.items.len() < LIST.min(index.len() - trial.seen.len()));
        }
    }
    let (users, scores) = (trials.len() as f64, tally.mean());
    Ok(Tried {
        setting: setting.to_owned(),
        recall_at_10: scores.recall_at_10,
        ndcg_at_10: scores.ndcg_at_10,
        pruned: pruned as f64 / users,
        pruned_hits: hits as f64 / pruned.max(1) as f64,
        short: short as f64 / users,
    })
}

/// The users whose target's category is the likeliest before the first token, and the others.
fn by_belief<M: PathModel>(model: &mut M, index: &Index, trials: &[Trial]) -> anyhow::Result<(Vec<Trial>, Vec<Trial>)> {
    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    for batch in trials.chunks(BATCH) {
        let histories: Vec<&History> = batch.iter().map(|trial| &trial.history).collect();
        model.encode(&histories).map_err(|error| anyhow!("encode: {error}"))?;
        let begin: Vec<Advance> = (0..batch.len()).map(|request| Advance { request, extends: None }).collect();
        let states = model.advance(&begin, true).map_err(|error| anyhow!("advance: {error}"))?;
        for (trial, state) in batch.iter().zip(states) {
            let beliefs = state.beliefs.iter().zip(0u32..);
            let likeliest = beliefs.fold((f32::MIN, 0), |best, (&p, at)| if p > best.0 { (p, at) } else { best }).1;
            let side = if index.class(trial.target) == likeliest { &mut right } else { &mut wrong };
            side.push(trial.clone());
        }
    }
    Ok((right, wrong))
}

impl fmt::Display for Tried {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:<32} {:.4} / {:.4}", self.setting, self.recall_at_10, self.ndcg_at_10)?;
        if self.pruned > 0.0 {
            write!(out, ", {:.2} paths ended, {:.2}% of them held the target", self.pruned, 100.0 * self.pruned_hits)?;
        }
        if self.short > 0.0 {
            write!(out, ", {:.2}% short", 100.0 * self.short)?;
        }
        Ok(())
    }
}

impl fmt::Display for Reflection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{} users, seen items filtered: recall@10 / ndcg@10", self.users)?;
        for (title, rows) in [("engines", &self.engines), ("orders", &self.orders), ("CORP", &self.thresholds)] {
            writeln!(out, "{title}")?;
            rows.iter().try_for_each(|tried| writeln!(out, "  {tried}"))?;
        }
        let ByCategory { accuracy, right, wrong } = self.category;
        writeln!(out, "category head: right before the first token for {:.1}% of the users", 100.0 * accuracy)?;
        writeln!(out, "  ndcg@10 there {:.4} without CORP, {:.4} with it", right[0], right[1])?;
        write!(out, "  ndcg@10 elsewhere {:.4} without CORP, {:.4} with it", wrong[0], wrong[1])
    }
}
