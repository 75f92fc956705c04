//! `post-train`: from a published bundle and its data to a bundle whose paths were rewarded.

use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use anyhow::Context;
use burn::backend::{Autodiff, Flex};
use clap::Args;
use serde_json::{json, to_value};

use super::PostTrainError;
use super::config::PostTrainConfig;
use super::learner::{PostTrained, PostTraining, RoundReport, post_train};
use crate::artifact::{BundleParts, LoadedBundle, check_target, load, publish, verify};
use crate::decode::DecodeSettings;
use crate::evaluation::{Evaluation, HEADLINE, Search, baselines, evaluate_with_places};
use crate::model::{CpuScorer, load_weights};
use crate::training::dataset::{Dataset, Part, Split};
use crate::training::evaluate::{Ranking, same_items};
use crate::training::fit::{Calibration, Fit, Narrator, Prepared, WorkDirectory, calibrate, golden};
use crate::training::preset::changed;
use crate::training::pretrain::TrainingSet;
use crate::training::record::{Bench, category_calibration, dataset_facts, record_machine};

/// `post-train`: from a bundle to one whose paths were rewarded.
#[derive(Debug, Clone, Args)]
pub struct PostTrainArgs {
    /// The bundle to begin from
    #[arg(long, value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Directory with interactions.parquet and items.parquet: the data that the bundle was trained on
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Directory to publish the new bundle as
    #[arg(long, value_name = "BUNDLE")]
    pub out: PathBuf,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Go on from where a killed run of the same bundle, data and settings stopped
    #[arg(long)]
    pub resume: bool,
    /// One setting instead of the default, such as `window=0` or `rewards.path=2`; may be given more than once
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Name of the new bundle; the old one's by default
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

/// Post-trains, evaluates and publishes.
pub fn run(args: &PostTrainArgs, narrator: &mut Narrator) -> anyhow::Result<Fit> {
    let started = Instant::now();
    let bundle = load(&args.bundle)?;
    let name = args.name.clone().unwrap_or_else(|| bundle.manifest.name.clone());
    check_target(&args.out, &name)?;
    let config: PostTrainConfig =
        changed(&PostTrainConfig { seed: args.seed, ..PostTrainConfig::default() }, &args.set)?;
    if let Err(wrong) = config.validate() {
        let all: Vec<String> = wrong.iter().map(|wrong| format!("{}: {}", wrong.field, wrong.description)).collect();
        anyhow::bail!("settings: {}", all.join("; "));
    }
    narrator.stage("data", &args.data.display().to_string());
    let dataset = Dataset::read(&args.data)?;
    same_items(&bundle, &dataset)?;
    let split = Split::new(&dataset);
    let prepared = Prepared::of(&dataset, split);
    let run = json!({ "bundle": bundle.manifest.digest, "data": dataset.fingerprint, "config": config });
    let work = WorkDirectory::open(&args.out, &run, args.resume)?;

    let device = Default::default();
    let network = &bundle.manifest.network;
    let training = TrainingSet::new(prepared.sequences.iter().map(Vec::as_slice), network.max_history);
    let held_out = prepared.held_out(config.validation_users);
    let task = PostTraining {
        network,
        weights: &bundle.weights,
        config: &config,
        index: &bundle.index,
        training: &training,
        held_out: &held_out,
        settings: &without_corp(),
        directory: &work.path().join("posttrain"),
        run: &run,
        resume: args.resume,
    };
    let trained = told_post_training(task, narrator)?;

    let weights = load_weights::<Flex>(network, trained.weights.clone(), &device)?;
    let mut scorer = CpuScorer::new(&weights, network.clone(), bundle.index.codes())?;
    narrator.stage("calibration", "on validation users");
    let calibration = calibrate(&mut scorer, &bundle.index, &held_out, Ranking::Beam)
        .map_err(|error| anyhow::anyhow!("calibration: {error}"))?;
    narrator.say(&calibration.to_string());
    let trials = split.trials(Part::Test);
    narrator.stage("evaluation", &format!("{} test users, full catalogue", trials.len()));
    let mut search = Search::new(&mut scorer, &bundle.index, calibration.settings.clone());
    let placed = evaluate_with_places(&mut search, &trials, bundle.index.len(), &mut |done| {
        narrator.counted(done, trials.len());
    })?;
    let evaluation = Evaluation {
        users: trials.len(),
        items: bundle.index.len(),
        scores: placed.scores,
        baselines: baselines(&split.train_items(), &trials, bundle.index.len())?,
    };

    narrator.stage("bundle", &args.out.display().to_string());
    let golden = golden(&mut scorer, &bundle.index, &held_out, &calibration.settings)?;
    let made = Made { name, trained, calibration: &calibration, evaluation: &evaluation, config: &config };
    let (manifest, parts) = made.bundle(&bundle, golden, started)?;
    let manifest = publish(&args.out, manifest, parts)?;
    verify(&args.out).context("the published bundle does not verify")?;
    work.remove()?;
    if let Some(path) = &args.record {
        let bench = Bench { dataset: dataset_facts(&args.data, &dataset), trials: &trials, counts: &prepared.counts };
        let names = (args.system.as_str(), args.group.as_str());
        let mut record = bench.bundle(names, &manifest, bundle.index.codes(), &placed)?;
        record.calibration = Some(category_calibration(&mut scorer, &bundle.index, &trials)?);
        record.settings["post_train"] = to_value(&config)?;
        record.seconds = Some(started.elapsed().as_secs_f64());
        record_machine(&mut record);
        record.write(path)?;
    }
    Ok(Fit { manifest, evaluation })
}

/// How validation searches: CORP is calibrated afterwards, as its threshold belongs to the beliefs that come out.
pub(in crate::training) fn without_corp() -> DecodeSettings {
    DecodeSettings { corp: false, ..DecodeSettings::default() }
}

/// Post-trains on the CPU and tells of every round.
pub(in crate::training) fn told_post_training(
    task: PostTraining<'_>,
    narrator: &mut Narrator,
) -> Result<PostTrained, PostTrainError> {
    let config = task.config;
    narrator.stage("post-training", &format!("{} rounds of {} steps at most", config.rounds, config.steps));
    let trained =
        post_train::<Autodiff<Flex>>(task, &Default::default(), &mut |report, _| narrator.say(&line(report)))?;
    narrator.say(&match trained.best_round {
        0 => "no round was better than the beginning: its weights stay".to_owned(),
        best => format!("best round {best}"),
    });
    Ok(trained)
}

impl PostTrained {
    /// Settings and rounds, as a manifest tells them.
    pub(in crate::training) fn told(&self, config: &PostTrainConfig) -> serde_json::Value {
        json!({ "config": config, "best_round": self.best_round, "rounds": self.reports })
    }
}

/// What post-training made.
struct Made<'a> {
    name: String,
    trained: PostTrained,
    calibration: &'a Calibration,
    evaluation: &'a Evaluation,
    config: &'a PostTrainConfig,
}

impl Made<'_> {
    /// The old bundle with new weights, settings and answers.
    fn bundle(
        self,
        old: &LoadedBundle,
        golden: Vec<crate::artifact::Golden>,
        started: Instant,
    ) -> anyhow::Result<(crate::artifact::Manifest, BundleParts)> {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock stands before 1970")?;
        let mut manifest = old.manifest.clone();
        manifest.parent = Some(old.manifest.label());
        manifest.name = self.name;
        manifest.version = unix.as_secs().to_string();
        manifest.created = String::new();
        manifest.training["post_train"] = self.trained.told(self.config);
        manifest.training["post_train"]["seconds"] = json!(started.elapsed().as_secs_f64().round());
        manifest.decode = to_value(&self.calibration.settings)?;
        manifest.metrics = json!({ "test": self.evaluation, "calibration": self.calibration });
        let parts = BundleParts {
            weights: self.trained.weights,
            codebooks: old.codebooks.clone(),
            items: old.index.items().collect(),
            codes: old.index.codes().clone(),
            golden,
            warmup: old.warmup.clone(),
        };
        Ok((manifest, parts))
    }
}

/// A round as a line for a person.
fn line(report: &RoundReport) -> String {
    let (rewards, validation) = (report.rewards, report.validation);
    if report.round == 0 {
        return format!(
            "begin: validation recall@10 {:.4}, ndcg@10 {:.4}",
            validation.recall_at_10, validation.ndcg_at_10
        );
    }
    format!(
        "round {:>2}: reward {:.4} (step {:.4}, category {:.4}, consistency {:.4}, path {:.4}), kl {:.4}, clipped {:.3}, \
         entropy {:.3}, paths {:.1}, supervised {:.3} {:.3} {:.3}; validation recall@10 {:.4}, ndcg@10 {:.4}; {:.0} + {:.0} s",
        report.round,
        report.reward,
        rewards.step,
        rewards.category,
        rewards.consistency,
        rewards.path,
        report.kl,
        report.clipped,
        report.entropy,
        report.paths,
        report.supervised.begin,
        report.supervised.steps,
        report.supervised.category,
        validation.recall_at_10,
        validation.ndcg_at_10,
        report.rollout_seconds,
        report.update_seconds,
    )
}
