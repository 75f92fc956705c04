//! The exact scorer by catalogue: what the scores of all items cost, and the best hundred of them.
//!
//!   cargo bench --bench scorer [-- ITEMS ...]            100,000 and 1,000,000 items by default
//!   RAYON_NUM_THREADS=1 cargo bench --bench scorer       one thread; only then the parts are told
//!
//! Networks are drawn at random: M 8, D 256, d 128. "tokens": residuals are zero, an item is its code. "residuals": every
//! item has a vector of its own. Before an engine is timed, its best items are compared with those of a sorted list.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints and may stop")]

mod parts;
mod shop;

use std::hint::black_box;

use reg4rec::decode::{DecodeJob, DecodeSettings, Decoder, Engine, PathModel};
use reg4rec::domain::{CodeShape, Filter, ItemNumber};

use shop::Size;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHAPE: CodeShape = CodeShape { codebooks: 8, entries: 256 };
const WIDTH: usize = 128;
const EVENTS: usize = 20;
const WANTED: usize = 100;
const SECONDS: f64 = 4.0;

fn main() {
    // As the service: the thread that decodes is one of the pool.
    rayon::ThreadPoolBuilder::new().use_current_thread().build_global().unwrap();
    let given: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if given.is_empty() { vec![100_000, 1_000_000] } else { given };
    println!("{} threads, M {} x D {}, d {WIDTH}\n", rayon::current_num_threads(), SHAPE.codebooks, SHAPE.entries);
    println!("| items | network | what | batch | least ms | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|");
    let mut cases = Vec::new();
    for items in sizes {
        for residuals in [false, true] {
            measure(Size { items, shape: SHAPE, width: WIDTH, most_events: 50, residuals }, &mut cases);
        }
    }
    if !cases.is_empty() {
        parts::tell(&cases, &[]);
    }
}

/// Tells how long one network takes; `cases` takes what the parts of its batches do.
fn measure(size: Size, cases: &mut Vec<(String, Engine, usize, Vec<f64>)>) {
    let items = size.items;
    let network = if size.residuals { "residuals" } else { "tokens" };
    let tell = |what: &str, batch: usize, run: &mut dyn FnMut()| {
        let took = shop::sample(SECONDS, run);
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        println!("| {items} | {network} | {what} | {batch} | {:.2} | {:.2} | {:.2} |", took[0], at(0.5), at(0.99));
    };
    let index = shop::index(items, SHAPE);
    let mut scorer = shop::scorer(size, &index);
    let histories = shop::histories(32, EVENTS, items);
    let root = index.root(&Filter::default(), &[]);
    let settings = DecodeSettings { corp: false, ..DecodeSettings::default() };
    let mut decoder = Decoder::default();

    scorer.encode(&[&histories[0]]).unwrap();
    let mut scores = vec![0.0; items];
    tell("scores of all", 1, &mut || scorer.score_items(0..1, &mut scores).unwrap());
    let (truth, sorted) = (scores.clone(), best(&scores));
    if scorer.score_items_nearly(0..1, &mut scores).unwrap() {
        tell("scores of all, nearly", 1, &mut || {
            black_box(scorer.score_items_nearly(0..1, &mut scores).unwrap());
        });
    }
    for engine in [Engine::Exact, Engine::Beam] {
        let settings = DecodeSettings { engine, ..settings.clone() };
        let k = if engine == Engine::Exact { WANTED } else { 10 };
        for batch in [1, 32] {
            let job = |history| DecodeJob { history, k, root: &root, settings: &settings, explain: false, bias: None };
            let jobs: Vec<DecodeJob<'_>> = histories[..batch].iter().map(job).collect();
            let mut ask = || decoder.decode(&mut scorer, &index, &jobs, &|_| true).unwrap();
            if engine == Engine::Exact {
                let found = ask()[0].take().unwrap().items;
                // Shares are rounded, so that neighbours within a rounding may change places.
                for (place, (found, expected)) in found.iter().zip(&sorted).enumerate() {
                    let (found, expected) = (truth[found.item as usize], truth[*expected as usize]);
                    assert!((found - expected).abs() <= 1e-5, "place {place}, batch {batch}: {found}, not {expected}");
                }
            }
            let name = format!("engine {engine:?}, the best {k}").to_lowercase();
            tell(&name, batch, &mut || drop(black_box(ask())));
            if rayon::current_num_threads() == 1 {
                let (mut decoder, mut runs) = (parts::decoder(), Vec::new());
                shop::sample(SECONDS / 2.0, || {
                    parts::begin();
                    drop(black_box(decoder.decode(&mut scorer, &index, &jobs, &|_| true).unwrap()));
                    runs.push(parts::end());
                });
                cases.push((format!("{items} {network}"), engine, batch, parts::medians(&runs, batch)));
            }
        }
    }
}

/// The best items by score, all of them sorted; ties by number.
fn best(scores: &[f32]) -> Vec<ItemNumber> {
    let mut order: Vec<ItemNumber> = (0..scores.len() as ItemNumber).collect();
    order.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b)));
    order.truncate(WANTED);
    order
}
