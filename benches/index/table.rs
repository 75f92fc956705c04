//! One row of figures for a catalogue: built and saved by this process, read and asked by a fresh one.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use reg4rec::catalog::{Index, NextTokens, SavedFor};
use reg4rec::domain::{Filter, Token};

use crate::shop::{SHAPE, Shop, draw};

/// Requests of 20 live paths that are timed at each step.
const REQUESTS: usize = 500;
const PATHS: usize = 20;
/// Steps of a search.
const DEPTH: usize = 5;
/// What the saved index says it is of.
const KEY: &str = "bench";

/// Builds, saves, and lets a fresh process read and ask.
pub fn build(shop: &Shop, for_paths: bool, dir: &Path) {
    let items = shop.items;
    let path = dir.join(format!("reg4rec-index-{items}-{}", std::process::id()));
    let (index, seconds) = shop.build(for_paths);
    let bytes = index.bytes();
    let each = |bytes: usize| bytes as f64 / items as f64;
    println!("{items} items, {shop}{}", if for_paths { ", for look-ups of paths" } else { "" });
    println!(
        "  built in {seconds:.1} s; RSS {:.2} GB with titles in memory, at most {:.2} GB",
        rss("VmRSS"),
        rss("VmHWM")
    );
    println!(
        "  bytes an item: codes {:.2}, postings {:.2}, co-occurrence {:.2}, for paths {:.2}, ids and their look-up {:.2}, columns {:.2}, \
         attributes {:.2}; together {:.2}; titles {:.2} more until saved",
        each(bytes.codes),
        each(bytes.postings),
        each(bytes.cooccurrence),
        each(bytes.paths),
        each(bytes.ids),
        each(bytes.columns),
        each(bytes.attributes),
        each(bytes.total() - bytes.titles),
        each(bytes.titles)
    );
    let began = Instant::now();
    index.save(&path, KEY).unwrap();
    println!(
        "  saved in {:.1} s, {:.2} GB",
        began.elapsed().as_secs_f64(),
        fs::metadata(&path).unwrap().len() as f64 / 1e9
    );
    drop(index);
    // The page cache holds what was just written; only who may empties it.
    let emptied = fs::write("/proc/sys/vm/drop_caches", "3").is_ok();
    for (cache, emptied) in [("cold", emptied), ("warm", true)] {
        if emptied {
            println!("  {cache} page cache:");
            let mut ask = Command::new(std::env::current_exe().unwrap());
            assert!(ask.arg("--ask").arg(items.to_string()).arg(&path).status().unwrap().success());
        }
    }
    fs::remove_file(&path).unwrap();
}

/// Reads a saved index and asks it.
pub fn ask(items: usize, path: PathBuf) {
    let before = rss("VmRSS");
    let wanted = SavedFor {
        key: KEY.into(),
        items,
        shape: SHAPE,
        category_names: Shop::category_names(),
        version: "bench".into(),
    };
    let began = Instant::now();
    let index = Index::open_saved(&path, wanted).unwrap();
    let seconds = began.elapsed().as_secs_f64();
    let held = rss("VmRSS") - before;
    println!(
        "    read in {seconds:.2} s; resident {:.2} GB, {:.1} bytes an item (by parts {:.1})",
        held,
        held * 1e9 / items as f64,
        index.bytes().total() as f64 / items as f64
    );
    look_ups(&index);
    filters(&index);
    masks(&index);
}

fn look_ups(index: &Index) {
    let count = 1_000_000.min(index.len() * 4);
    let known: Vec<String> = (0..count).map(|at| Shop::id(draw([at as u64, 1, 9]) as usize % index.len())).collect();
    let unknown: Vec<String> = known.iter().map(|id| format!("{id}x")).collect();
    let time = |ids: &[String], found: bool| {
        let began = Instant::now();
        assert!(ids.iter().all(|id| index.number(id).is_some() == found));
        began.elapsed().as_secs_f64() * 1e9 / count as f64
    };
    let (known, unknown) = (time(&known, true), time(&unknown, false));
    let began = Instant::now();
    let resolved = 10_000;
    (0..resolved).for_each(|at| drop(black_box(index.item((draw([at, 2, 9]) % index.len() as u64) as u32))));
    let resolve = began.elapsed().as_secs_f64() * 1e6 / resolved as f64;
    println!(
        "    look-up by id: {known:.0} ns known, {unknown:.0} ns unknown; an item with its title: {resolve:.1} us"
    );
}

fn filters(index: &Index) {
    let named = |name: &str| vec![name.to_owned()];
    let filters = [
        ("none", Filter::default()),
        ("the largest category", Filter { include_categories: named("Category 0"), ..Filter::default() }),
        ("without it", Filter { exclude_categories: named("Category 0"), ..Filter::default() }),
        ("a small category", Filter { include_categories: named("Category 1999"), ..Filter::default() }),
        ("a brand", Filter { include_brands: named("Brand 7"), ..Filter::default() }),
        ("a price range", Filter { min_price: Some(5.0), max_price: Some(20.0), ..Filter::default() }),
    ];
    for (name, filter) in filters {
        let mut times = Vec::new();
        let mut left = 0;
        for _ in 0..20 {
            let began = Instant::now();
            left = black_box(index.root(&filter, &[1, 2, 3])).len();
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        println!("    filter, {name}: {left} items in {:.3} ms", quantile(&mut times, 0.5));
    }
}

fn masks(index: &Index) {
    let mut memory = NextTokens::default();
    let root = index.root(&Filter::default(), &[]);
    let seen: Vec<u32> = (0..50).map(|at| (draw([at, 3, 9]) % index.len() as u64) as u32).collect();
    let unseen = index.root(&Filter::default(), &seen);
    println!("    masks of {PATHS} paths:");
    let mut lines = vec![String::new(); DEPTH];
    for (depth, line) in (1..).zip(&mut lines) {
        let requests = (0..20).flat_map(|request| live_paths(index, request, depth));
        let mut counts: Vec<f64> = requests.map(|path| NextTokens::count(index, &root, &path) as f64).collect();
        let mean = counts.iter().sum::<f64>() / counts.len() as f64;
        let (half, most) = (quantile(&mut counts, 0.5), quantile(&mut counts, 0.99));
        *line = format!("      after {depth} tokens: {mean:.0} candidates (p50 {half:.0}, p99 {most:.0})");
    }
    for (name, root) in [("all items", &root), ("less 50 seen", &unseen)] {
        let mut times = vec![Vec::new(); DEPTH];
        for request in 0..REQUESTS {
            let steps: Vec<Vec<Vec<Token>>> = (1..=DEPTH).map(|depth| live_paths(index, request, depth)).collect();
            let mut began = Instant::now();
            let mut next = memory.among(index, root);
            for (paths, times) in steps.iter().zip(&mut times) {
                let paths: Vec<&[Token]> = paths.iter().map(Vec::as_slice).collect();
                next.look_up(&paths);
                black_box(next.mask(0));
                times.push(began.elapsed().as_secs_f64() * 1e3);
                began = Instant::now();
            }
        }
        for (times, line) in times.iter_mut().zip(&mut lines) {
            let (half, most) = (quantile(times, 0.5), quantile(times, 0.99));
            *line += &format!(", {name}: p50 {half:.3} ms, p99 {most:.3} ms");
        }
    }
    lines.iter().for_each(|line| println!("{line}"));
}

/// Paths of random items, each with its own tokens in its own order: hardly two share a token.
pub fn live_paths(index: &Index, request: usize, depth: usize) -> Vec<Vec<Token>> {
    let path = |path: usize| {
        let of = |what: u64| draw([(request * PATHS + path) as u64, what, 11]);
        let code = index.codes().code((of(0) % index.len() as u64) as u32);
        let mut codebooks: Vec<u8> = (0..8).collect();
        codebooks.sort_by_key(|&codebook| of(1 + u64::from(codebook)));
        let token = |&codebook: &u8| Token { codebook, entry: code[usize::from(codebook)] };
        codebooks[..depth].iter().map(token).collect()
    };
    (0..PATHS).map(path).collect()
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() as f64 * share) as usize).min(values.len() - 1)]
}

/// Gigabytes that the kernel counts for this process.
fn rss(line: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')?.trim().strip_suffix(" kB"));
    found.and_then(|kilobytes| kilobytes.trim().parse::<f64>().ok()).unwrap_or(f64::NAN) * 1024.0 / 1e9
}
