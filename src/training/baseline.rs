//! `baseline`: a rival system on a data set, learnt and ranked by the same code and on the same targets as REG4Rec.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use burn::backend::{Autodiff, Flex};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::dataset::{Dataset, Part, Split};
use super::fit::{Narrator, Prepared, WorkDirectory};
use super::preset::{FitConfig, Preset};
use super::pretrain::{ItemFeatures, Kernels, Lesson, Objective, PretrainConfig, Pretrained, TrainingSet, pretrain};
use super::record::{Bench, dataset_facts, epoch_points, record_machine};
use crate::catalog::Index;
use crate::domain::{CodeShape, CodeTable};
use crate::evaluation::{
    HEADLINE, ItemKnn, ItemKnnConfig, ItemScorer, Placed, Popular, Ranker, RunLabel, RunRecord, TokenSearch,
    evaluate_with_places, event_counts,
};
use crate::model::{NetworkConfig, load_weights};
use crate::tokenizer::{Quantiser, RqConfig};

/// Paths that a search over tokens keeps.
const BEAM: usize = 20;

/// `baseline`: trains and evaluates a rival.
#[derive(Debug, Clone, Args)]
pub struct BaselineArgs {
    /// Which
    #[arg(value_enum)]
    pub system: System,
    /// Directory with interactions.parquet and items.parquet
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Directory for checkpoints and the run record, `record.json`
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Passes over the data, instead of the recipe's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub epochs: Option<u16>,
    /// One setting instead of the recipe's, such as `network.dropout=0.3`; may be given more than once
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Go on from where a killed run of the same data, settings and seed stopped
    #[arg(long)]
    pub resume: bool,
}

/// The rivals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum System {
    /// The items with the most events
    Popular,
    /// Item-to-item neighbours
    ItemKnn,
    /// A transformer over items, full cross-entropy (Kang and McAuley 2018; the loss of later work)
    Sasrec,
    /// RQ-VAE tokens written in a fixed order (Rajput et al. 2023)
    Tiger,
    /// REG4Rec by the paper's plain reading: MPQ tokens and nothing else, each codebook by its own softmax, the surest first
    Codebook,
}

impl System {
    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            System::Popular => "popular",
            System::ItemKnn => "item-knn",
            System::Sasrec => "sasrec",
            System::Tiger => "tiger",
            System::Codebook => "codebook",
        }
    }
}

/// Learns, ranks the test targets, and writes the record.
pub fn run(args: &BaselineArgs, narrator: &mut Narrator) -> anyhow::Result<RunRecord> {
    let started = Instant::now();
    narrator.stage("data", &args.data.display().to_string());
    let dataset = Dataset::read(&args.data)?;
    let split = Split::new(&dataset);
    std::fs::create_dir_all(&args.out).with_context(|| format!("creating {}", args.out.display()))?;
    let items = dataset.items.len();
    let sequences = split.train_items();
    let (placed, learnt) = match args.system {
        System::Popular => (rank(&mut Popular::fit(&sequences, items), split, items, narrator)?, None),
        System::ItemKnn => {
            let mut ranker = ItemKnn::fit(&sequences, items, ItemKnnConfig::default());
            (rank(&mut ranker, split, items, narrator)?, None)
        }
        System::Sasrec | System::Tiger | System::Codebook => {
            let (placed, config, pretrained) = learn(args, &dataset, split, narrator)?;
            (placed, Some((config, pretrained)))
        }
    };

    let trials = split.trials(Part::Test);
    let counts = event_counts(&sequences, items);
    let bench = Bench { dataset: dataset_facts(&args.data, &dataset), trials: &trials, counts: &counts };
    let label =
        RunLabel { system: args.system.name().to_owned(), group: HEADLINE.to_owned(), preset: None, seed: args.seed };
    let mut record = bench.record(label, &placed);
    if let Some((config, pretrained)) = learnt {
        record.settings = json!(config);
        record.epochs = epoch_points(&pretrained.reports);
        record.best_epoch = Some(pretrained.best_epoch);
    }
    record.seconds = Some(started.elapsed().as_secs_f64());
    record_machine(&mut record);
    record.write(&args.out.join("record.json"))?;
    Ok(record)
}

/// A network: the same encoder, optimiser and loop as REG4Rec's, with the items and the objective of the rival.
fn learn(
    args: &BaselineArgs,
    dataset: &Dataset,
    split: Split<'_>,
    narrator: &mut Narrator,
) -> anyhow::Result<(Placed, FitConfig, Pretrained)> {
    let prepared = Prepared::of(dataset, split);
    let mut config = Preset::Standard.config(dataset.items.len(), prepared.categories(), prepared.targets, args.seed);
    // Tokens and checkpoints of another system, data set or seed must not be taken for this run's.
    let run = json!({ "data": dataset.fingerprint, "system": args.system.name(), "seed": args.seed, "epochs": args.epochs, "set": args.set });
    let work = WorkDirectory::at(args.out.join("work"), &run, args.resume)?;
    if args.system == System::Tiger {
        let entries = config.network.codes.entries;
        config.tokenizer = Quantiser::Rq(RqConfig { entries, seed: args.seed, ..RqConfig::default() });
        // TIGER's tokens are of what an item is, not of who took it.
        config.features.behaviour.enabled = false;
    }
    let codes = match args.system {
        System::Tiger | System::Codebook => {
            let table = prepared.features(&config, narrator)?;
            prepared.tokens(&table, &config, work.path(), narrator)?.codes
        }
        _ => CodeTable::new(CodeShape { codebooks: 1, entries: 2 }, vec![0; dataset.items.len()])
            .map_err(|wrong| anyhow::anyhow!("{wrong}"))?,
    };
    (config.network, config.pretrain) = recipe(args, &config, codes.shape());
    config = config.with(&args.set)?;
    let index = prepared.index(codes)?;

    narrator.stage("training", &format!("{}, {} epochs at most", args.system.name(), config.pretrain.epochs));
    let device = Default::default();
    let training = TrainingSet::new(prepared.sequences.iter().map(Vec::as_slice), config.network.max_history);
    let held_out = prepared.held_out(config.pretrain.validation_users);
    let lesson = Lesson {
        network: &config.network,
        start: None,
        config: &config.pretrain,
        index: &index,
        training: &training,
        held_out: &held_out,
        features: ItemFeatures { rows: &[], width: 0, of_the_past: &[] },
        kernels: Kernels::Host,
        directory: &work.path().join("pretrain"),
        run: &json!({ "data": dataset.fingerprint, "system": args.system.name(), "config": config }),
        resume: args.resume,
    };
    let pretrained = pretrain::<Autodiff<Flex>>(lesson, &device, &mut |progress| narrator.pretraining(progress))?;
    let placed = rank_network(args, &config, &index, &pretrained, split, narrator)?;
    Ok((placed, config, pretrained))
}

/// What differs from REG4Rec's settings.
fn recipe(args: &BaselineArgs, config: &FitConfig, codes: CodeShape) -> (NetworkConfig, PretrainConfig) {
    let network = NetworkConfig { codes, feature_width: 0, ..config.network.clone() };
    let pretrain = PretrainConfig { path_weight: 0.0, newcomers: 0.0, ..config.pretrain.clone() };
    let objective = if args.system == System::Codebook { Objective::AnyOrder } else { Objective::FixedOrder };
    let (network, mut pretrain) = match args.system {
        // Width 64, two layers, dropout one half, a constant rate: what a PyTorch run of the same data did best with.
        System::Sasrec => (
            NetworkConfig { reads_codes: false, width: 64, feed_forward: 64, dropout: 0.5, ..network },
            PretrainConfig { learning_rate: 1.0e-3, decays: false, epochs: 80, patience: 8, ..pretrain },
        ),
        _ => (
            NetworkConfig { own_residuals: false, decoder_layers: 2, dropout: 0.1, ..network },
            PretrainConfig { objective, epochs: 20, validation_users: 2_000, ..pretrain },
        ),
    };
    if let Some(epochs) = args.epochs {
        pretrain.epochs = usize::from(epochs);
    }
    (network, pretrain)
}

fn rank_network(
    args: &BaselineArgs,
    config: &FitConfig,
    index: &Index,
    pretrained: &Pretrained,
    split: Split<'_>,
    narrator: &mut Narrator,
) -> anyhow::Result<Placed> {
    let device = Default::default();
    let network = load_weights::<Flex>(&config.network, pretrained.weights.clone(), &device)?;
    let (codes, name) = (index.codes(), args.system.name());
    if let Some(order) = config.pretrain.objective.token_order() {
        let mut search = TokenSearch::new(network, config.network.clone(), codes, order, BEAM, device);
        return rank(&mut search, split, index.len(), narrator);
    }
    rank(&mut ItemScorer::new(name, network, &config.network, codes, device), split, index.len(), narrator)
}

fn rank(ranker: &mut dyn Ranker, split: Split<'_>, items: usize, narrator: &mut Narrator) -> anyhow::Result<Placed> {
    let trials = split.trials(Part::Test);
    narrator.stage("evaluation", &format!("{} test users, full catalogue", trials.len()));
    Ok(evaluate_with_places(ranker, &trials, items, &mut |done| narrator.counted(done, trials.len()))?)
}
