//! Searches whose candidates are on a device, against those from path states, with real networks.

use burn::backend::Flex;
use burn::tensor::{DType, Distribution, Tensor};

use super::fake::{SHAPE, history, index};
use super::warmup::warm_up;
use super::{EngineConfig, Placement};
use crate::catalog::{Candidates, Index};
use crate::decode::{Bias, DecodeJob, DecodeSettings, Decoder, Outcome, PathModel, decode};
use crate::domain::{Filter, History};
use crate::model::{DeviceScorer, Kernels, Network, NetworkConfig, NetworkScorer};

const ITEMS: u32 = 380;

fn sizes() -> NetworkConfig {
    let decoder_layers = 2;
    NetworkConfig { items: ITEMS as usize, categories: 3, codes: SHAPE, decoder_layers, ..NetworkConfig::tiny() }
}

/// A network whose every part says something.
fn network() -> Network<Flex> {
    let mut network = sizes().init::<Flex>(&Default::default());
    let drawn = |x: Tensor<Flex, 2>, spread: f64| x.random_like(Distribution::Normal(0.0, spread));
    network.residuals = network.residuals.map(|x| drawn(x, 0.3));
    network.refinement_head.weight = network.refinement_head.weight.map(|x| drawn(x, 0.3));
    // Weights are drawn when they are first looked at, by each clone anew.
    network.cast(DType::F32)
}

fn scorer(network: &Network<Flex>, index: &Index) -> NetworkScorer<Flex> {
    NetworkScorer::new(network.clone(), sizes(), index.codes(), Default::default()).unwrap()
}

fn on_device<B: Kernels>(scorer: NetworkScorer<B>, index: &Index) -> DeviceScorer<B> {
    DeviceScorer::new(scorer, index.codes())
}

/// Searches of all kinds that fit.
fn variants() -> Vec<DecodeSettings> {
    let base = DecodeSettings { finish_together: 1, finish_at: 2, theta: 0.02, ..DecodeSettings::default() };
    vec![
        base.clone(),
        DecodeSettings { corp: false, ..base.clone() },
        DecodeSettings { full_path: true, ..base.clone() },
        DecodeSettings { beam: 4, reserve: 2, theta: 0.0, corp_from: 0, ..base },
    ]
}

fn answers(model: &mut impl PathModel, index: &Index, settings: &[DecodeSettings]) -> Vec<Outcome> {
    let liked = Bias { sets: vec![(Candidates::of(index.len(), (0..90).step_by(3)), 0.7)], ..Bias::default() };
    let histories: Vec<History> =
        (0..11).map(|n| history(&(0..=n).map(|at| 3 + at * 31).collect::<Vec<_>>())).collect();
    let cheap = Filter { max_price: Some(200.0), ..Filter::default() };
    let roots = [index.root(&Filter::default(), &[]), index.root(&cheap, &[7, 8])];
    let jobs: Vec<DecodeJob<'_>> = (0..11)
        .map(|n| DecodeJob {
            history: &histories[n],
            k: 5 + n,
            root: &roots[n % 2],
            settings: &settings[n % settings.len()],
            explain: false,
            bias: (n % 3 == 1).then_some(&liked),
        })
        .collect();
    let found = decode(model, index, &jobs, &|_| true).unwrap_or_else(|error| panic!("{error}"));
    found.into_iter().map(Option::unwrap).collect()
}

/// The same items in the same order, but where neighbours' scores are within `error`.
fn assert_same(found: &[Outcome], expected: &[Outcome], error: f32) {
    for (at, (one, other)) in found.iter().zip(expected).enumerate() {
        assert_eq!((one.items.len(), one.pruned), (other.items.len(), other.pruned), "request {at}");
        for (a, b) in one.items.iter().zip(&other.items) {
            assert!((a.score - b.score).abs() < error, "request {at}: {} against {}", a.score, b.score);
            let again = other.items.iter().find(|item| item.item == a.item).expect("the same items");
            assert!((a.score - again.score).abs() < error, "request {at}: {} against {}", a.score, again.score);
        }
    }
}

#[test]
fn answers_are_those_from_path_states() {
    let (network, index) = (network(), index(ITEMS));
    let expected = answers(&mut scorer(&network, &index), &index, &variants());
    let mut device = on_device(scorer(&network, &index), &index);
    assert!(device.resident().is_some());
    assert_same(&answers(&mut device, &index, &variants()), &expected, 1e-4);
    assert!(expected.iter().any(|outcome| outcome.pruned > 0), "CORP has ended something");
}

#[test]
fn answers_are_the_same_once_items_have_come_and_the_engine_is_warm() {
    let (network, before, after) = (network(), index(ITEMS), index(ITEMS + 40));
    let placed: Vec<Placement> =
        (ITEMS..ITEMS + 40).map(|item| Placement { item, like: vec![(item - 100, 0.5), (item - 101, 0.5)] }).collect();
    let mut plain = scorer(&network, &before);
    plain.place(after.codes(), &placed).unwrap();
    let mut device = on_device(scorer(&network, &before), &before);
    device.place(after.codes(), &placed).unwrap();
    let config = EngineConfig::default();
    warm_up(&mut device, &mut Decoder::default(), &after, &variants()[0], &config).unwrap();
    let expected = answers(&mut plain, &after, &variants());
    assert_same(&answers(&mut device, &after, &variants()), &expected, 1e-4);
    assert!(expected.iter().flat_map(|outcome| &outcome.items).any(|item| item.item >= ITEMS), "none of the new");
}

#[test]
fn bf16_scores_nearly_the_same() {
    let (network, index) = (network(), index(ITEMS));
    let wide = [DecodeSettings { corp: false, ..DecodeSettings::default() }];
    let expected = answers(&mut scorer(&network, &index), &index, &wide);
    let mut device = on_device(scorer(&network, &index).with_precision(DType::BF16), &index);
    let found = answers(&mut device, &index, &wide);
    let (mut first, mut both, mut all) = (0, 0, 0);
    for (one, other) in found.iter().zip(&expected) {
        first += usize::from(one.items[0].item == other.items[0].item);
        both += one.items.iter().filter(|a| other.items.iter().any(|b| a.item == b.item)).count();
        all += other.items.len();
    }
    println!("{first} of {} first items, {both} of {all} items", found.len());
    assert!(first >= 10 && both * 100 >= all * 95, "{first} first items, {both} of {all} items");
}
