//! The index at scale: built, saved, read, and asked.
//!
//!   cargo bench --bench index                                    criterion, 10^5 and 10^6 items
//!   cargo bench --bench index -- --table 10000000 [uniform] [usual] [DIR]
//!       one catalogue's figures, of an index that is made for look-ups of paths. uniform: any code is alike likely; usual: of
//!       an index as the service makes it, items numbered as they come; DIR: where it is saved
//!
//! `REG4REC_BENCH_ITEMS=10000000` lets criterion measure other sizes, separated by commas.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints and may stop")]

mod shop;
mod table;

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode};

use reg4rec::catalog::{Candidates, NextTokens};
use reg4rec::domain::{Filter, Token};
use shop::{Codes, Shop};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // This thread is one of the pool: so it waits for no other that sleeps.
    rayon::ThreadPoolBuilder::new().use_current_thread().build_global().unwrap();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match texts.as_slice() {
        ["--ask", items, path] => table::ask(items.parse().unwrap(), (*path).into()),
        ["--table", items, rest @ ..] => {
            let codes = if rest.contains(&"uniform") { Codes::Uniform } else { Codes::Clustered };
            let for_paths = !rest.contains(&"usual");
            let dir = rest.iter().find(|text| !text.starts_with('-') && !["uniform", "usual"].contains(*text));
            let dir = dir.map_or_else(std::env::temp_dir, Into::into);
            let shop = Shop::new(items.replace('_', "").parse().unwrap(), codes);
            table::build(&shop, for_paths, &dir);
        }
        _ => measure(&mut Criterion::default().configure_from_args()),
    }
}

fn measure(criterion: &mut Criterion) {
    let sizes = std::env::var("REG4REC_BENCH_ITEMS").unwrap_or_else(|_| "100000,1000000".to_owned());
    for items in sizes.split(',').map(|size| size.trim().parse().unwrap()) {
        let shop = Shop::new(items, Codes::Clustered);
        let (index, _) = shop.build(false);
        let mut group = criterion.benchmark_group("index");
        group.sampling_mode(SamplingMode::Flat).sample_size(20);
        let filter = Filter { include_categories: vec!["Category 0".into()], ..Filter::default() };
        group.bench_function(BenchmarkId::new("filter", items), |bench| {
            bench.iter(|| black_box(index.root(&filter, &[1, 2, 3])).len());
        });
        let mut at = 0;
        group.bench_function(BenchmarkId::new("look-up by id", items), |bench| {
            let ask = || {
                at += 1;
                Shop::id(shop::draw([at, 1, 9]) as usize % items)
            };
            bench.iter_batched(ask, |id| index.number(&id), BatchSize::SmallInput);
        });
        drop(index);
        let (index, _) = shop.build(true);
        let (root, mut next): (Candidates, _) = (index.eligible().clone(), NextTokens::default());
        for depth in 1..=3 {
            let requests: Vec<Vec<Vec<Token>>> = (0..64).map(|at| table::live_paths(&index, at, depth)).collect();
            let mut at = 0;
            group.bench_function(BenchmarkId::new(format!("masks of 20 paths of {depth}"), items), |bench| {
                bench.iter(|| {
                    at = (at + 1) % requests.len();
                    let paths: Vec<&[Token]> = requests[at].iter().map(Vec::as_slice).collect();
                    let mut next = next.among(&index, &root);
                    next.look_up(&paths);
                    black_box(next.mask(0)).len()
                });
            });
        }
        group.finish();
    }
}
