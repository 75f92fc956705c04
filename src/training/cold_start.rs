//! `cold-start`: how well items are recommended that nobody had taken when the network learnt.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{Tensor, TensorData};
use clap::Args;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::dataset::{Dataset, Part, Split};
use super::fit::{Narrator, Prepared, WorkDirectory, columns_of_the_past, item_source};
use super::newcomers::{Arrival, Launch};
use super::preset::Preset;
use super::pretrain::{ItemFeatures, Kernels, Lesson, TrainingSet, pretrain};
use super::record::{Bench, dataset_facts, epoch_points, record_machine};
use crate::catalog::{CatalogItem, Index};
use crate::decode::{DecodeSettings, Engine};
use crate::domain::CodeTable;
use crate::evaluation::{
    ContentKnn, Placed, Popular, Ranker, RunLabel, RunRecord, Search, Trial, evaluate_with_places, event_counts,
};
use crate::model::{CpuScorer, NetworkConfig, load_weights};
use crate::tokenizer::{FeatureTable, ItemSource, Likeness, Modality};

/// Weights of an event to the one after it that content-kNN tries; the best on these very targets is kept, in its favour.
const DECAYS: [f32; 4] = [0.25, 0.5, 0.75, 1.0];

/// The comparison among users who took a newcomer next.
const NEWCOMERS: &str = "cold-start";

/// The comparison among users who took a known item: what the newcomers cost it.
const KNOWN: &str = "cold-start, known targets";

/// `cold-start`: holds items out of training, adds them by their features alone, and ranks for users who took one next.
#[derive(Debug, Clone, Args)]
pub struct ColdStartArgs {
    /// Directory with interactions.parquet and items.parquet
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Directory for checkpoints and run records
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How much effort
    #[arg(long, value_enum, default_value = "standard")]
    pub preset: Preset,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Share of the items that is held out
    #[arg(long, default_value_t = 0.1)]
    pub share: f64,
    /// What a newcomer's score gets on top, in nats; a fit's own is `launch.boost`, 0 unless set
    #[arg(long, default_value_t = 0.5)]
    pub boost: f32,
    /// One setting instead of the preset's; may be given more than once
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Go on from where a killed run stopped
    #[arg(long)]
    pub resume: bool,
}

/// Learns without the items held out, adds them, ranks all items for the users whose test target is one of them (and, to see
/// what that costs, for the others); a record a system, REG4Rec's beam search first.
pub fn run(args: &ColdStartArgs, narrator: &mut Narrator) -> anyhow::Result<Vec<RunRecord>> {
    anyhow::ensure!(args.share > 0.0 && args.share < 1.0, "--share {}: expected between 0 and 1", args.share);
    let started = Instant::now();
    narrator.stage("data", &args.data.display().to_string());
    let dataset = Dataset::read(&args.data)?;
    let (all, warm, known) = hold_out(&dataset, args)?;
    let split = Split::new(&warm);
    narrator.say(&format!("{} of {} items held out", all.items.len() - known, all.items.len()));

    let prepared = Prepared::of(&warm, split);
    let mut config = args.preset.config(known, prepared.categories(), prepared.targets, args.seed).with(&args.set)?;
    let table = prepared.features(&config, narrator)?;
    if config.network.feature_width > 0 {
        config.network.feature_width = table.width;
    }
    let run = json!({ "data": warm.fingerprint, "config": config });
    // Tokens and checkpoints of other items, settings or seeds must not be taken for this run's.
    let work = WorkDirectory::at(args.out.join("work"), &run, args.resume)?;
    let fitted = prepared.tokens(&table, &config, work.path(), narrator)?;
    config.network.codes = fitted.codes.shape();
    let past = columns_of_the_past(&table);
    let index = prepared.index(fitted.codes.clone())?;
    narrator.stage("pre-training", &format!("{} epochs at most", config.pretrain.epochs));
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
        features: ItemFeatures { rows: &table.rows, width: table.width, of_the_past: &past },
        kernels: Kernels::Host,
        directory: &work.path().join("pretrain"),
        run: &run,
        resume: args.resume,
    };
    let pretrained = pretrain::<Autodiff<Flex>>(lesson, &device, &mut |progress| narrator.pretraining(progress))?;

    narrator.stage("newcomers", "tokens and residuals from features alone");
    let sources: Vec<ItemSource<'_>> = all.items[known..].iter().map(item_source).collect();
    let newcomers = table.model.rows(&sources)?;
    let codes = joined(&fitted.codes, &fitted.tokenizer.tokenize(&newcomers)?)?;
    let grown = NetworkConfig { items: all.items.len(), ..config.network.clone() };
    let everything = grown_index(&index, &all, codes)?;

    let trials = Split::new(&all).trials(Part::Test);
    let (trials, others): (Vec<Trial>, Vec<Trial>) =
        trials.into_iter().partition(|trial| trial.target as usize >= known);
    let sequences: Vec<Vec<u32>> = split.train_items();
    let counts = event_counts(&sequences, all.items.len());
    narrator.stage("evaluation", &format!("{} test users whose target was held out", trials.len()));
    let label = |system: &str, group: &str| RunLabel {
        system: system.to_owned(),
        group: group.to_owned(),
        preset: None,
        seed: args.seed,
    };
    let taken: Vec<u32> = (0..known as u32).filter(|&item| prepared.counts[item as usize] > 0).collect();
    let arrived: Vec<u32> = (known as u32..all.items.len() as u32).collect();
    let likeness =
        (Likeness::of(&table, taken.iter().map(|&item| item as usize)), Likeness::of(&newcomers, 0..newcomers.items()));
    let arrival = Arrival {
        config: &grown,
        codes: everything.codes(),
        known: (&taken, &likeness.0),
        newcomers: (&arrived, &likeness.1),
        histories: &held_out,
    };
    let launch = Launch { boost: args.boost, ..config.launch };
    launch.validate().map_err(|wrong| anyhow::anyhow!("--boost: {}", wrong[0].description))?;
    let quiet = Launch { boost: 0.0, ..launch };
    let mut records = Vec::new();
    let runs = [
        ("reg4rec", Some(launch), Engine::Beam, &trials, NEWCOMERS),
        ("reg4rec, exact", Some(launch), Engine::Exact, &trials, NEWCOMERS),
        ("reg4rec, no boost, exact", Some(quiet), Engine::Exact, &trials, NEWCOMERS),
        (
            "reg4rec, one neighbour, no boost, exact",
            Some(Launch { neighbours: 1, ..quiet }),
            Engine::Exact,
            &trials,
            NEWCOMERS,
        ),
        ("reg4rec, no neighbours, exact", None, Engine::Exact, &trials, NEWCOMERS),
        ("reg4rec, exact", Some(launch), Engine::Exact, &others, KNOWN),
        ("reg4rec, no boost, exact", Some(quiet), Engine::Exact, &others, KNOWN),
    ];
    for (name, launch, engine, trials, group) in runs {
        let network = load_weights::<Flex>(&config.network, pretrained.weights.clone(), &device)?;
        let rows = Tensor::<Flex, 2>::from_data(
            TensorData::new(newcomers.rows.clone(), [newcomers.items(), newcomers.width]),
            &device,
        );
        let given = network.given_residuals(rows * (1.0 / (newcomers.width as f32).sqrt()));
        let residuals = Tensor::cat(vec![network.residuals(), given], 0);
        let mut network = network.with_residuals(residuals);
        if let Some(launch) = launch {
            network = arrival.settle(network, launch, &device)?;
        }
        let mut scorer = CpuScorer::new(&network, grown.clone(), everything.codes())?;
        let settings = DecodeSettings { corp: false, engine, ..DecodeSettings::default() };
        let mut search = Search::new(&mut scorer, &everything, settings);
        let placed = evaluate_with_places(&mut search, trials, all.items.len(), &mut |_| ())?;
        let bench = Bench { dataset: dataset_facts(&args.data, &all), trials, counts: &counts };
        let mut record = bench.record(label(name, group), &placed);
        record.settings = json!({ "fit": config, "launch": launch });
        record.epochs = epoch_points(&pretrained.reports);
        record.best_epoch = Some(pretrained.best_epoch);
        record.seconds = Some(started.elapsed().as_secs_f64());
        records.push(record);
    }
    let bench = Bench { dataset: dataset_facts(&args.data, &all), trials: &trials, counts: &counts };
    let (placed, decay) = content_knn(&table, &newcomers, &trials)?;
    let mut record = bench.record(label("content-knn", NEWCOMERS), &placed);
    record.settings = json!({ "decay": decay });
    records.push(record);
    let mut popular = Popular::fit(&sequences, all.items.len());
    let placed = evaluate_with_places(&mut popular, &trials, all.items.len(), &mut |_| ())?;
    records.push(bench.record(label(popular.name(), NEWCOMERS), &placed));
    for record in &mut records {
        record.notes.push(format!("{} of {} items held out of training", all.items.len() - known, all.items.len()));
        record_machine(record);
        let name = record.system.replace(", ", "-").replace(' ', "-");
        let place = if record.group == KNOWN { format!("known-targets-{name}.json") } else { format!("{name}.json") };
        record.write(&args.out.join(place))?;
    }
    Ok(records)
}

/// The data set with the items held out put last, the same without them, and how many are left.
fn hold_out(dataset: &Dataset, args: &ColdStartArgs) -> anyhow::Result<(Dataset, Dataset, usize)> {
    let items = dataset.items.len();
    let mut order: Vec<usize> = (0..items).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(args.seed));
    let known = items - ((items as f64 * args.share).round() as usize).clamp(1, items - 1);
    let mut place = vec![0u32; items];
    order.iter().zip(0..).for_each(|(&item, number)| place[item] = number);
    let listed: Vec<_> = order.iter().map(|&item| dataset.items[item].clone()).collect();
    let mut sequences = dataset.sequences.clone();
    sequences.iter_mut().flatten().for_each(|event| event.item = place[event.item as usize]);
    let all = Dataset::new(dataset.user_ids.clone(), listed, sequences)?;
    let mut fewer = all.sequences.clone();
    fewer.iter_mut().for_each(|events| events.retain(|event| (event.item as usize) < known));
    let warm = Dataset::new(all.user_ids.clone(), all.items[..known].to_vec(), fewer)?;
    Ok((all, warm, known))
}

/// The index of the known items and the newcomers, which have no past: their prior is the least one, and their class, which
/// only explanations read, is the first.
fn grown_index(known: &Index, all: &Dataset, codes: CodeTable) -> anyhow::Result<Index> {
    let least = (0..known.len() as u32).map(|item| known.prior(item)).fold(0.0, f32::min);
    let newcomers = all.items[known.len()..].iter();
    let newcomers = newcomers.map(|item| CatalogItem { item: item.item.clone(), category: 0, prior: least });
    let items = known.items().chain(newcomers).collect();
    Ok(Index::build(items, codes, known.category_names().to_vec(), "cold-start".to_owned())?)
}

fn joined(first: &CodeTable, second: &CodeTable) -> anyhow::Result<CodeTable> {
    let entries = [first.entries(), second.entries()].concat();
    CodeTable::new(first.shape(), entries).map_err(|wrong| anyhow::anyhow!("codes of the newcomers: {wrong}"))
}

/// Content-kNN with the decay that is best on the trials themselves.
fn content_knn(warm: &FeatureTable, newcomers: &FeatureTable, trials: &[Trial]) -> anyhow::Result<(Placed, f32)> {
    let block = warm.blocks.iter().find(|block| block.modality == Modality::Content);
    let block = block.context("content-kNN: the items have no content")?;
    let columns = block.start..block.start + block.width;
    let rows: Vec<f32> = [warm, newcomers]
        .into_iter()
        .flat_map(|table| (0..table.items()).flat_map(|item| table.row(item)[columns.clone()].to_vec()))
        .collect();
    let items = rows.len() / block.width;
    let mut best: Option<(Placed, f32)> = None;
    for decay in DECAYS {
        let mut ranker = ContentKnn::new(rows.clone(), block.width, decay);
        let placed = evaluate_with_places(&mut ranker, trials, items, &mut |_| ())?;
        let found = placed.scores.filtered.recall_at_10;
        if best.as_ref().is_none_or(|(best, _)| found > best.scores.filtered.recall_at_10) {
            best = Some((placed, decay));
        }
    }
    best.context("content-kNN: no decay to try")
}
