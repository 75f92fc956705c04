//! Whole requests on the CPU: users a second and the median of a batch for every engine, and where the time goes.
//!
//!   cargo bench --bench engine [-- BUNDLE [SECONDS]]      BUNDLE: model-artifacts/demo by default
//!   RAYON_NUM_THREADS=1 cargo bench --bench engine        one thread; only then the parts are told
//!
//! Histories of 20 events, ten items of all, beam 20, no CORP unless the bundle says so. The machine is as it is: besides
//! the median, the least time is told and the processor's time, which others disturb less.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints and may stop")]

use std::cell::RefCell;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use burn::backend::Flex;

use reg4rec::artifact::{LoadedBundle, load};
use reg4rec::decode::{DecodeJob, DecodeSettings, Decoder, Engine, Outcome, Part};
use reg4rec::domain::{Filter, History, HistoryEntry};
use reg4rec::model::CpuScorer;

#[allow(dead_code)]
#[path = "../src/model/cpu/gemm.rs"]
mod gemm;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCHES: [usize; 3] = [1, 8, 32];
const EVENTS: usize = 20;
const WANTED: usize = 10;
/// Runs before those that count.
const WARM: usize = 3;

/// What each part took since the clock was set back.
struct Clock {
    part: Option<Part>,
    since: Instant,
    spent: [Duration; Part::ALL.len()],
}

thread_local! {
    static CLOCK: RefCell<Clock> =
        RefCell::new(Clock { part: None, since: Instant::now(), spent: Default::default() });
}

fn turn(part: Option<Part>) {
    CLOCK.with_borrow_mut(|clock| {
        let now = Instant::now();
        if let Some(part) = clock.part {
            clock.spent[part as usize] += now - clock.since;
        }
        (clock.part, clock.since) = (part, now);
    });
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let directory = arguments.next().map_or_else(|| PathBuf::from("model-artifacts/demo"), PathBuf::from);
    let seconds = arguments.next().map_or(4.0, |given| given.parse().unwrap());
    let bundle = load(&directory).unwrap();
    let device = Default::default();
    let network = bundle.network::<Flex>(&device).unwrap();
    let sizes = bundle.manifest.network.clone();
    let mut scorer = CpuScorer::new(&network, sizes, bundle.index.codes(), &device).unwrap();
    drop(network);

    let threads = rayon::current_num_threads();
    println!("{}, {} items, {threads} threads, histories of {EVENTS}\n", bundle.manifest.name, bundle.index.len());
    println!("| engine | batch | least ms | p50 ms | users/s at p50 | processor ms a batch | users/s of a processor |");
    println!("|---|---|---|---|---|---|---|");
    let histories = histories(&bundle);
    let root = bundle.index.root(&Filter::default(), &[]);
    let mut parts = Vec::new();
    for engine in [Engine::Beam, Engine::Draft, Engine::Exact] {
        let settings: DecodeSettings = bundle.manifest.decode_as().unwrap();
        let settings = DecodeSettings { engine, beam: 20, ..settings };
        for batch in BATCHES {
            let job = |history| DecodeJob {
                history,
                k: WANTED,
                root: &root,
                settings: &settings,
                explain: false,
                bias: None,
            };
            let jobs: Vec<DecodeJob<'_>> = histories[..batch].iter().map(job).collect();
            let mut ask = |decoder: &mut Decoder| decoder.decode(&mut scorer, &bundle.index, &jobs, &|_| true).unwrap();
            let mut decoder = Decoder::default();
            let before = processor_ms();
            let took = sample(seconds, || black_box(ask(&mut decoder)));
            let processor = (processor_ms() - before) / (took.len() + WARM) as f64;
            let p50 = took[took.len() / 2];
            let rate = |ms: f64| batch as f64 * 1e3 / ms;
            println!(
                "| {engine:?} | {batch} | {:.3} | {p50:.3} | {:.0} | {processor:.3} | {:.0} |",
                took[0],
                rate(p50),
                rate(processor)
            );
            if threads == 1 {
                parts.push((engine, batch, breakdown(seconds / 2.0, &bundle, ask)));
            }
        }
    }
    if threads == 1 {
        tell_parts(&parts);
    }
    products(seconds / 4.0);
}

/// Histories that users of the bundle had, repeated until they are long enough, each begun elsewhere.
fn histories(bundle: &LoadedBundle) -> Vec<History> {
    let most = BATCHES.into_iter().max().unwrap();
    (0..most)
        .map(|user| {
            let golden = &bundle.golden[user % bundle.golden.len()].history;
            let event = |at: usize| {
                let event = &golden[(at + user) % golden.len()];
                let item = bundle.index.number(&event.item_id).unwrap();
                HistoryEntry { item, kind: event.kind, time: event.time }
            };
            (0..EVENTS).map(event).collect()
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
    let mut decoder = Decoder::watched(|part| turn(Some(part)));
    let (mut runs, mut requests) = (Vec::new(), 1);
    sample(seconds, || {
        CLOCK.with_borrow_mut(|clock| clock.spent = Default::default());
        let outcomes = ask(&mut decoder);
        turn(None);
        requests = outcomes.len();
        let began = Instant::now();
        for ranked in outcomes.iter().flatten().flat_map(|outcome| &outcome.items) {
            let item = &bundle.index.item(ranked.item).item;
            black_box((item.id.clone(), item.title.clone(), item.categories.clone()));
        }
        let resolve = began.elapsed();
        runs.push(CLOCK.with_borrow(|clock| clock.spent.into_iter().chain([resolve]).collect::<Vec<_>>()));
    });
    (0..=Part::ALL.len())
        .map(|part| {
            let mut took: Vec<f64> = runs.iter().map(|run| run[part].as_secs_f64() * 1e6 / requests as f64).collect();
            took.sort_by(f64::total_cmp);
            took[took.len() / 2]
        })
        .collect()
}

fn tell_parts(parts: &[(Engine, usize, Vec<f64>)]) {
    let names = Part::ALL.map(|part| format!("{part:?}").to_lowercase());
    println!("\nMicroseconds a request, medians:\n\n| engine | batch | {} | resolve |", names.join(" | "));
    println!("|---|---|{}", "---|".repeat(names.len() + 1));
    for (engine, batch, took) in parts {
        let took: Vec<String> = took.iter().map(|took| format!("{took:.1}")).collect();
        println!("| {engine:?} | {batch} | {} |", took.join(" | "));
    }
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
