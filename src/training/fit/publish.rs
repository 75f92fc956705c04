//! What a fit made, as a bundle.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Context;
use serde_json::{json, to_value};

use super::calibrate::Calibration;
use crate::artifact::{
    BundleParts, DataFacts, Golden, GoldenAnswer, GoldenEvent, Manifest, TokenizerFacts, WarmupShape, publish as write,
};
use crate::catalog::Index;
use crate::decode::{DecodeSettings, PathModel};
use crate::evaluation::{Evaluation, Question, Search, Trial};
use crate::tokenizer::Fitted;
use crate::training::classes::Classes;
use crate::training::dataset::Dataset;
use crate::training::posttrain::PostTrained;
use crate::training::preset::{FitConfig, Preset};
use crate::training::pretrain::Pretrained;

/// Requests whose answers go into the bundle.
const GOLDEN: usize = 8;

/// What a fit made.
pub(super) struct Parts<'a> {
    pub name: String,
    pub dataset: &'a Dataset,
    pub classes: &'a Classes,
    pub config: &'a FitConfig,
    pub fitted: &'a Fitted,
    pub pretrained: &'a Pretrained,
    pub rewarded: Option<&'a PostTrained>,
    pub calibration: &'a Calibration,
    pub evaluation: &'a Evaluation,
    pub seconds: f64,
    pub preset: Preset,
    pub seed: u64,
}

/// Publishes the bundle at `out`; `index` is the catalogue that the network was trained on.
pub(super) fn publish<M: PathModel>(
    parts: Parts<'_>,
    out: &Path,
    network: &mut M,
    index: &Index,
    held_out: &[Trial],
) -> anyhow::Result<Manifest> {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock stands before 1970")?;
    let version = unix.as_secs().to_string();
    let mut manifest = Manifest::new(parts.name, version, parts.config.network.clone(), parts.classes.names.clone());
    manifest.data = DataFacts {
        fingerprint: parts.dataset.fingerprint.clone(),
        users: parts.dataset.user_ids.len() as u64,
        items: parts.dataset.items.len() as u64,
        interactions: parts.dataset.interactions() as u64,
    };
    manifest.training = json!({
        "preset": parts.preset,
        "seed": parts.seed,
        "seconds": parts.seconds.round(),
        "pretrain": parts.config.pretrain,
        "best_epoch": parts.pretrained.best_epoch,
        "epochs": parts.pretrained.reports,
    });
    if let (Some(rewarded), Some(config)) = (parts.rewarded, &parts.config.post_train) {
        manifest.training["post_train"] = rewarded.told(config);
    }
    // The quantiser's settings stand under its name, the features' beside them.
    let mut tokenizer = to_value(&parts.config.tokenizer)?;
    tokenizer["features"] = to_value(&parts.config.features)?;
    manifest.tokenizer = TokenizerFacts { config: tokenizer, diagnostics: to_value(&parts.fitted.diagnostics)? };
    manifest.decode = to_value(&parts.calibration.settings)?;
    manifest.metrics = json!({ "test": parts.evaluation, "calibration": parts.calibration });
    let golden = golden(network, index, held_out, &parts.calibration.settings)?;
    let content = BundleParts {
        weights: parts.pretrained.weights.clone(),
        codebooks: parts.fitted.tokenizer.to_bytes()?,
        items: index.items().collect(),
        codes: index.codes().clone(),
        golden,
        warmup: warmup(parts.config.network.max_history),
    };
    Ok(write(out, manifest, content)?)
}

/// Some held-out users' requests with the answers that this network gives now.
pub(in crate::training) fn golden<M: PathModel>(
    network: &mut M,
    index: &Index,
    held_out: &[Trial],
    settings: &DecodeSettings,
) -> anyhow::Result<Vec<Golden>> {
    let every = (held_out.len() / GOLDEN).max(1);
    let trials: Vec<&Trial> = held_out.iter().step_by(every).take(GOLDEN).collect();
    let questions: Vec<Question<'_>> =
        trials.iter().map(|trial| Question { history: &trial.history, k: 10.min(index.len()), exclude: &[] }).collect();
    let answers = Search::new(network, index, settings.clone())
        .answer(&questions)
        .map_err(|error| anyhow::anyhow!("golden answers: {error}"))?;
    let id = |item: u32| index.id(item).to_owned();
    trials
        .iter()
        .zip(answers)
        .map(|(trial, answers)| {
            Ok(Golden {
                history: trial
                    .history
                    .iter()
                    .map(|event| GoldenEvent { item_id: id(event.item), kind: event.kind, time: event.time })
                    .collect(),
                k: 10.min(index.len()),
                exclude_seen: false,
                settings: to_value(settings)?,
                answers: answers
                    .into_iter()
                    .map(|ranked| GoldenAnswer { item_id: id(ranked.item), score: ranked.score })
                    .collect(),
                tolerance: 1.0e-3,
            })
        })
        .collect()
}

fn warmup(max_history: usize) -> Vec<WarmupShape> {
    let mut histories: Vec<usize> = [8, 16, max_history].into_iter().filter(|&length| length <= max_history).collect();
    histories.dedup();
    let shapes = histories.iter().flat_map(|&history| [1, 8, 32].map(|batch| WarmupShape { batch, history }));
    shapes.collect()
}
