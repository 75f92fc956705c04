//! From a data set to a verified bundle, a stage a line; what a stage made is kept until the end, so that a killed run
//! goes on from there.

mod calibrate;
mod prepare;
mod progress;
mod publish;
mod tokens;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use burn::backend::{Autodiff, Flex};
use clap::Args;
use serde_json::json;

use super::dataset::{Dataset, Part, Split};
use super::evaluate::Ranking;
use super::newcomers::Arrival;
use super::posttrain::{PostTrainConfig, PostTraining, told_post_training, without_corp};
use super::preset::{FitConfig, Preset};
use super::pretrain::{ItemFeatures, Kernels, Lesson, TrainingSet, pretrain};
use super::record::{Bench, category_calibration, dataset_facts, record_machine};
use crate::artifact::{Manifest, check_target, verify};
use crate::evaluation::{Evaluation, HEADLINE, Search, baselines, evaluate_with_places};
use crate::model::{CpuScorer, load_weights, save_weights};
use crate::tokenizer::Likeness;

pub(in crate::training) use calibrate::{Calibration, calibrate, filtered};
pub use prepare::Prepared;
pub use progress::Narrator;
pub(in crate::training) use publish::golden;
pub(crate) use tokens::{columns_of_the_past, source as item_source};

/// `fit`: from a data set to a bundle.
#[derive(Debug, Clone, Args)]
pub struct FitArgs {
    /// Directory with interactions.parquet and items.parquet
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Directory to publish the bundle as
    #[arg(long, value_name = "BUNDLE")]
    pub out: PathBuf,
    /// How much effort
    #[arg(long, value_enum, default_value = "quick")]
    pub preset: Preset,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Go on from where a killed run of the same data, preset and seed stopped
    #[arg(long)]
    pub resume: bool,
    /// How the bundle answers; the beam's CORP is calibrated on validation users, the exact scorer needs nothing
    #[arg(long, value_enum, default_value = "beam")]
    pub engine: Ranking,
    /// Reward paths after pre-training (PARS), as the command post-train does; its settings stand under `post_train`
    #[arg(long)]
    pub post_train: bool,
    /// Passes over the data, instead of the preset's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub epochs: Option<u16>,
    /// One setting instead of the preset's, such as `pretrain.newcomers=0.2`; may be given more than once
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Name of the bundle; the output directory's by default
    #[arg(long)]
    pub name: Option<String>,
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

/// What a fit came to.
#[derive(Debug)]
pub struct Fit {
    /// Of the published bundle.
    pub manifest: Manifest,
    /// On the test part.
    pub evaluation: Evaluation,
}

/// Runs the whole fit and publishes the bundle.
pub fn fit(args: &FitArgs, narrator: &mut Narrator) -> anyhow::Result<Fit> {
    let started = Instant::now();
    let name = bundle_name(args)?;
    check_target(&args.out, &name)?;
    narrator.stage("data", &args.data.display().to_string());
    let dataset = Dataset::read(&args.data)?;
    let split = Split::new(&dataset);
    narrator.say(&format!(
        "{} users, {} items, {} events",
        dataset.user_ids.len(),
        dataset.items.len(),
        dataset.interactions()
    ));
    let prepared = Prepared::of(&dataset, split);
    let preset = args.preset.config(dataset.items.len(), prepared.categories(), prepared.targets, args.seed);
    let post_train = args.post_train.then(|| PostTrainConfig { seed: args.seed, ..PostTrainConfig::default() });
    let mut config = FitConfig { post_train, ..preset }.with(&args.set)?;
    if let Some(epochs) = args.epochs {
        config.pretrain.epochs = usize::from(epochs);
    }
    narrator.stage("features", "content, behaviour, category, brand, price");
    let table = prepared.features(&config, narrator)?;
    if config.network.feature_width > 0 {
        config.network.feature_width = table.width;
    }
    let run = json!({ "data": dataset.fingerprint, "config": config });
    let work = WorkDirectory::open(&args.out, &run, args.resume)?;
    let fitted = prepared.tokens(&table, &config, work.path(), narrator)?;
    config.network.codes = fitted.codes.shape();
    let index = prepared.index(fitted.codes.clone())?;

    narrator.stage("pre-training", &format!("{} epochs at most", config.pretrain.epochs));
    let device = Default::default();
    let training = TrainingSet::new(prepared.sequences.iter().map(Vec::as_slice), config.network.max_history);
    let held_out = prepared.held_out(config.pretrain.validation_users);
    let past = tokens::columns_of_the_past(&table);
    let lesson = Lesson {
        network: &config.network,
        start: None,
        config: &config.pretrain,
        index: &index,
        training: &training,
        held_out: &held_out,
        features: ItemFeatures { rows: &table.rows, width: table.width, of_the_past: &past },
        kernels: Kernels::Host,
        directory: &work.path().join("pretrain"),
        run: &run,
        resume: args.resume,
    };
    let mut pretrained = pretrain::<Autodiff<Flex>>(lesson, &device, &mut |progress| narrator.pretraining(progress))?;
    narrator.say(&format!("best epoch {}", pretrained.best_epoch + 1));

    let network = load_weights::<Flex>(&config.network, pretrained.weights.clone(), &device)?;
    let network = if config.network.own_residuals {
        let (known, newcomers): (Vec<u32>, Vec<u32>) =
            (0..index.len() as u32).partition(|&item| prepared.counts[item as usize] > 0);
        narrator
            .say(&format!("{} items without a training event start from the items likest to them", newcomers.len()));
        let likeness = |items: &[u32]| Likeness::of(&table, items.iter().map(|&item| item as usize));
        let arrival = Arrival {
            config: &config.network,
            codes: index.codes(),
            known: (&known, &likeness(&known)),
            newcomers: (&newcomers, &likeness(&newcomers)),
            histories: &held_out,
        };
        arrival.settle(network, config.launch, &device)?
    } else {
        network
    };
    pretrained.weights = save_weights(&network)?;
    let rewarded = match &config.post_train {
        None => None,
        Some(settings) => {
            let task = PostTraining {
                network: &config.network,
                weights: &pretrained.weights,
                config: settings,
                index: &index,
                training: &training,
                held_out: &held_out,
                settings: &without_corp(),
                directory: &work.path().join("posttrain"),
                run: &run,
                resume: args.resume,
            };
            Some(told_post_training(task, narrator)?)
        }
    };
    if let Some(rewarded) = &rewarded {
        pretrained.weights = rewarded.weights.clone();
    }
    let network = load_weights::<Flex>(&config.network, pretrained.weights.clone(), &device)?;
    let mut network = CpuScorer::new(&network, config.network.clone(), index.codes())?;
    narrator.stage("calibration", "on validation users");
    let calibration = calibrate(&mut network, &index, &held_out, args.engine)
        .map_err(|error| anyhow::anyhow!("calibration: {error}"))?;
    narrator.say(&calibration.to_string());

    let trials = split.trials(Part::Test);
    narrator.stage("evaluation", &format!("{} test users, full catalogue", trials.len()));
    let mut search = Search::new(&mut network, &index, calibration.settings.clone());
    let placed =
        evaluate_with_places(&mut search, &trials, index.len(), &mut |done| narrator.counted(done, trials.len()))?;
    let evaluation = Evaluation {
        users: trials.len(),
        items: index.len(),
        scores: placed.scores,
        baselines: baselines(&split.train_items(), &trials, index.len())?,
    };

    narrator.stage("bundle", &args.out.display().to_string());
    let parts = publish::Parts {
        name,
        dataset: &dataset,
        classes: &prepared.classes,
        config: &config,
        fitted: &fitted,
        pretrained: &pretrained,
        rewarded: rewarded.as_ref(),
        calibration: &calibration,
        evaluation: &evaluation,
        seconds: started.elapsed().as_secs_f64(),
        preset: args.preset,
        seed: args.seed,
    };
    let manifest = publish::publish(parts, &args.out, &mut network, &index, &held_out)?;
    verify(&args.out).context("the published bundle does not verify")?;
    work.remove()?;
    if let Some(path) = &args.record {
        let bench = Bench { dataset: dataset_facts(&args.data, &dataset), trials: &trials, counts: &prepared.counts };
        let names = (args.system.as_str(), args.group.as_str());
        let mut record = bench.bundle(names, &manifest, index.codes(), &placed)?;
        // The exact scorer asks no category.
        if args.engine != Ranking::Exact {
            record.calibration = Some(category_calibration(&mut network, &index, &trials)?);
        }
        record_machine(&mut record);
        record.write(path)?;
    }
    Ok(Fit { manifest, evaluation })
}

/// The name that was given, or the output directory's with what a bundle's name cannot hold replaced by `-`.
fn bundle_name(args: &FitArgs) -> anyhow::Result<String> {
    if let Some(name) = &args.name {
        return Ok(name.clone());
    }
    let out = std::path::absolute(&args.out).with_context(|| format!("--out {}", args.out.display()))?;
    let name = out.file_name().with_context(|| format!("--out {}: expected a directory", args.out.display()))?;
    let letter = |letter: char| match letter.to_ascii_lowercase() {
        kept @ ('a'..='z' | '0'..='9' | '.' | '_' | '-') => kept,
        _ => '-',
    };
    let name: String = name.to_string_lossy().trim_start_matches('.').chars().map(letter).take(64).collect();
    Ok(if name.is_empty() { "bundle".to_owned() } else { name })
}

/// Where an unfinished run keeps what it made: beside the bundle, removed once that is published.
#[derive(Debug)]
pub(crate) struct WorkDirectory {
    path: PathBuf,
}

impl WorkDirectory {
    /// Opens the directory beside `out`. Without `resume`, or when it belongs to another run, it is emptied.
    pub(crate) fn open(out: &Path, run: &serde_json::Value, resume: bool) -> anyhow::Result<Self> {
        let mut name = out.file_name().with_context(|| format!("--out {}: no directory", out.display()))?.to_owned();
        name.push(".fit");
        Self::at(out.with_file_name(name), run, resume)
    }

    /// The same at `path` itself.
    pub(crate) fn at(path: PathBuf, run: &serde_json::Value, resume: bool) -> anyhow::Result<Self> {
        let marker = path.join("run.json");
        // Held against each other as text: a number that is read back may differ in its last bit.
        let run = serde_json::to_vec_pretty(run)?;
        let same = resume && std::fs::read(&marker).is_ok_and(|found| found == run);
        if !same && path.exists() {
            std::fs::remove_dir_all(&path).with_context(|| format!("emptying {}", path.display()))?;
        }
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        std::fs::write(&marker, run).with_context(|| format!("{}", marker.display()))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn remove(self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(&self.path).with_context(|| format!("removing {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(out: &str) -> String {
        let preset = Preset::Quick;
        let args = FitArgs {
            data: "data".into(),
            out: out.into(),
            preset,
            seed: 1,
            resume: false,
            engine: Ranking::Beam,
            post_train: false,
            epochs: None,
            set: Vec::new(),
            name: None,
            record: None,
            system: "reg4rec".into(),
            group: HEADLINE.into(),
        };
        bundle_name(&args).unwrap()
    }

    #[test]
    fn any_directory_gives_a_name_that_a_bundle_can_carry() {
        assert_eq!(name("runs/beauty"), "beauty");
        assert_eq!(name("/tmp/tmp.XaB9 ü/"), "tmp.xab9--");
        assert_eq!(name("/tmp/.hidden"), "hidden");
        let home = tempfile::tempdir().unwrap();
        for odd in ["/tmp/tmp.XaB9 ü", "/tmp/...", "/tmp/ÄÖ"] {
            check_target(&home.path().join("new"), &name(odd)).unwrap();
        }
    }

    #[test]
    fn a_place_of_other_files_is_refused_before_the_work() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("letter.txt"), "dear").unwrap();
        assert!(check_target(home.path(), "name").unwrap_err().to_string().contains("letter.txt"));
        assert!(check_target(&home.path().join("new"), "Name").unwrap_err().to_string().contains("expected 1 to 64"));
    }
}
