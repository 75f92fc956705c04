//! What a change of the catalogue costs: of an attribute, which stands in the overlay, and of an item that is new, which
//! makes a new index; and what a request pays for an overlay.
//!
//!   cargo bench --bench catalogue [-- ITEMS ...]      12000 and 1000000 items by default
//!
//! Items have random codes of 8 codebooks with 256 entries, a title of 40 letters, a brand of 1000, two categories and a
//! price. Times are the medians of nine.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints and may stop")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use reg4rec::catalog::{AddedItem, CatalogItem, Index, View};
use reg4rec::domain::{CodeShape, CodeTable, Filter, Item, ItemNumber};

const SHAPE: CodeShape = CodeShape { codebooks: 8, entries: 256 };
const ROUNDS: usize = 9;

fn main() {
    let sizes: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![12_000, 1_000_000] } else { sizes };
    println!("| items | overlay | change an attribute, ms | root of a request, ms | add an item, ms |");
    println!("|---|---|---|---|---|");
    for items in sizes {
        let index = index(items);
        for overlay in [0, 100, 2000] {
            let changed = (0..overlay).map(|at| (at * 5, item(at as usize * 5)));
            let view = View::of(Arc::clone(&index)).with(changed, "1+1".into());
            let one = [(7, Item { eligible: false, ..item(7) })];
            let change = median(|| drop(black_box(view.with(one.clone(), "1+2".into()))));
            let root = median(|| drop(black_box(view.root(&Filter::default(), &[]))));
            let new = AddedItem { row: row(items), code: vec![3; SHAPE.codebooks] };
            let add = median(|| drop(black_box(view.folded(vec![new.clone()], &[], "1+2".into()).unwrap())));
            println!("| {items} | {overlay} | {change:.3} | {root:.3} | {add:.1} |");
        }
    }
}

/// The median, in milliseconds.
fn median(mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            run();
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    times[ROUNDS / 2]
}

fn item(number: usize) -> Item {
    Item {
        id: format!("item-{number}"),
        title: Some(format!("{number:040}")),
        brand: Some(format!("brand-{}", number % 1000)),
        categories: vec![format!("shelf-{}", number % 20), format!("place-{}", number % 400)],
        price: Some((number % 10_000) as f32 / 100.0),
        eligible: true,
    }
}

fn row(number: usize) -> CatalogItem {
    CatalogItem { item: item(number), category: 0, prior: -((number + 1) as f32).ln() }
}

fn index(items: usize) -> Arc<Index> {
    let entry = |at: u64| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u16 % SHAPE.entries as u16;
    let entries = (0..(items * SHAPE.codebooks) as u64).map(entry).collect();
    let codes = CodeTable::new(SHAPE, entries).unwrap();
    assert!(ItemNumber::try_from(items).is_ok(), "{items} items: expected fewer than 2^32");
    Arc::new(Index::build((0..items).map(row).collect(), codes, vec!["any".into()], "1".into()).unwrap())
}
