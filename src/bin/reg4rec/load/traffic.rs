//! What is asked: histories of a bundle's items.

use std::path::Path;

use anyhow::{Context, ensure};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use reg4rec::artifact;
use reg4rec::wire::v1;

/// Requests to be asked in turn.
pub struct Traffic {
    requests: Vec<v1::RecommendRequest>,
}

impl Traffic {
    /// Draws as many requests as there are users; of several `k` each gets one.
    pub fn of(
        bundle: &Path,
        history: (usize, usize),
        k: &[u32],
        beam: Option<u32>,
        users: usize,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let loaded = artifact::load(bundle).with_context(|| format!("--bundle {}", bundle.display()))?;
        let ids: Vec<&str> = (0..loaded.index.len() as u32).map(|item| loaded.index.id(item)).collect();
        ensure!(!ids.is_empty(), "--bundle {}: it has no items", bundle.display());
        let mut draw = ChaCha8Rng::seed_from_u64(seed);
        let mut request = || {
            let events = draw.random_range(history.0..=history.1);
            let mut item = || ids.choose(&mut draw).copied().unwrap_or_default().as_bytes().to_vec();
            let history = (0..events).map(|_| v1::Event { item_id: item(), ..v1::Event::default() }).collect();
            let decode = beam.map(|beam| v1::DecodeOptions { beam: Some(beam), ..v1::DecodeOptions::default() });
            v1::RecommendRequest { history, k: k.choose(&mut draw).copied(), decode, ..Default::default() }
        };
        Ok(Self { requests: (0..users).map(|_| request()).collect() })
    }

    /// The `nth` request; they begin anew after the last.
    pub fn request(&self, nth: usize) -> v1::RecommendRequest {
        self.requests[nth % self.requests.len()].clone()
    }
}

/// `20`, or `1-30`.
pub fn range(text: &str) -> Result<(usize, usize), String> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (low.parse(), high.parse()) {
        (Ok(low), Ok(high)) if 1 <= low && low <= high && high <= 1000 => Ok((low, high)),
        _ => Err(format!("{text:?}, expected N or LOW-HIGH with 1 <= LOW <= HIGH <= 1000")),
    }
}
