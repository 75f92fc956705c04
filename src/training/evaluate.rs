//! `evaluate`: a published bundle on a data set's held-out events, with the baselines beside it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use burn::backend::Flex;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::dataset::{Dataset, Part, Split};
use super::record::{Bench, category_calibration, dataset_facts};
use crate::artifact::{LoadedBundle, load};
use crate::decode::{DecodeSettings, Engine, PathModel};
use crate::domain::ItemNumber;
use crate::evaluation::{Evaluation, HEADLINE, Question, Search, Trial, baselines, evaluate_with_places, event_counts};
use crate::model::CpuScorer;

/// `evaluate`: metrics of a bundle on a data set.
#[derive(Debug, Clone, Args)]
pub struct EvaluateArgs {
    /// The bundle's directory
    #[arg(long, value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Directory with interactions.parquet and items.parquet
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Which held-out events to rank for
    #[arg(long, value_enum, default_value = "test")]
    pub split: Held,
    /// What ranks the items; the bundle's own by default
    #[arg(long, value_enum)]
    pub engine: Option<Ranking>,
    /// Live paths kept a step, instead of the bundle's
    #[arg(long, value_name = "B")]
    pub beam: Option<usize>,
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub json: bool,
    /// Also write each user's first ten items, seen ones filtered and allowed, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub rankings: Option<PathBuf>,
    /// Also write a run record, as `report` reads them
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// What the record calls the system
    #[arg(long, value_name = "NAME", default_value = "reg4rec", requires = "record")]
    pub system: String,
    /// The comparison that the record belongs to
    #[arg(long, value_name = "NAME", default_value = HEADLINE, requires = "record")]
    pub group: String,
}

/// The held-out events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Held {
    /// Each user's last.
    Test,
    /// Each user's last but one.
    Valid,
}

/// What ranks the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ranking {
    /// The beam search.
    Beam,
    /// The exact scorer.
    Exact,
    /// The exact scorer's best, ranked anew along their paths.
    Draft,
}

impl From<Ranking> for Engine {
    fn from(ranking: Ranking) -> Self {
        match ranking {
            Ranking::Beam => Engine::Beam,
            Ranking::Exact => Engine::Exact,
            Ranking::Draft => Engine::Draft,
        }
    }
}

/// Evaluates; `progress` is told of users done and users in all.
pub fn run(args: &EvaluateArgs, progress: &mut dyn FnMut(usize, usize)) -> anyhow::Result<Evaluation> {
    ensure!(args.record.is_none() || args.split == Held::Test, "--record is of test targets: leave --split valid out");
    let bundle = load(&args.bundle)?;
    let dataset = Dataset::read(&args.data)?;
    same_items(&bundle, &dataset)?;
    let settings = settings(&bundle, args)?;
    let device = Default::default();
    let network = bundle.network::<Flex>(&device)?;
    let sizes = bundle.manifest.network.clone();
    let mut network = CpuScorer::new(&network, sizes, bundle.index.codes())?;
    let split = Split::new(&dataset);
    let trials = split.trials(match args.split {
        Held::Test => Part::Test,
        Held::Valid => Part::Valid,
    });
    let mut search = Search::new(&mut network, &bundle.index, settings.clone());
    if let Some(path) = &args.rankings {
        write_rankings(&mut search, &dataset, &trials, path)?;
    }
    let items = bundle.index.len();
    let placed = evaluate_with_places(&mut search, &trials, items, &mut |done| progress(done, trials.len()))?;
    let sequences = split.train_items();
    if let Some(path) = &args.record {
        let counts = event_counts(&sequences, items);
        let bench = Bench { dataset: dataset_facts(&args.data, &dataset), trials: &trials, counts: &counts };
        let names = (args.system.as_str(), args.group.as_str());
        let mut record = bench.bundle(names, &bundle.manifest, bundle.index.codes(), &placed)?;
        record.calibration = Some(category_calibration(&mut network, &bundle.index, &trials)?);
        record.settings["decode"] = serde_json::to_value(&settings)?;
        record.notes = vec![format!("Measured from the bundle {}; time is its fit's.", bundle.manifest.label())];
        record.write(path)?;
    }
    let baselines = baselines(&sequences, &trials, items)?;
    Ok(Evaluation { users: trials.len(), items, scores: placed.scores, baselines })
}

/// The bundle's decode settings with the command's own in their places.
fn settings(bundle: &LoadedBundle, args: &EvaluateArgs) -> anyhow::Result<DecodeSettings> {
    let mut settings: DecodeSettings = bundle.manifest.decode_as()?;
    if let Some(engine) = args.engine {
        settings.engine = engine.into();
    }
    settings.beam = args.beam.unwrap_or(settings.beam);
    settings.validate().map_err(|wrong| {
        let all: Vec<String> = wrong.iter().map(|wrong| format!("{}: {}", wrong.field, wrong.description)).collect();
        anyhow::anyhow!(all.join("; "))
    })?;
    Ok(settings)
}

/// Item numbers mean the same in both only when the items are the same, in the same order.
pub(super) fn same_items(bundle: &LoadedBundle, dataset: &Dataset) -> anyhow::Result<()> {
    let (ours, theirs) = (bundle.index.len(), dataset.items.len());
    ensure!(ours == theirs, "the bundle has {ours} items, the data set {theirs}: expected the same items");
    for (number, item) in dataset.items.iter().enumerate() {
        let known = bundle.index.id(number as ItemNumber);
        ensure!(*known == item.item.id, "item {number} is {known:?} in the bundle, {:?} in the data set", item.item.id);
    }
    Ok(())
}

fn write_rankings<M: PathModel>(
    search: &mut Search<'_, M>,
    dataset: &Dataset,
    trials: &[Trial],
    path: &std::path::Path,
) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("{}", path.display()))?;
    let mut out = BufWriter::new(file);
    for batch in trials.chunks(256) {
        let mut ask = |seen: bool| {
            let questions: Vec<Question<'_>> = batch
                .iter()
                .map(|trial| Question { history: &trial.history, k: 10, exclude: if seen { &[] } else { &trial.seen } })
                .collect();
            search.answer(&questions).map_err(|error| anyhow::anyhow!("{error}"))
        };
        let (filtered, all) = (ask(false)?, ask(true)?);
        let ids = |list: &[crate::decode::Ranked]| -> Vec<String> {
            list.iter().map(|ranked| dataset.items[ranked.item as usize].item.id.clone()).collect()
        };
        for ((trial, filtered), all) in batch.iter().zip(&filtered).zip(&all) {
            let line = json!({
                "user": dataset.user_ids[trial.user as usize],
                "filtered": ids(filtered),
                "all": ids(all),
            });
            writeln!(out, "{line}").with_context(|| format!("{}", path.display()))?;
        }
    }
    out.flush().with_context(|| format!("{}", path.display()))
}
