//! Whole requests on the CPU: users a second and the median of a batch for every engine, and where the time goes.
//!
//!   cargo bench --bench engine [-- BUNDLE [SECONDS]]      BUNDLE: model-artifacts/demo by default
//!   RAYON_NUM_THREADS=1 cargo bench --bench engine        one thread; only then the parts are told
//!   cargo bench --bench engine -- tiger [SECONDS]         a drawn network of TIGER's public sizes, for equal work
//!   cargo bench --features cuda --bench engine -- BUNDLE cuda     on a GPU, after its answers were compared with the CPU's
//!   cargo bench --features vulkan --bench engine -- BUNDLE vulkan     the same by its Vulkan driver
//!
//! Histories of 20 events, ten items of all, beam 20, no CORP unless the bundle says so; on a GPU as `gpu.rs` says. `tiger`: 12,101 items of 4 codebooks in a fixed order, histories of 80 events, each a row of the encoder,
//! as 20 items of 4 tokens are in a flat history; paths to the last codebook, then finished early. The machine is as it is:
//! besides the median, the least time is told and the processor's time, which others disturb less.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints and may stop")]

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use burn::backend::Flex;

use reg4rec::artifact::{LoadedBundle, load};
use reg4rec::catalog::Candidates;
use reg4rec::decode::{DecodeJob, DecodeSettings, Decoder, Engine, Expansion, Outcome};
use reg4rec::domain::{self, CodeShape, Filter, History, HistoryEntry};
use reg4rec::model::CpuScorer;

#[allow(dead_code)]
#[path = "../src/model/cpu/gemm.rs"]
mod gemm;
#[cfg(feature = "gpu")]
#[path = "gpu.rs"]
mod gpu;
#[path = "parts.rs"]
mod parts;
#[allow(dead_code)]
#[path = "shop.rs"]
mod shop;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENGINES: [Engine; 3] = [Engine::Beam, Engine::Draft, Engine::Exact];
const BATCHES: [usize; 3] = [1, 8, 32];
const EVENTS: usize = 20;
const WANTED: usize = 10;
/// Runs before those that count.
const WARM: usize = 3;

fn main() {
    // As the service: the thread that decodes is one of the pool.
    rayon::ThreadPoolBuilder::new().use_current_thread().build_global().unwrap();
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_device = |argument: &String| ["cuda", "vulkan"].contains(&argument.as_str());
    let device = given.iter().find(|argument| is_device(argument)).cloned();
    let mut arguments = given.into_iter().filter(|argument| !is_device(argument));
    let named = arguments.next();
    let tiger = named.as_deref() == Some("tiger");
    let directory = named.map_or_else(|| PathBuf::from("model-artifacts/demo"), PathBuf::from);
    let seconds = arguments.next().map_or(4.0, |given| given.parse().unwrap());
    if tiger {
        of_tigers_size(seconds);
        return;
    }
    let bundle = load(&directory).unwrap();
    let network = bundle.network::<Flex>(&Default::default()).unwrap();
    let sizes = bundle.manifest.network.clone();
    let mut scorer = CpuScorer::new(&network, sizes, bundle.index.codes()).unwrap();
    drop(network);
    match device.as_deref() {
        None => on_cpu(&bundle, &mut scorer, seconds),
        #[cfg(feature = "cuda")]
        Some("cuda") => gpu::measure::<burn::backend::Cuda>(&bundle, &mut scorer, seconds),
        #[cfg(feature = "vulkan")]
        Some("vulkan") => gpu::measure::<burn::backend::Vulkan>(&bundle, &mut scorer, seconds),
        Some(lacking) => panic!("this build lacks the feature `{lacking}`"),
    }
}

fn on_cpu(bundle: &LoadedBundle, scorer: &mut CpuScorer, seconds: f64) {
    let threads = rayon::current_num_threads();
    println!("{}, {} items, {threads} threads, histories of {EVENTS}\n", bundle.manifest.name, bundle.index.len());
    heading();
    let histories = histories(bundle, 32, EVENTS);
    let root = bundle.index.root(&Filter::default(), &[]);
    let mut cases = Vec::new();
    for engine in ENGINES {
        let settings = DecodeSettings { engine, beam: 20, ..bundle.manifest.decode_as().unwrap() };
        for batch in BATCHES {
            let jobs = jobs(&histories[..batch], &root, &settings);
            let mut ask = |decoder: &mut Decoder| decoder.decode(scorer, &bundle.index, &jobs, &|_| true).unwrap();
            let mut decoder = Decoder::default();
            row(engine, "", batch, seconds, || ask(&mut decoder));
            if threads == 1 {
                let took = breakdown(seconds / 2.0, bundle, ask);
                cases.push((bundle.manifest.name.clone(), engine, batch, took));
            }
        }
    }
    if threads == 1 {
        parts::tell(&cases, &["resolve"]);
    }
    products(seconds / 4.0);
}

/// The work that TIGER's public network is: as many rows in encoder and decoder, the same widths, any weights.
fn of_tigers_size(seconds: f64) {
    const ITEMS: usize = 12_101;
    let index = shop::index(ITEMS, CodeShape { codebooks: 4, entries: 256 });
    let mut scorer = shop::tiger(&index, 80);
    let histories = shop::histories(32, 80, ITEMS);
    let root = index.root(&Filter::default(), &[]);
    println!("TIGER's sizes, {ITEMS} items, {} threads, histories of 80 rows\n", rayon::current_num_threads());
    heading();
    for (full_path, more) in [(true, ", to the last codebook"), (false, ", finished early")] {
        let settings = DecodeSettings {
            expansion: Expansion::Fixed,
            corp: false,
            reserve: 0,
            full_path,
            beam: 20,
            ..DecodeSettings::default()
        };
        for batch in BATCHES {
            let jobs = jobs(&histories[..batch], &root, &settings);
            let mut decoder = Decoder::default();
            let ask = || decoder.decode(&mut scorer, &index, &jobs, &|_| true).unwrap();
            row(settings.engine, more, batch, seconds, ask);
        }
    }
}

fn heading() {
    println!(
        "| engine | batch | least ms | p50 ms | p99 ms | users/s at p50 | processor ms a batch | users/s of a processor |"
    );
    println!("|---|---|---|---|---|---|---|---|");
}

/// Measures and tells one case.
fn row<T>(engine: Engine, more: &str, batch: usize, seconds: f64, mut ask: impl FnMut() -> T) {
    let before = processor_ms();
    let took = sample(seconds, || black_box(ask()));
    let processor = (processor_ms() - before) / (took.len() + WARM) as f64;
    let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    let rate = |ms: f64| batch as f64 * 1e3 / ms;
    println!(
        "| {engine:?}{more} | {batch} | {:.3} | {p50:.3} | {p99:.3} | {:.0} | {processor:.3} | {:.0} |",
        took[0],
        rate(p50),
        rate(processor)
    );
}

fn jobs<'a>(histories: &'a [History], root: &'a Candidates, settings: &'a DecodeSettings) -> Vec<DecodeJob<'a>> {
    let job = |history| DecodeJob { history, k: WANTED, root, settings, explain: false, bias: None };
    histories.iter().map(job).collect()
}

/// Histories that users of the bundle had, repeated until they are long enough, each begun elsewhere.
fn histories(bundle: &LoadedBundle, count: usize, events: usize) -> Vec<History> {
    (0..count)
        .map(|user| {
            let golden = &bundle.golden[user % bundle.golden.len()].history;
            let event = |at: usize| {
                let event = &golden[(at + user) % golden.len()];
                let item = bundle.index.number(&event.item_id).unwrap();
                HistoryEntry { item, kind: event.kind, time: event.time }
            };
            (0..events).map(event).collect()
        })
        .collect()
}

/// Milliseconds that all threads of this process have run, as Linux counts them; no number elsewhere. It is brought up to
/// date at every tick, so differences over seconds tell, not single ones.
fn processor_ms() -> f64 {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return f64::NAN };
    let files = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok());
    files.filter_map(|text| text.split(' ').next()?.parse::<f64>().ok()).sum::<f64>() / 1e6
}

/// Milliseconds of every run within some seconds, least first.
fn sample<T>(seconds: f64, mut run: impl FnMut() -> T) -> Vec<f64> {
    (0..WARM).for_each(|_| drop(run()));
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed().as_secs_f64() < seconds {
        let run_began = Instant::now();
        drop(run());
        took.push(run_began.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    took
}

/// Median microseconds a request of every part, and of turning item numbers into answers.
fn breakdown(
    seconds: f64,
    bundle: &LoadedBundle,
    mut ask: impl FnMut(&mut Decoder) -> Vec<Option<Outcome>>,
) -> Vec<f64> {
    let mut decoder = parts::decoder();
    let (mut runs, mut requests) = (Vec::new(), 1);
    sample(seconds, || {
        parts::begin();
        let outcomes = ask(&mut decoder);
        let mut took = parts::end();
        requests = outcomes.len();
        let began = Instant::now();
        for ranked in outcomes.iter().flatten().flat_map(|outcome| &outcome.items) {
            let item = &bundle.index.item(ranked.item).item;
            black_box((item.id.clone(), item.title.clone(), item.categories.clone()));
        }
        took.push(began.elapsed());
        runs.push(took);
    });
    parts::medians(&runs, requests)
}

/// The rate of the products alone, one thread.
fn products(seconds: f64) {
    println!("\n| product, one thread | GFLOP/s, best | median |\n|---|---|---|");
    for (rows, inner, outer) in [(20, 128, 384), (20, 128, 128), (640, 128, 384), (640, 128, 128)] {
        let numbers = |count: usize| -> Vec<f32> { (0..count).map(|at| (at % 101) as f32 / 50.0 - 1.0).collect() };
        let (left, mut out) = (numbers(rows * inner), vec![0.0; rows * outer]);
        let weights = gemm::Packed::new(&numbers(inner * outer), inner, outer);
        let took = sample(seconds, || {
            // Some tenths of a millisecond at a time, so that the clock does not count.
            for _ in 0..(640 / rows) {
                weights.product(black_box(&left), &[], black_box(&mut out), gemm::Put::Set);
            }
        });
        let work = (2 * rows * inner * outer * (640 / rows)) as f64 / 1e6;
        println!(
            "| [{rows}, {inner}] x [{inner}, {outer}] | {:.0} | {:.0} |",
            work / took[0],
            work / took[took.len() / 2]
        );
    }
}
