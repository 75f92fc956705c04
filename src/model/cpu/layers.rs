//! Norm, linear map and feed-forward over rows of numbers, with the weights of burn's layers.

use burn::nn;
use burn::tensor::backend::Backend;
use pulp::{Arch, Simd, WithSimd};

use super::gemm::{Packed, Put};
use super::memory::{EventMemory, HeadRoom};
use crate::model::block;
use crate::model::scorer::{ScorerError, floats};

/// Independent sums that vector registers hold, so that the loop vectorises.
const LANES: usize = 16;

/// Numbers between the two maps of a feed-forward layer that are held at once: half a MiB.
const BETWEEN: usize = 1 << 17;

/// Memory that layers work in, reused from call to call; one to a thread.
#[derive(Debug, Default)]
pub struct Room {
    /// `[rows, d]`
    pub x: Vec<f32>,
    /// `[rows, d]`
    pub normed: Vec<f32>,
    /// Queries, keys and values, `[rows, 3 * width of all heads]`.
    pub wide: Vec<f32>,
    /// What attention read, `[rows, width of all heads]`.
    pub read: Vec<f32>,
    /// `[rows at a time, inner width of the feed-forward]`
    pub inner: Vec<f32>,
    /// Attention weights of one query.
    pub weights: Vec<f32>,
    /// One history at a time, while it is encoded.
    pub memory: EventMemory,
    pub heads: HeadRoom,
    /// The path before one row, as places of positions.
    pub chain: Vec<usize>,
}

/// `len` numbers of `room`, of any values.
pub fn sized(room: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if room.len() < len {
        room.resize(len, 0.0);
    }
    &mut room[..len]
}

/// x / rms(x) * gamma, row by row.
#[derive(Debug)]
pub struct Norm {
    gamma: Vec<f32>,
    epsilon: f32,
}

impl Norm {
    pub fn of<B: Backend>(norm: &nn::RmsNorm<B>) -> Result<Self, ScorerError> {
        Ok(Self { gamma: floats(norm.gamma.val())?, epsilon: norm.epsilon as f32 })
    }

    /// `[rows, d]` to `[rows, d]`.
    pub fn forward(&self, x: &[f32], out: &mut [f32]) {
        Arch::new().dispatch(Normalise { norm: self, x, out });
    }
}

struct Normalise<'a> {
    norm: &'a Norm,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { norm, x, out } = self;
        let width = norm.gamma.len();
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let mean = squares(x) / width as f32;
            let scale = 1.0 / (mean + norm.epsilon).sqrt();
            for ((out, x), gamma) in out.iter_mut().zip(x).zip(&norm.gamma) {
                *out = x * scale * gamma;
            }
        }
    }
}

#[inline(always)]
fn squares(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let blocks = x.chunks_exact(LANES);
    let rest: f32 = blocks.remainder().iter().map(|x| x * x).sum();
    for block in blocks {
        (0..LANES).for_each(|lane| lanes[lane] += block[lane] * block[lane]);
    }
    lanes.iter().sum::<f32>() + rest
}

/// x W + b.
#[derive(Debug)]
pub struct Linear {
    weights: Packed,
    /// Empty for none.
    bias: Vec<f32>,
}

impl Linear {
    pub fn of<B: Backend>(linear: &nn::Linear<B>) -> Result<Self, ScorerError> {
        Self::beside(&[linear])
    }

    /// Several maps of the same rows as one, their outputs side by side.
    pub fn beside<B: Backend>(linears: &[&nn::Linear<B>]) -> Result<Self, ScorerError> {
        let inner = linears.first().map_or(0, |linear| linear.weight.dims()[0]);
        let outer: usize = linears.iter().map(|linear| linear.weight.dims()[1]).sum();
        let (mut weights, mut bias, mut column) = (vec![0.0; inner * outer], Vec::new(), 0);
        for linear in linears {
            let columns = linear.weight.dims()[1];
            let rows = floats(linear.weight.val())?;
            for (row, into) in rows.chunks_exact(columns).zip(weights.chunks_exact_mut(outer)) {
                into[column..column + columns].copy_from_slice(row);
            }
            match &linear.bias {
                Some(own) => {
                    bias.resize(column, 0.0);
                    bias.extend(floats(own.val())?);
                }
                None if !bias.is_empty() => bias.resize(column + columns, 0.0),
                None => {}
            }
            column += columns;
        }
        Ok(Self { weights: Packed::new(&weights, inner, outer), bias })
    }

    /// Weights, which is multiplications a row.
    pub fn size(&self) -> usize {
        self.weights.inner() * self.weights.outer()
    }

    /// Numbers in a row of the output.
    pub fn outer(&self) -> usize {
        self.weights.outer()
    }

    /// `[rows, inner]` to `[rows, outer]`.
    pub fn forward(&self, x: &[f32], out: &mut [f32], put: Put) {
        self.weights.product(x, &self.bias, out, put);
    }
}

/// Two linear maps with a ReLU between, behind a norm.
#[derive(Debug)]
pub struct FeedForward {
    norm: Norm,
    up: Linear,
    down: Linear,
}

impl FeedForward {
    pub fn of<B: Backend>(layer: &block::FeedForward<B>) -> Result<Self, ScorerError> {
        Ok(Self { norm: Norm::of(&layer.norm)?, up: Linear::of(&layer.up)?, down: Linear::of(&layer.down)? })
    }

    /// Weights, which is multiplications a row.
    pub fn size(&self) -> usize {
        self.up.size() + self.down.size()
    }

    /// Adds what the layer makes of x, `[rows, d]`, to x.
    pub fn add_to(&self, x: &mut [f32], normed: &mut [f32], inner: &mut Vec<f32>) {
        self.norm.forward(x, normed);
        let (width, wide) = (self.down.outer(), self.up.outer());
        // So many rows at a time that what is between the two maps stays in a core's cache.
        let rows = (BETWEEN / wide).max(1);
        for (x, normed) in x.chunks_mut(rows * width).zip(normed.chunks(rows * width)) {
            let inner = sized(inner, normed.len() / width * wide);
            self.up.forward(normed, inner, Put::Relu);
            self.down.forward(inner, x, Put::Add);
        }
    }
}
