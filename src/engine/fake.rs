//! A network made of a hash function, whose every call a test may hold up, fail or count.

use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use crate::catalog::{CatalogItem, Index};
use crate::decode::{Advance, PathModel, PathState, Placement, Shape, TokenVectors};
use crate::domain::{CodeShape, CodeTable, EventKind, History, HistoryEntry, Item, ItemNumber};

pub(crate) const SHAPE: CodeShape = CodeShape { codebooks: 3, entries: 8 };
pub(crate) const CATEGORIES: [&str; 3] = ["soap", "oil", "comb"];

/// Every token is a direction of its own.
static TOKENS: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let mut rows = vec![0.0; SHAPE.tokens() * SHAPE.tokens()];
    rows.iter_mut().step_by(SHAPE.tokens() + 1).for_each(|place| *place = 1.0);
    rows
});

/// The entries of an item's code.
fn code(item: u32) -> [usize; 3] {
    [item % 8, item / 8 % 8, item / 64 % 8].map(|entry| entry as usize)
}

/// Whoever has this item in the history makes the network panic.
pub(crate) const PANICS: ItemNumber = 1;
/// Whoever has this item in the history makes the network fail.
pub(crate) const FAILS: ItemNumber = 2;

/// `items` items named i0, i1, …; of brand b0 or b1, of three categories, i0 the most popular; the last not eligible.
pub(crate) fn index(items: u32) -> Arc<Index> {
    let rows = (0..items).map(|number| CatalogItem {
        item: Item {
            id: format!("i{number}"),
            title: Some(format!("Item {number}")),
            brand: Some(format!("b{}", number % 2)),
            categories: vec!["beauty".into(), CATEGORIES[number as usize % 3].into()],
            price: Some(number as f32),
            eligible: number + 1 < items,
        },
        category: number % 3,
        prior: -(1.0 + number as f32).ln(),
    });
    let entries = (0..items).flat_map(|item| code(item).map(|entry| entry as u16)).collect();
    let codes = CodeTable::new(SHAPE, entries).unwrap();
    let names = CATEGORIES.map(String::from).to_vec();
    Arc::new(Index::build(rows.collect(), codes, names, "index-1".into()).unwrap())
}

pub(crate) fn history(items: &[ItemNumber]) -> History {
    let entry = |(time, &item)| HistoryEntry { item, kind: EventKind::View, time: time as i64 };
    items.iter().enumerate().map(entry).collect()
}

pub(crate) type Batches = Arc<Mutex<Vec<usize>>>;

/// Waits until the network has begun with its `count`th batch.
pub(crate) async fn until_begun(batches: &Batches, count: usize) {
    while batches.lock().unwrap().len() < count {
        tokio::task::yield_now().await;
    }
}

#[derive(Default)]
pub(crate) struct FakeModel {
    /// How long each `encode` takes.
    pub(crate) encode: Duration,
    /// Each `encode` waits for one word here, when set.
    pub(crate) gate: Option<Receiver<()>>,
    /// Whether it keeps calm whatever it reads.
    pub(crate) steady: bool,
    /// Rows of every `encode` that has begun so far.
    pub(crate) batches: Batches,
    /// Rows of every `encode` for scores alone that has begun so far; they are among `batches`, too.
    pub(crate) for_scores: Batches,
    /// Shapes that it wants to have seen, each with as many paths as here.
    pub(crate) paths_to_see: Vec<usize>,
    /// Rows of every `advance` so far.
    pub(crate) advances: Batches,
    /// Seeds of the requests of this batch.
    pub(crate) users: Vec<u64>,
    /// Seeds of the paths of the last step.
    pub(crate) paths: Vec<u64>,
}

impl FakeModel {
    /// A network that waits before each batch, and what lets it go on.
    pub(crate) fn gated() -> (Self, Sender<()>) {
        let (open, gate) = channel();
        (Self { gate: Some(gate), ..Self::default() }, open)
    }
}

/// A number from 0 to 1 that depends on both.
fn noise(seed: u64, place: usize) -> f32 {
    let mut x = seed ^ (place as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((x >> 40) as f32) / (1u64 << 24) as f32
}

impl PathModel for FakeModel {
    type Error = String;

    fn shape(&self) -> CodeShape {
        SHAPE
    }

    fn categories(&self) -> usize {
        CATEGORIES.len()
    }

    fn token_vectors(&self) -> TokenVectors<'_> {
        TokenVectors { rows: &TOKENS, width: SHAPE.tokens(), sums: None }
    }

    fn encode(&mut self, histories: &[&History]) -> Result<(), String> {
        self.batches.lock().unwrap().push(histories.len());
        if let Some(gate) = &self.gate {
            let _ = gate.recv();
        }
        let until = Instant::now() + self.encode;
        while Instant::now() < until {
            std::thread::yield_now();
        }
        let holds =
            |item| !self.steady && histories.iter().any(|history| history.iter().any(|entry| entry.item == item));
        assert!(!holds(PANICS), "the network was asked to panic");
        if holds(FAILS) {
            return Err("the device is on fire".into());
        }
        let seed = |history: &&History| {
            history.iter().fold(17, |seed: u64, entry| seed.wrapping_mul(0x100_0000_01B3) ^ u64::from(entry.item))
        };
        self.users = histories.iter().map(seed).collect();
        Ok(())
    }

    fn encode_for_scores(&mut self, histories: &[&History]) -> Result<(), String> {
        self.for_scores.lock().unwrap().push(histories.len());
        self.encode(histories)
    }

    fn shapes(&self, most: Shape) -> Vec<Shape> {
        self.paths_to_see.iter().map(|&paths| Shape { paths, ..most }).collect()
    }

    fn score_items(&mut self, requests: Range<usize>, scores: &mut [f32]) -> Result<(), String> {
        let items = scores.len() / requests.len();
        for (&user, scores) in self.users[requests].iter().zip(scores.chunks_exact_mut(items)) {
            for (item, score) in (0..).zip(scores) {
                let places = code(item).into_iter().enumerate().map(|(r, entry)| r * SHAPE.entries + entry);
                *score = places.map(|place| 4.0 * noise(user, place)).sum();
            }
        }
        Ok(())
    }

    fn advance(&mut self, rows: &[Advance], _: bool) -> Result<Vec<PathState>, String> {
        self.advances.lock().unwrap().push(rows.len());
        let seed = |row: &Advance| match row.extends {
            None => self.users[row.request],
            Some((path, token)) => self.paths[path].wrapping_mul(31) ^ SHAPE.flat(token) as u64,
        };
        self.paths = rows.iter().map(seed).collect();
        let state = |&seed: &u64| {
            let beliefs: Vec<f32> = (0..CATEGORIES.len()).map(|place| 0.1 + noise(seed, 100 + place)).collect();
            let sum: f32 = beliefs.iter().sum();
            PathState {
                refinement: (0..SHAPE.tokens()).map(|place| noise(seed, 200 + place)).collect(),
                beliefs: beliefs.into_iter().map(|belief| belief / sum).collect(),
                attention: Vec::new(),
            }
        };
        Ok(self.paths.iter().map(state).collect())
    }

    fn place(&mut self, _: &CodeTable, _: &[Placement]) -> Result<(), String> {
        Ok(())
    }
}
