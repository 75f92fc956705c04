//! The GPU's part of `engine.rs`: how its answers agree with the CPU's, then its times.
//!
//! Answers are compared in fp32 and bf16 (which not every device has), by 256 histories of as many events as the bundle's
//! network reads, at most 50. Times are those of bf16 where there is that: of the bundle with such histories, and of a drawn
//! network of the same sizes with histories of 256.

use burn::tensor::DType;

use reg4rec::artifact::LoadedBundle;
use reg4rec::catalog::Index;
use reg4rec::decode::{DecodeSettings, Decoder, Engine, Outcome};
use reg4rec::domain::{Filter, History};
use reg4rec::model::{CpuScorer, DeviceScorer, Kernels, NetworkConfig, NetworkScorer, load_weights, save_weights};

use super::{ENGINES, heading, histories, jobs, row, shop};

const USERS: usize = 256;
const BEAMS: [usize; 2] = [20, 100];
const BATCHES: [usize; 4] = [1, 16, 64, 256];
/// Events of a long history.
const LONG: usize = 256;

/// Compares, then measures.
pub fn measure<B: Kernels>(bundle: &LoadedBundle, cpu: &mut CpuScorer, seconds: f64) {
    let device = B::Device::default();
    let sizes = bundle.manifest.network.clone();
    let events = sizes.max_history.min(50);
    let load = |precision| {
        let network = bundle.network::<B>(&device).unwrap();
        let scorer = NetworkScorer::new(network, sizes.clone(), bundle.index.codes(), device.clone()).unwrap();
        DeviceScorer::new(scorer.with_precision(precision), bundle.index.codes())
    };
    let users = histories(bundle, USERS, events);
    println!("{}, {} items, histories of {events}\n", bundle.manifest.name, bundle.index.len());
    println!(
        "| engine | precision | users | same first item | of the first ten, in both | scores apart, p99 | at most |"
    );
    println!("|---|---|---|---|---|---|---|");
    let precisions = [DType::F32, DType::BF16].into_iter().filter(|&one| B::supports_dtype(&device, one));
    for precision in precisions.clone() {
        let mut gpu = load(precision);
        for engine in ENGINES {
            let settings = DecodeSettings { engine, beam: 20, ..bundle.manifest.decode_as().unwrap() };
            compare(&bundle.index, &users, &settings, cpu, &mut gpu, precision);
        }
    }
    let precision = precisions.last().unwrap();
    println!("\nTimes, {precision:?}\n");
    let mut gpu = load(precision);
    heading();
    for engine in ENGINES {
        let settings = DecodeSettings { engine, ..bundle.manifest.decode_as().unwrap() };
        time(&bundle.index, &users, &settings, &mut gpu, seconds);
    }
    drop(gpu);
    println!("\nThe same sizes, drawn, histories of {LONG}\n");
    let sizes = NetworkConfig { max_history: LONG, feature_width: 0, ..sizes };
    let mut gpu = drawn::<B>(sizes, &bundle.index, precision);
    let users = shop::histories(USERS, LONG, bundle.index.len());
    heading();
    let settings = bundle.manifest.decode_as().unwrap();
    time(&bundle.index, &users, &settings, &mut gpu, seconds);
}

/// A network of these sizes with drawn weights.
fn drawn<B: Kernels>(sizes: NetworkConfig, index: &Index, precision: DType) -> DeviceScorer<B> {
    let device = B::Device::default();
    // Drawn on the CPU, so that it is the same network wherever it runs.
    let bytes = save_weights(&sizes.init::<burn::backend::Flex>(&Default::default())).unwrap();
    let network = load_weights::<B>(&sizes, bytes, &device).unwrap();
    let scorer = NetworkScorer::new(network, sizes, index.codes(), device).unwrap();
    DeviceScorer::new(scorer.with_precision(precision), index.codes())
}

fn compare<B: Kernels>(
    index: &Index,
    users: &[History],
    settings: &DecodeSettings,
    cpu: &mut CpuScorer,
    gpu: &mut DeviceScorer<B>,
    precision: DType,
) {
    let root = index.root(&Filter::default(), &[]);
    let jobs = jobs(users, &root, settings);
    let ours = Decoder::default().decode(cpu, index, &jobs, &|_| true).unwrap();
    let theirs = Decoder::default().decode(gpu, index, &jobs, &|_| true).unwrap();
    let (mut first, mut both, mut all, mut apart) = (0, 0, 0, vec![]);
    for (ours, theirs) in ours.iter().flatten().zip(theirs.iter().flatten()) {
        let leads = |outcome: &Outcome| outcome.items.first().map(|item| item.item);
        first += usize::from(leads(ours) == leads(theirs));
        all += ours.items.len();
        for one in &ours.items {
            let Some(other) = theirs.items.iter().find(|other| other.item == one.item) else { continue };
            both += 1;
            apart.push((one.score - other.score).abs());
        }
    }
    apart.sort_by(f32::total_cmp);
    let (Some(p99), Some(most)) = (apart.get(apart.len() * 99 / 100), apart.last()) else {
        panic!("no item is in both answers");
    };
    let engine = settings.engine;
    println!("| {engine:?} | {precision:?} | {} | {first} | {both} of {all} | {p99:.1e} | {most:.1e} |", users.len());
}

fn time<B: Kernels>(
    index: &Index,
    users: &[History],
    settings: &DecodeSettings,
    gpu: &mut DeviceScorer<B>,
    seconds: f64,
) {
    let root = index.root(&Filter::default(), &[]);
    for beam in BEAMS {
        let settings = DecodeSettings { beam, ..settings.clone() };
        for batch in BATCHES {
            let jobs = jobs(&users[..batch], &root, &settings);
            let mut decoder = Decoder::default();
            let ask = || decoder.decode(gpu, index, &jobs, &|_| true).unwrap();
            row(settings.engine, &format!(", beam {beam}"), batch, seconds, ask);
        }
        if settings.engine == Engine::Exact {
            break;
        }
    }
}
