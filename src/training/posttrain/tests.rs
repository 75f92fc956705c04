//! Facts of the whole of post-training, on a shop small enough to hold in the head.

use std::path::Path;

use burn::backend::{Autodiff, Flex};
use burn::optim::AdamWConfig;
use burn::tensor::{Distribution, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::PostTrainError;
use super::catalogue::{Catalogue, Roots};
use super::config::PostTrainConfig;
use super::learner::{PostTrained, PostTraining, post_train};
use super::sample::{Encoded, sample};
use crate::catalog::{CatalogItem, Index};
use crate::decode::DecodeSettings;
use crate::domain::{CodeShape, CodeTable, EventKind, HistoryEntry, Item, ItemNumber, Token};
use crate::evaluation::Trial;
use crate::model::{Network, NetworkConfig, load_weights, save_weights};
use crate::training::precision::{LadqConfig, finite, layers};
use crate::training::pretrain::{Checkpoint, TrainingSet};

const ITEMS: usize = 24;

/// 24 items, 3 codebooks of 4 entries: item i has tokens (i mod 4, i / 4 mod 4, i mod 3) and category i mod 2.
pub(super) fn shop() -> Index {
    let shape = CodeShape { codebooks: 3, entries: 4 };
    let entries = (0..ITEMS as u16).flat_map(|item| [item % 4, item / 4 % 4, item % 3]).collect();
    let item = |number: usize| Item {
        id: number.to_string(),
        title: None,
        brand: None,
        categories: Vec::new(),
        price: None,
        eligible: true,
    };
    let items = (0..ITEMS).map(|number| CatalogItem { item: item(number), category: number as u32 % 2, prior: 0.0 });
    let names = vec!["even".into(), "odd".into()];
    Index::build(items.collect(), CodeTable::new(shape, entries).unwrap(), names, "test".into()).unwrap()
}

fn sizes() -> NetworkConfig {
    NetworkConfig { items: ITEMS, feed_forward: 16, max_history: 8, dropout: 0.3, ..NetworkConfig::tiny() }
}

/// A network whose path heads are not zero.
fn network() -> Network<Flex> {
    use burn::tensor::backend::Backend;
    let device = Default::default();
    Flex::seed(&device, 11);
    let mut network = sizes().init::<Flex>(&device);
    network.refinement_head.weight =
        network.refinement_head.weight.map(|weight| weight.random_like(Distribution::Normal(0.0, 0.5)));
    network
}

fn event(item: ItemNumber) -> HistoryEntry {
    HistoryEntry { item, kind: EventKind::View, time: 0 }
}

/// Two contexts with states drawn at random.
fn encoded() -> Encoded<Flex> {
    let device = Default::default();
    let states = Tensor::<Flex, 2>::random([4, 8], Distribution::Normal(0.0, 1.0), &device);
    let queries = states.clone().slice([1..3, 0..8]);
    let hidden = Tensor::from_data(TensorData::new(vec![false; 4], [2, 1, 1, 2]), &device);
    Encoded { states, queries, hidden }
}

#[test]
fn what_was_drawn_measures_as_it_was_drawn() {
    let (index, network) = (shop(), network());
    let catalogue = Catalogue::new(&index, &network, &Default::default()).unwrap();
    let encoded = encoded();
    let scores = catalogue.scores(encoded.queries.clone()).unwrap();
    let config = PostTrainConfig { group: 6, path_steps: 3, ..PostTrainConfig::default() };
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let rollout = sample(&network, &encoded, &scores, &catalogue, &config, &mut random).unwrap();
    assert_eq!(rollout.paths.len(), 12);

    // The same paths, each read in one pass.
    let history = network.history_memory(encoded.states.clone(), 2);
    for (at, (path, log_p)) in rollout.paths.iter().zip(&rollout.log_p).enumerate() {
        let context = at / 6;
        let paths = vec![path.tokens.as_slice(); 2];
        let mut inputs = vec![network.begin_inputs(encoded.queries.clone()).unsqueeze_dim::<3>(1)];
        for (step, &token) in path.tokens.iter().enumerate() {
            let row = index.codes().shape().flat(token) as i32;
            let row = Tensor::from_data(TensorData::new(vec![row, row], [2]), &Default::default());
            inputs.push(network.token_inputs(network.tokens().select(0, row), step + 1).unsqueeze_dim::<3>(1));
        }
        let steps = inputs.len();
        let x = Tensor::cat(inputs, 1).reshape([2 * steps, 8]);
        let states = network.decode(x, 2, &mut Vec::new(), &history, encoded.hidden.clone());
        let refinements = network.refinements(states);
        let begin = refinements.clone().reshape([2, steps, 8]).slice([0..2, 0..1, 0..8]).reshape([2, 8]);
        let shares = catalogue.root(&scores, begin).unwrap();
        let roots = Roots { scores: scores.clone(), shares, basis_means: vec![], vector_means: vec![] };
        let numbers: Vec<f32> = refinements.into_data().into_vec().unwrap();
        let measured = catalogue.measure(&roots, &paths, &numbers, steps);
        for (drawn, measured) in log_p.iter().zip(&measured[context].log_p) {
            assert!((drawn - measured).abs() < 1e-4, "{drawn} and {measured}");
        }
        // It left what it says it left.
        let left = (0..ITEMS as ItemNumber).filter(|&item| {
            path.tokens.iter().all(|token| index.codes().code(item)[usize::from(token.codebook)] == token.entry)
        });
        assert!(path.retrieved.iter().all(|item| left.clone().any(|other| other == *item)));
        assert_eq!(path.categories.len(), path.tokens.len());
        assert_eq!(path.divergences.len() + 1, path.tokens.len());
    }
}

#[test]
fn directions_are_the_slopes_of_ln_p() {
    let (index, network) = (shop(), network());
    let catalogue = Catalogue::new(&index, &network, &Default::default()).unwrap();
    let queries = encoded().queries.slice([0..1, 0..8]);
    let path = [Token { codebook: 0, entry: 1 }, Token { codebook: 2, entry: 2 }];
    let paths = [path.as_slice()];
    let rows: Vec<f32> = (0..16).map(|at| ((at * 37 % 11) as f32 - 5.0) / 4.0).collect();
    let measure = |rows: &[f32], queries: &Tensor<Flex, 2>| {
        let scores = catalogue.scores(queries.clone()).unwrap();
        let begin = Tensor::<Flex, 2>::from_data(TensorData::new(rows[..8].to_vec(), [1, 8]), &Default::default());
        let shares = catalogue.root(&scores, begin).unwrap();
        let basis_means = catalogue.means(&shares, &catalogue.basis).unwrap();
        let vector_means = catalogue.means(&shares, &catalogue.vectors).unwrap();
        catalogue.measure(&Roots { scores, shares, basis_means, vector_means }, &paths, rows, 2).remove(0)
    };
    let found = measure(&rows, &queries);
    for at in 0..16 {
        let moved = |by: f32| {
            let mut rows = rows.clone();
            rows[at] += by;
            measure(&rows, &queries).log_p[at / 8]
        };
        let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
        assert!((slope - found.by_refinement[at]).abs() < 2e-3, "{at}: {slope}, {}", found.by_refinement[at]);
    }
    let numbers: Vec<f32> = queries.clone().into_data().into_vec().unwrap();
    for at in 0..8 {
        let moved = |by: f32| {
            let mut numbers = numbers.clone();
            numbers[at] += by;
            measure(&rows, &Tensor::from_data(TensorData::new(numbers, [1, 8]), &Default::default())).log_p
        };
        for step in 0..2 {
            let slope = (moved(1e-2)[step] - moved(-1e-2)[step]) / 2e-2;
            let found = found.by_query[step * 8 + at];
            assert!((slope - found).abs() < 2e-3, "{at}, step {step}: {slope}, {found}");
        }
    }
}

/// Users who take items of one rest class after another: what follows is plain.
fn users() -> Vec<Vec<HistoryEntry>> {
    (0..40u32).map(|user| (0..6).map(|at| event((user % 4 + 4 * (at % 6)) % 24)).collect()).collect()
}

fn training(users: &[Vec<HistoryEntry>]) -> TrainingSet {
    TrainingSet::new(users.iter().map(Vec::as_slice), 8)
}

fn held_out() -> Vec<Trial> {
    (0..20u32)
        .map(|user| Trial {
            user,
            history: (0..3).map(|at| event((user % 4 + 4 * at) % 24)).collect(),
            seen: vec![],
            target: (user % 4 + 12) % 24,
        })
        .collect()
}

fn small() -> PostTrainConfig {
    PostTrainConfig {
        rounds: 3,
        steps: 4,
        contexts: 8,
        group: 4,
        learning_rate: 0.02,
        patience: 9,
        adaptive: true,
        path_weight: 0.1,
        // Dropout draws from one source for the whole process, which tests side by side would share.
        noise: false,
        ..PostTrainConfig::default()
    }
}

fn run(directory: &Path, config: &PostTrainConfig, weights: &[u8], resume: bool) -> PostTrained {
    told(directory, config, weights, resume, &mut |_| ())
}

/// [`run`] that tells of every round once its checkpoint is written.
fn told(
    directory: &Path,
    config: &PostTrainConfig,
    weights: &[u8],
    resume: bool,
    tell: &mut dyn FnMut(usize),
) -> PostTrained {
    tried(directory, config, weights, resume, tell).unwrap()
}

fn tried(
    directory: &Path,
    config: &PostTrainConfig,
    weights: &[u8],
    resume: bool,
    tell: &mut dyn FnMut(usize),
) -> Result<PostTrained, PostTrainError> {
    tried_on(&users(), directory, config, weights, resume, tell)
}

fn tried_on(
    users: &[Vec<HistoryEntry>],
    directory: &Path,
    config: &PostTrainConfig,
    weights: &[u8],
    resume: bool,
    tell: &mut dyn FnMut(usize),
) -> Result<PostTrained, PostTrainError> {
    let (index, training, held_out) = (shop(), training(users), held_out());
    let settings = DecodeSettings { corp: false, ..DecodeSettings::default() };
    let task = PostTraining {
        network: &sizes(),
        weights,
        config,
        index: &index,
        training: &training,
        held_out: &held_out,
        settings: &settings,
        directory,
        run: &serde_json::json!({ "of": "a test" }),
        resume,
    };
    post_train::<Autodiff<Flex>>(task, &Default::default(), &mut |report, _| tell(report.round))
}

/// What a run went through, without its times. A double that is read back from a checkpoint may differ in its last bit.
fn trajectory(trained: &PostTrained) -> Vec<String> {
    let told = |report: &super::RoundReport| {
        let scores = report.validation;
        let validation = Default::default();
        let rest = super::RoundReport { rollout_seconds: 0.0, update_seconds: 0.0, validation, ..report.clone() };
        format!("{:.12} {:.12} {rest:?}", scores.recall_at_10, scores.ndcg_at_10)
    };
    trained.reports.iter().map(told).collect()
}

#[test]
fn a_resumed_run_goes_through_the_same_rounds() {
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let weights = save_weights(&network()).unwrap();
    // Without dropout: its generator is one for the whole process, and other tests draw from it meanwhile.
    let small = PostTrainConfig { noise: false, ..small() };
    let all = run(whole.path(), &small, &weights, false);
    assert_eq!(all.reports.len(), 4);

    // What a run that was killed in its second round leaves behind, steps of that round among it.
    told(whole.path(), &small, &weights, false, &mut |round| {
        if round == 1 {
            let from = whole.path().join("checkpoint");
            std::fs::create_dir_all(cut.path().join("checkpoint")).unwrap();
            for file in std::fs::read_dir(from).unwrap().map(|file| file.unwrap()) {
                std::fs::copy(file.path(), cut.path().join("checkpoint").join(file.file_name())).unwrap();
            }
            let log = std::fs::read_to_string(whole.path().join("steps.jsonl")).unwrap();
            std::fs::write(cut.path().join("steps.jsonl"), log + "{\"step\":4}\n{\"st").unwrap();
        }
    });
    let again = run(cut.path(), &small, &weights, true);
    let steps = |directory: &Path| -> Vec<u64> {
        let log = std::fs::read_to_string(directory.join("steps.jsonl")).unwrap();
        log.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(steps(cut.path()), (0..12).collect::<Vec<_>>());
    assert_eq!(steps(whole.path()), steps(cut.path()));
    assert_eq!(trajectory(&all), trajectory(&again));
    assert_eq!(all.weights, again.weights);
}

#[test]
fn only_what_reads_paths_moves_unless_the_encoder_learns_too() {
    let directory = tempfile::tempdir().unwrap();
    let weights = save_weights(&network()).unwrap();
    let moved = |encoder: bool| {
        let config = PostTrainConfig { encoder, rounds: 1, steps: 6, ..small() };
        let trained = run(directory.path(), &config, &weights, false);
        let kl = trained.reports[1].kl;
        // The best weights may be the first ones; the checkpoint has the last.
        let (_, best, _) = Checkpoint::<super::RoundReport>::find(directory.path()).unwrap().unwrap();
        (kl, best)
    };
    let (kl, best) = moved(false);
    assert!(kl > 0.0, "nothing moved");
    let device = Default::default();
    let before = load_weights::<Flex>(&sizes(), weights.clone(), &device).unwrap();
    let after = load_weights::<Flex>(&sizes(), best, &device).unwrap();
    assert_eq!(before.tokens().into_data(), after.tokens().into_data());
    assert_eq!(before.residuals().into_data(), after.residuals().into_data());
    assert!(moved(true).0 > 0.0);
}

#[test]
fn layers_in_fewer_bits_learn_too() {
    let weights = save_weights(&network()).unwrap();
    // The kept weights after so many updates; all layers compute in fewer bits from the second on.
    let after = |steps: usize| {
        let directory = tempfile::tempdir().unwrap();
        let ladq = LadqConfig { reduced: 1.0, fp8: 0.5, ..LadqConfig::default() };
        let config = PostTrainConfig { ladq, rounds: 1, steps, updates: 1, ..small() };
        let trained = run(directory.path(), &config, &weights, false);
        let report = trained.reports[1].ladq.as_ref().unwrap().report.clone();
        let device = Default::default();
        let sizes = NetworkConfig { dropout: 0.0, ..sizes() };
        let optimizer = AdamWConfig::new().init::<Autodiff<Flex>, Network<Autodiff<Flex>>>();
        let start = load_weights::<Autodiff<Flex>>(&sizes, weights.clone(), &device).unwrap();
        let found = directory.path().join("checkpoint");
        let (network, _) = Checkpoint::<super::RoundReport>::load(&found, start, optimizer, &device).unwrap();
        (layers(&network), report)
    };
    let ((first, _), (last, report)) = (after(1), after(3));
    let reads_paths = |name: &str| !name.starts_with("encoder");
    // The encoder does not learn here, and its layers do not make a share look larger.
    let learning = first.iter().filter(|layer| reads_paths(&layer.0)).count() as u64;
    assert_eq!((report.reduced_layer_steps, report.layer_steps), (2 * learning, 2 * learning));
    assert_eq!(report.assignments[0].formats.len() as u64, learning);
    for (one, three) in first.iter().zip(&last).filter(|(one, _)| reads_paths(&one.0)) {
        assert_ne!(one.2, three.2, "{} learnt nothing once it was reduced", one.0);
    }
}

#[test]
fn some_contexts_are_told_apart_from_the_rest() {
    let encoded = encoded();
    let second = encoded.of(&[1]);
    let numbers = |tensor: Tensor<Flex, 2>| tensor.into_data().into_vec::<f32>().unwrap();
    assert_eq!(numbers(second.states), numbers(encoded.states.clone())[16..]);
    assert_eq!(numbers(second.queries), numbers(encoded.queries.clone())[8..]);
    assert_eq!(second.hidden.dims(), [1, 1, 1, 2]);
    assert_eq!(numbers(encoded.of(&[0, 1]).states), numbers(encoded.states));
}

#[test]
fn hides_are_rewards_and_no_targets() {
    let weights = save_weights(&network()).unwrap();
    let config = PostTrainConfig { rounds: 1, adaptive: false, category_weight: 0.5, path_weight: 0.5, ..small() };
    let supervised = |every: usize| {
        let mut users = users();
        users.iter_mut().for_each(|events| {
            events.iter_mut().skip(1).step_by(every).for_each(|event| event.kind = EventKind::Hide);
        });
        let directory = tempfile::tempdir().unwrap();
        let trained = tried_on(&users, directory.path(), &config, &weights, false, &mut |_| ());
        trained.unwrap().reports[1].clone()
    };
    let (all, half) = (supervised(1), supervised(2));
    assert!(all.reward < 0.0 && half.reward > all.reward, "{} and {}", all.reward, half.reward);
    assert_eq!((all.supervised.begin, all.supervised.category), (0.0, 0.0), "a hidden item is taught");
    assert!(half.supervised.begin > 0.0 && half.supervised.category > 0.0);
}

#[test]
fn rewarded_paths_become_likelier() {
    let directory = tempfile::tempdir().unwrap();
    let weights = save_weights(&network()).unwrap();
    let rewards = super::Rewards { step: 1.0, category: 0.0, consistency: 0.0, path: 1.0 };
    let config = PostTrainConfig {
        rounds: 6,
        steps: 20,
        contexts: 16,
        group: 8,
        beta: 0.0,
        adaptive: false,
        path_weight: 0.0,
        window: 1,
        rewards,
        ..small()
    };
    let trained = run(directory.path(), &config, &weights, false);
    let (first, last) = (&trained.reports[1], &trained.reports[6]);
    assert!(last.reward > 1.3 * first.reward, "{} then {}", first.reward, last.reward);
    assert!(last.kl > first.kl);
}

#[test]
fn a_run_that_leaves_the_numbers_stops_and_keeps_the_checkpoint_before() {
    let directory = tempfile::tempdir().unwrap();
    let mut network = network();
    // Refinements past all numbers: what a rate far too high comes to.
    network.refinement_head.weight = network.refinement_head.weight.map(|weight| weight * 1.0e38);
    let weights = save_weights(&network).unwrap();
    let config = small();
    let error = tried(directory.path(), &config, &weights, false, &mut |_| ()).unwrap_err();
    assert!(matches!(error, PostTrainError::Diverged { .. }), "{error}");
    assert!(error.to_string().contains("expected a finite number"), "{error}");
    if let Some((_, best, _)) = Checkpoint::<super::RoundReport>::find(directory.path()).unwrap() {
        let best = load_weights::<Flex>(&sizes(), best, &Default::default()).unwrap();
        assert!(finite(&best));
    }
}
