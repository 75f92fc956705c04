//! How the cost of a request grows with its history, the beam, the codebooks, the catalogue and the batch.
//!
//!   cargo bench --bench decode [-- PICTURE.svg]          a table, and the curves as a picture
//!   cargo bench --bench decode -- events batch           these alone, by words of their names
//!   RAYON_NUM_THREADS=1 cargo bench --bench decode       one thread
//!
//! Networks and items are drawn at random (see `shop.rs`), d 128. One size moves, the others stay at: 20 events, beam 20,
//! M 8, D 256, 12,000 items, batch 1. Early finish as in the defaults, no CORP, ten items wanted.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints and may stop")]

mod shop;

use std::fmt::Write;
use std::hint::black_box;

use reg4rec::decode::{DecodeJob, DecodeSettings, Decoder, Engine};
use reg4rec::domain::{CodeShape, Filter};

use shop::Size;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECONDS: f64 = 1.5;
const ENGINES: [Engine; 3] = [Engine::Beam, Engine::Draft, Engine::Exact];

/// What a request is like.
#[derive(Debug, Clone, Copy)]
struct Case {
    events: usize,
    beam: usize,
    codebooks: usize,
    items: usize,
    batch: usize,
}

const USUAL: Case = Case { events: 20, beam: 20, codebooks: 8, items: 12_000, batch: 1 };

/// One size that moves: its name, its values, and how a case takes one.
type Axis = (&'static str, &'static [usize], fn(usize) -> Case);

const AXES: [Axis; 5] = [
    ("events of the history", &[10, 20, 50, 100, 200, 500], |events| Case { events, ..USUAL }),
    ("beam", &[5, 10, 20, 50, 100, 200], |beam| Case { beam, ..USUAL }),
    ("codebooks M", &[2, 4, 8, 16, 32], |codebooks| Case { codebooks, ..USUAL }),
    ("items", &[1_000, 10_000, 100_000, 1_000_000], |items| Case { items, ..USUAL }),
    ("batch", &[1, 2, 4, 8, 16, 32, 64], |batch| Case { batch, ..USUAL }),
];

/// Of one axis: for each value the median of each engine, milliseconds.
type Curve = Vec<(usize, [f64; ENGINES.len()])>;

fn main() {
    // As the service: the thread that decodes is one of the pool.
    rayon::ThreadPoolBuilder::new().use_current_thread().build_global().unwrap();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let (pictures, axes): (Vec<&String>, Vec<&String>) = arguments.iter().partition(|name| name.ends_with(".svg"));
    println!("{} threads, usual: {USUAL:?}\n", rayon::current_num_threads());
    println!("| what grows | to | beam p50 ms | draft p50 ms | exact p50 ms |\n|---|---|---|---|---|");
    let mut curves: Vec<(&str, Curve)> = Vec::new();
    let wanted = |name: &str| axes.is_empty() || axes.iter().any(|axis| name.contains(axis.as_str()));
    for (name, values, case) in AXES.into_iter().filter(|axis| wanted(axis.0)) {
        let mut curve = Curve::new();
        for &value in values {
            let took = measure(case(value));
            println!("| {name} | {value} | {:.3} | {:.3} | {:.3} |", took[0], took[1], took[2]);
            curve.push((value, took));
        }
        curves.push((name, curve));
    }
    println!("\nCost when a size doubles, at its last two values (2: in proportion):\n");
    println!("| what grows | beam | draft | exact |\n|---|---|---|---|");
    for (name, curve) in &curves {
        let [.., (before, early), (after, late)] = curve.as_slice() else { continue };
        let doublings = (*after as f64 / *before as f64).log2();
        let grown = |at: usize| (late[at] / early[at]).powf(1.0 / doublings);
        println!("| {name} | {:.2} | {:.2} | {:.2} |", grown(0), grown(1), grown(2));
    }
    for file in pictures {
        std::fs::write(file, draw(&curves)).unwrap();
        println!("\nthe curves: {file}");
    }
}

/// The median of a batch for each engine, milliseconds.
fn measure(case: Case) -> [f64; ENGINES.len()] {
    let shape = CodeShape { codebooks: case.codebooks, entries: 256 };
    let size = Size { items: case.items, shape, width: 128, most_events: case.events.max(50), residuals: true };
    let index = shop::index(case.items, shape);
    let mut scorer = shop::scorer(size, &index);
    let histories = shop::histories(case.batch, case.events, case.items);
    let root = index.root(&Filter::default(), &[]);
    ENGINES.map(|engine| {
        let settings = DecodeSettings { corp: false, beam: case.beam, engine, ..DecodeSettings::default() };
        let job = |history| DecodeJob { history, k: 10, root: &root, settings: &settings, explain: false, bias: None };
        let jobs: Vec<DecodeJob<'_>> = histories.iter().map(job).collect();
        let mut decoder = Decoder::default();
        let took = shop::sample(SECONDS, || {
            drop(black_box(decoder.decode(&mut scorer, &index, &jobs, &|_| true).unwrap()));
        });
        took[took.len() / 2]
    })
}

const PANEL: (f64, f64) = (380.0, 260.0);
/// Left, right, top, bottom.
const MARGINS: [f64; 4] = [56.0, 30.0, 34.0, 36.0];
/// Told apart also without red and green (Okabe and Ito's palette).
const COLOURS: [&str; ENGINES.len()] = ["#0072b2", "#d55e00", "#009e73"];

/// A panel for each axis, both scales logarithmic; the grey line grows in proportion.
fn draw(curves: &[(&str, Curve)]) -> String {
    let (width, height) = (2.0 * PANEL.0, curves.len().div_ceil(2) as f64 * PANEL.1);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">"#
    );
    let _ = writeln!(svg, "\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>");
    for (at, (name, curve)) in curves.iter().enumerate() {
        let (x, y) = ((at % 2) as f64 * PANEL.0, (at / 2) as f64 * PANEL.1);
        let _ = writeln!(svg, r#"<g transform="translate({x} {y})">"#);
        panel(&mut svg, name, curve);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, name: &str, curve: &Curve) {
    let [left, right, top, bottom] = MARGINS;
    let (inner, outer) = ((PANEL.0 - left - right), (PANEL.1 - top - bottom));
    let all = || curve.iter().flat_map(|(_, took)| took).copied();
    let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
    let (low, high) = (low.log10().floor(), high.log10().ceil());
    let (first, last) = (curve[0].0 as f64, curve[curve.len() - 1].0 as f64);
    let x = |value: f64| left + (value / first).ln() / (last / first).ln() * inner;
    let y = |ms: f64| top + (high - ms.log10()) / (high - low) * outer;
    let _ = writeln!(svg, r#"<text x="{left}" y="16" font-weight="bold">milliseconds by {name}</text>"#);
    for power in low as i32..=high as i32 {
        let (ms, end) = (10f64.powi(power), left + inner);
        let place = y(ms);
        let _ = writeln!(svg, r##"<line x1="{left}" y1="{place:.1}" x2="{end}" y2="{place:.1}" stroke="#ddd"/>"##);
        let (at, below) = (left - 5.0, place + 4.0);
        let _ = writeln!(svg, r#"<text x="{at}" y="{below:.1}" text-anchor="end">{ms}</text>"#);
    }
    for (value, _) in curve {
        let (place, below) = (x(*value as f64), top + outer + 16.0);
        let _ = writeln!(svg, r#"<text x="{place:.1}" y="{below}" text-anchor="middle">{value}</text>"#);
    }
    // From the dearest engine's first point.
    let start = curve[0].1.iter().copied().fold(0.0, f64::max);
    let reach = (10f64.powf(high) / start).min(last / first);
    let _ = writeln!(
        svg,
        r##"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="#999" stroke-dasharray="4 4"/>"##,
        x(first),
        y(start),
        x(first * reach),
        y(start * reach)
    );
    for (at, (engine, colour)) in ENGINES.iter().zip(COLOURS).enumerate() {
        let corner =
            |(value, took): &(usize, [f64; ENGINES.len()])| format!("{:.1},{:.1}", x(*value as f64), y(took[at]));
        let corners: Vec<String> = curve.iter().map(corner).collect();
        let corners = corners.join(" ");
        let _ = writeln!(svg, r#"<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="2"/>"#);
        let (place, name) = (left + 60.0 * at as f64, format!("{engine:?}").to_lowercase());
        let _ = writeln!(svg, r#"<text x="{place}" y="30" fill="{colour}">{name}</text>"#);
    }
}
