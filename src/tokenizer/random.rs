//! Random codes, the control of an experiment with codes: they say nothing of the items.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[cfg(feature = "train")]
use super::FeatureTable;
#[cfg(feature = "train")]
use super::assign::Choices;
use super::quantiser::Codec;
use super::tensors::NamedTensor;
use crate::domain::CodeShape;

/// Draws codes from a hash of the row.
pub(super) struct RandomCodec<'a> {
    shape: CodeShape,
    seed: u64,
    /// `[W]`: the best guess at a row of which nothing is known.
    mean: &'a [f32],
    width: usize,
}

/// The names and shapes of the saved tensors, for rows of `width` numbers.
pub(super) fn layout(width: usize) -> Vec<(String, Vec<usize>)> {
    vec![("mean".to_owned(), vec![width])]
}

/// The mean row.
#[cfg(feature = "train")]
pub(super) fn fit(features: &FeatureTable) -> Vec<NamedTensor> {
    vec![NamedTensor::vector("mean".to_owned(), super::matrix::mean_row(&features.rows, features.width))]
}

impl<'a> RandomCodec<'a> {
    /// From the saved tensors, for rows of `width` numbers.
    pub fn new(shape: CodeShape, seed: u64, tensors: &'a [NamedTensor], width: usize) -> Self {
        let mean = tensors.first().map(|tensor| tensor.data.as_slice()).unwrap_or_default();
        Self { shape, seed, mean, width }
    }

    /// A generator that this row and the seed alone determine: their bits, mixed by splitmix64.
    fn generator(&self, row: &[f32]) -> ChaCha8Rng {
        let mix = |hash: u64, bits: u64| {
            let mut hash = (hash ^ bits).wrapping_add(0x9e37_79b9_7f4a_7c15);
            hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            hash ^ (hash >> 31)
        };
        // Adding zero makes the two zeros one.
        let hash = row.iter().fold(mix(0, self.seed), |hash, value| mix(hash, u64::from((value + 0.0).to_bits())));
        ChaCha8Rng::seed_from_u64(hash)
    }
}

fn draw(shape: CodeShape, random: &mut ChaCha8Rng) -> Vec<u16> {
    (0..shape.codebooks).map(|_| random.random_range(0..shape.entries) as u16).collect()
}

impl Codec for RandomCodec<'_> {
    fn encode(&self, rows: &[f32]) -> Vec<u16> {
        rows.chunks_exact(self.width).flat_map(|row| draw(self.shape, &mut self.generator(row))).collect()
    }

    fn latents(&self, _rows: &[f32]) -> Vec<f32> {
        Vec::new()
    }

    fn decode(&self, rows: &[f32], _codes: &[u16]) -> Vec<f32> {
        self.mean.repeat(rows.len() / self.width)
    }

    #[cfg(feature = "train")]
    fn choices(&self, rows: &[f32], _codes: &[u16]) -> Vec<Box<dyn Choices + '_>> {
        let draws = |row| Box::new(Draws { shape: self.shape, random: self.generator(row) }) as Box<dyn Choices>;
        rows.chunks_exact(self.width).map(draws).collect()
    }
}

/// The codes that an item draws one after the other, the first of which is the one it has.
#[cfg(feature = "train")]
struct Draws {
    shape: CodeShape,
    random: ChaCha8Rng,
}

#[cfg(feature = "train")]
impl Choices for Draws {
    fn cheapest_move(&self) -> f32 {
        0.0
    }

    /// Ends because there is room for every item, which assignment checks: every code is drawn sooner or later.
    fn first_free(&self, free: &dyn Fn(&[u16]) -> bool) -> Option<Vec<u16>> {
        let mut random = self.random.clone();
        loop {
            let code = draw(self.shape, &mut random);
            if free(&code) {
                return Some(code);
            }
        }
    }
}
