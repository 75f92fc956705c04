//! Networks and catalogues that are drawn, not trained: of any size, for timing alone.

use std::time::Instant;

use burn::backend::Flex;
use burn::tensor::{Distribution, Tensor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use reg4rec::catalog::{CatalogItem, Index};
use reg4rec::domain::{CodeShape, CodeTable, EventKind, History, HistoryEntry, Item};
use reg4rec::model::{CpuScorer, NetworkConfig};

/// How large, beside what is the same for all.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub items: usize,
    pub shape: CodeShape,
    pub width: usize,
    pub most_events: usize,
    /// Whether every item has a vector of its own beside its tokens.
    pub residuals: bool,
}

/// A network of random weights for the items of the index.
pub fn scorer(size: Size, index: &Index) -> CpuScorer {
    drawn(config(size), size.residuals, index)
}

/// A network of the public sizes of TIGER (arXiv 2305.05065): 4 + 4 blocks, d 128, 6 heads of 64, feed-forward 1024, for
/// items without a vector of their own.
#[allow(dead_code, reason = "not every benchmark that draws networks asks for it")]
pub fn tiger(index: &Index, most_events: usize) -> CpuScorer {
    let size = Size { items: index.len(), shape: index.codes().shape(), width: 128, most_events, residuals: false };
    let config = NetworkConfig {
        heads: 6,
        head_width: Some(64),
        encoder_layers: 4,
        decoder_layers: 4,
        feed_forward: 1024,
        ..config(size)
    };
    drawn(config, false, index)
}

/// The sizes of such a network.
pub fn config(size: Size) -> NetworkConfig {
    NetworkConfig {
        items: size.items,
        categories: 50,
        codes: size.shape,
        reads_codes: true,
        own_residuals: true,
        feature_width: 0,
        width: size.width,
        heads: 4,
        head_width: None,
        encoder_layers: 2,
        decoder_layers: 1,
        feed_forward: size.width,
        max_history: size.most_events,
        dropout: 0.0,
    }
}

fn drawn(config: NetworkConfig, residuals: bool, index: &Index) -> CpuScorer {
    let device = Default::default();
    let mut network = config.init::<Flex>(&device);
    if residuals {
        let drawn = Tensor::<Flex, 2>::random([config.items, config.width], Distribution::Normal(0.0, 0.1), &device);
        network = network.with_residuals(drawn);
    }
    CpuScorer::new(&network, config, index.codes()).unwrap()
}

/// Items in clusters, the first ones the largest; seven in ten tokens are those of the cluster, so that tokens are held by
/// very different numbers of items.
pub fn index(items: usize, shape: CodeShape) -> Index {
    let mut random = StdRng::seed_from_u64(3);
    let clusters = (items / 20).clamp(10, 1000);
    let entries = shape.entries as u16;
    let centres: Vec<u16> = (0..clusters * shape.codebooks).map(|_| random.random_range(0..entries)).collect();
    let mut codes = Vec::with_capacity(items * shape.codebooks);
    for _ in 0..items {
        let cluster = (random.random::<f64>().powi(3) * clusters as f64) as usize;
        let centre = &centres[cluster * shape.codebooks..][..shape.codebooks];
        codes.extend(centre.iter().map(
            |&entry| {
                if random.random_bool(0.7) { entry } else { random.random_range(0..entries) }
            },
        ));
    }
    let item = |number: usize| CatalogItem {
        item: Item {
            id: number.to_string(),
            title: None,
            brand: None,
            categories: Vec::new(),
            price: None,
            eligible: true,
        },
        category: 0,
        prior: 0.0,
    };
    let codes = CodeTable::new(shape, codes).unwrap();
    Index::build((0..items).map(item).collect(), codes, vec!["all".to_owned()], "bench".to_owned()).unwrap()
}

/// Random histories of so many events.
pub fn histories(count: usize, events: usize, items: usize) -> Vec<History> {
    let mut random = StdRng::seed_from_u64(7);
    let mut event = |at: usize| HistoryEntry {
        item: random.random_range(0..items as u32),
        kind: EventKind::Click,
        time: at as i64 * 1000,
    };
    (0..count).map(|_| (0..events).map(&mut event).collect()).collect()
}

/// Milliseconds of every run within some seconds and of ten at least, least first; two runs before do not count.
pub fn sample(seconds: f64, mut run: impl FnMut()) -> Vec<f64> {
    (0..2).for_each(|_| run());
    let (began, mut took) = (Instant::now(), Vec::new());
    while took.len() < 10 || began.elapsed().as_secs_f64() < seconds {
        let run_began = Instant::now();
        run();
        took.push(run_began.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    took
}
