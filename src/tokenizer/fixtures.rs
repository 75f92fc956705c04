//! A small shop for this room's tests: six groups of similar items, users who stay within a group.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::matrix::gaussian;
use super::{FeatureConfig, ItemSource, MpqConfig, OpqConfig, Quantiser, RqConfig};

const GROUPS: usize = 6;

pub struct Shop {
    pub texts: Vec<String>,
    pub brands: Vec<Option<String>>,
    pub categories: Vec<Vec<String>>,
    pub prices: Vec<Option<f32>>,
    pub embeddings: Vec<Option<Vec<f32>>>,
    pub sequences: Vec<Vec<u32>>,
}

impl Shop {
    /// Item i is of group i mod 6.
    pub fn new(items: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let centres: Vec<Vec<f32>> = (0..GROUPS).map(|_| gaussian(12, &mut random)).collect();
        let near = |item: usize, random: &mut ChaCha8Rng| -> Vec<f32> {
            centres[item % GROUPS].iter().zip(gaussian(12, random)).map(|(c, noise)| c + 0.4 * noise).collect()
        };
        let user = |user: usize, random: &mut ChaCha8Rng| -> Vec<u32> {
            let event = |_| (random.random_range(0..items) / GROUPS * GROUPS + user % GROUPS).min(items - 1) as u32;
            (0..8).map(event).collect()
        };
        Self {
            texts: (0..items).map(|i| format!("Group {} item number {}", i % GROUPS, i % 17)).collect(),
            brands: (0..items).map(|i| Some(format!("brand {}", i % 9))).collect(),
            categories: (0..items).map(|i| vec!["all".to_owned(), format!("group {}", i % GROUPS)]).collect(),
            prices: (0..items).map(|i| Some((i % 23) as f32)).collect(),
            embeddings: (0..items).map(|i| Some(near(i, &mut random))).collect(),
            sequences: (0..items * 2).map(|u| user(u, &mut random)).collect(),
        }
    }

    pub fn sources(&self) -> Vec<ItemSource<'_>> {
        (0..self.texts.len())
            .map(|i| ItemSource {
                title: None,
                text: Some(&self.texts[i]),
                brand: self.brands[i].as_deref(),
                categories: &self.categories[i],
                price: self.prices[i],
                embedding: self.embeddings[i].as_deref(),
            })
            .collect()
    }
}

pub fn config() -> FeatureConfig {
    let mut config = FeatureConfig { text_width: 8, text_buckets: 256, ..FeatureConfig::default() };
    config.behaviour.width = 8;
    config.category.width = 4;
    config.category_buckets = 64;
    config.brand.width = 4;
    config.brand_buckets = 64;
    config
}

pub fn mpq() -> MpqConfig {
    MpqConfig {
        codebooks: 3,
        entries: 16,
        latent: 8,
        hidden: 16,
        decoder_hidden: 24,
        epochs: 30,
        warmup_epochs: 3,
        batch: 64,
        learning_rate: 5e-3,
        ..MpqConfig::default()
    }
}

pub fn rq() -> RqConfig {
    RqConfig {
        levels: 3,
        entries: 16,
        latent: 8,
        hidden: vec![32, 16],
        epochs: 30,
        warmup_epochs: 5,
        batch: 64,
        learning_rate: 5e-3,
        ..RqConfig::default()
    }
}

pub fn opq() -> OpqConfig {
    OpqConfig { codebooks: 3, entries: 16, width: 10, ..OpqConfig::default() }
}

/// One of each kind, of three codebooks of 16 entries.
pub fn quantisers() -> [Quantiser; 4] {
    let random = Quantiser::Random { codebooks: 3, entries: 16, seed: 17 };
    [Quantiser::Mpq(mpq()), Quantiser::Rq(rq()), Quantiser::Opq(opq()), random]
}
