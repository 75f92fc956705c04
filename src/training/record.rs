//! Run records of what the trainer makes: what data sets, bundles and rankers know, put where a report finds it.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::dataset::Dataset;
use super::pretrain::EpochReport;
use crate::artifact::Manifest;
use crate::catalog::Index;
use crate::decode::{Advance, PathModel};
use crate::domain::{CodeTable, History};
use crate::evaluation::{
    CategoryCalibration, DatasetFacts, EpochPoint, EvaluationError, Machine, Placed, Ranker, RunLabel, RunRecord,
    Slices, TokenUse, Trial, evaluate_with_places, peak_memory_bytes,
};
use crate::tokenizer::Diagnostics;

/// The test targets of a data set, and what cutting them into slices takes: the same for every system.
#[derive(Debug, Clone)]
pub struct Bench<'a> {
    /// The data.
    pub dataset: DatasetFacts,
    /// Its test trials.
    pub trials: &'a [Trial],
    /// Training events of every item.
    pub counts: &'a [u32],
}

impl Bench<'_> {
    /// The record of a ranker that was asked about the trials: names, scores and slices.
    pub fn record(&self, label: RunLabel, placed: &Placed) -> RunRecord {
        let slices = Slices::of(self.trials, &placed.places, self.counts);
        RunRecord::new(label, self.dataset.clone(), placed, slices)
    }

    /// Asks `ranker` about the trials and records what it came to, with machine, memory and the time since `started`.
    pub fn measure(
        &self,
        label: RunLabel,
        ranker: &mut dyn Ranker,
        started: Instant,
    ) -> Result<RunRecord, EvaluationError> {
        let placed = evaluate_with_places(ranker, self.trials, self.dataset.items, &mut |_| ())?;
        let mut record = self.record(label, &placed);
        record.seconds = Some(started.elapsed().as_secs_f64());
        record_machine(&mut record);
        Ok(record)
    }

    /// The record of a bundle whose network was asked about the trials: how it learnt and how its tokens are used are
    /// taken from its manifest and `codes`. Names the field where the manifest is not as a fit writes it.
    pub fn bundle(
        &self,
        (system, group): (&str, &str),
        manifest: &Manifest,
        codes: &CodeTable,
        placed: &Placed,
    ) -> anyhow::Result<RunRecord> {
        let training = &manifest.training;
        let label = RunLabel {
            system: system.to_owned(),
            group: group.to_owned(),
            preset: field(training, "preset")?,
            seed: field(training, "seed")?.unwrap_or_default(),
        };
        let mut record = self.record(label, placed);
        record.epochs = epoch_points(&field::<Vec<EpochReport>>(training, "epochs")?.unwrap_or_default());
        record.best_epoch = field(training, "best_epoch")?;
        record.seconds = field(training, "seconds")?;
        let diagnostics: Option<Diagnostics> = match &manifest.tokenizer.diagnostics {
            Value::Null => None,
            found => Some(parsed(found, "tokenizer.diagnostics")?),
        };
        record.tokens = Some(token_use(codes, diagnostics.as_ref()));
        record.settings = json!({
            "network": manifest.network,
            "pretrain": training.get("pretrain"),
            "tokenizer": manifest.tokenizer.config,
            "decode": manifest.decode,
        });
        Ok(record)
    }
}

/// How well the category head knows its own mind: what it believes before the first token, held against the categories of
/// the trials' targets.
pub fn category_calibration<M: PathModel>(
    network: &mut M,
    index: &Index,
    trials: &[Trial],
) -> anyhow::Result<CategoryCalibration> {
    let mut pairs = Vec::with_capacity(trials.len());
    for batch in trials.chunks(256) {
        let histories: Vec<&History> = batch.iter().map(|trial| &trial.history).collect();
        network.encode(&histories).map_err(|error| anyhow::anyhow!("encode: {error}"))?;
        let begin: Vec<Advance> = (0..batch.len()).map(|request| Advance { request, extends: None }).collect();
        let states = network.advance(&begin, true).map_err(|error| anyhow::anyhow!("advance: {error}"))?;
        for (trial, state) in batch.iter().zip(states) {
            let beliefs = state.beliefs.iter().copied().zip(0u32..);
            let (belief, category) = beliefs.fold((0.0, 0), |best, next| if next.0 > best.0 { next } else { best });
            pairs.push((belief, index.class(trial.target) == category));
        }
    }
    CategoryCalibration::of(&pairs).map_err(|wrong| anyhow::anyhow!("category calibration: {wrong}"))
}

/// What a data set is called by its directory, and its size.
pub fn dataset_facts(directory: &Path, dataset: &Dataset) -> DatasetFacts {
    // A path such as `.` has no name of its own.
    let whole = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let name = whole.file_name().map_or_else(|| "data".into(), |name| name.to_string_lossy());
    DatasetFacts { name: name.into_owned(), users: dataset.user_ids.len(), items: dataset.items.len() }
}

/// The epochs of a pre-training as records have them.
pub fn epoch_points(reports: &[EpochReport]) -> Vec<EpochPoint> {
    let point = |report: &EpochReport| EpochPoint {
        epoch: report.epoch,
        scorer_loss: f64::from(report.losses.scorer),
        recall_at_10: report.validation.recall_at_10,
        ndcg_at_10: report.validation.ndcg_at_10,
        seconds: report.seconds,
        sequences_per_second: report.sequences_per_second,
    };
    reports.iter().map(point).collect()
}

/// How the items use `codes`, with what only the fit knows where `diagnostics` tell.
pub fn token_use(codes: &CodeTable, diagnostics: Option<&Diagnostics>) -> TokenUse {
    let mut tokens = TokenUse::of(codes);
    tokens.distinct_codes_before = diagnostics.map(|found| found.distinct_codes);
    let left = |found: &Diagnostics| f64::from(found.assigned_error) / f64::from(found.baseline_error);
    tokens.variance_left = diagnostics.map(left).filter(|left| left.is_finite());
    tokens
}

/// Notes this machine and the most memory that this process has held so far.
pub fn record_machine(record: &mut RunRecord) {
    record.machine = Machine::here();
    record.peak_memory_bytes = peak_memory_bytes();
}

fn field<T: DeserializeOwned>(training: &Value, name: &str) -> anyhow::Result<Option<T>> {
    training.get(name).map(|found| parsed(found, &format!("training.{name}"))).transpose()
}

fn parsed<T: DeserializeOwned>(found: &Value, field: &str) -> anyhow::Result<T> {
    T::deserialize(found).with_context(|| format!("the bundle's manifest: {field}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CodeShape, HistoryEntry};
    use crate::evaluation::Popular;
    use crate::training::preset::Preset;
    use crate::training::pretrain::{Losses, ValidationScores};

    fn trials() -> Vec<Trial> {
        let history = vec![HistoryEntry { item: 0, kind: Default::default(), time: 0 }];
        (1..4).map(|target| Trial { user: target, history: history.clone(), seen: vec![0], target }).collect()
    }

    fn facts() -> DatasetFacts {
        DatasetFacts { name: "shop".into(), users: 5, items: 4 }
    }

    #[test]
    fn a_measured_ranker_gives_a_whole_record() {
        let (trials, counts) = (trials(), [2, 2, 1, 0]);
        let bench = Bench { dataset: facts(), trials: &trials, counts: &counts };
        let label = RunLabel { system: "popular".into(), group: "headline".into(), preset: None, seed: 0 };
        let mut popular = Popular::fit(&[vec![0, 1], vec![0, 1, 2]], 4);
        let record = bench.measure(label, &mut popular, Instant::now()).unwrap();
        assert_eq!((record.trials, record.test.filtered.recall_at_5), (3, 1.0));
        assert_eq!(record.slices.as_ref().unwrap().popularity[10].trials, 1);
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("popular.json");
        record.write(&path).unwrap();
        assert_eq!(RunRecord::read(&path).unwrap(), record);
    }

    #[test]
    fn a_bundles_manifest_tells_how_it_learnt() {
        let report = EpochReport {
            ladq: None,
            epoch: 0,
            losses: Losses { scorer: 8.0, ..Losses::default() },
            validation: ValidationScores { recall_at_10: 0.25, ndcg_at_10: 0.125 },
            seconds: 3.0,
            sequences_per_second: 100.0,
        };
        let shape = CodeShape { codebooks: 2, entries: 4 };
        let network = Preset::Quick.config(4, 1, 6, 1).network;
        let mut manifest = Manifest::new("shop", "1", network, vec!["all".into()]);
        manifest.training = json!({"preset": "quick", "seed": 7, "seconds": 12.0, "best_epoch": 0, "epochs": [report]});
        let (trials, counts) = (trials(), [2, 2, 1, 0]);
        let bench = Bench { dataset: facts(), trials: &trials, counts: &counts };
        let placed = Placed { scores: Default::default(), places: vec![None; 3] };
        let codes = CodeTable::new(shape, vec![0, 1, 2, 3, 0, 1, 1, 1]).unwrap();
        let record = bench.bundle(("reg4rec", "headline"), &manifest, &codes, &placed).unwrap();
        assert_eq!((record.preset.as_deref(), record.seed, record.seconds), (Some("quick"), 7, Some(12.0)));
        assert_eq!((record.epochs[0].recall_at_10, record.best_epoch), (0.25, Some(0)));
        assert_eq!(record.tokens.unwrap().distinct_codes, 3);
        manifest.training = json!({"epochs": "many"});
        let told = bench.bundle(("reg4rec", "headline"), &manifest, &codes, &placed).unwrap_err();
        assert!(format!("{told:#}").contains("training.epochs"), "{told:#}");
    }
}
