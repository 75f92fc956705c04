//! Dense matrices on the host. Products run on burn's CPU backend, whose results do not depend on the thread count.

use burn::backend::Flex;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// A row-major matrix of 32-bit numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// `[rows, columns]`.
    pub data: Vec<f32>,
}

impl Matrix {
    /// All zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, data: vec![0.0; rows * columns] }
    }

    /// Independent standard normal entries.
    pub fn gaussian(rows: usize, columns: usize, random: &mut ChaCha8Rng) -> Self {
        Self { rows, columns, data: gaussian(rows * columns, random) }
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.columns..(row + 1) * self.columns]
    }

    /// The product `self * other`: `[rows, other.columns]`.
    pub fn product(&self, other: &Matrix) -> Matrix {
        let data = host(self.tensor().matmul(other.tensor()));
        Matrix { rows: self.rows, columns: other.columns, data }
    }

    /// The product of the transpose of self with `other`: `[columns, other.columns]`.
    pub fn transposed_product(&self, other: &Matrix) -> Matrix {
        let data = host(self.tensor().transpose().matmul(other.tensor()));
        Matrix { rows: self.columns, columns: other.columns, data }
    }

    /// `[columns, rows]`.
    pub fn transposed(&self) -> Matrix {
        let mut data = vec![0.0; self.data.len()];
        if self.rows > 0 {
            data.par_chunks_mut(self.rows).enumerate().for_each(|(column, out)| {
                for (row, value) in out.iter_mut().enumerate() {
                    *value = self.data[row * self.columns + column];
                }
            });
        }
        Matrix { rows: self.columns, columns: self.rows, data }
    }

    /// Multiplies column c by `factors[c]`.
    pub fn scale_columns(&mut self, factors: &[f32]) {
        for row in self.data.chunks_exact_mut(factors.len().max(1)) {
            row.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
        }
    }

    /// The first `columns` columns.
    pub fn truncated(&self, columns: usize) -> Matrix {
        let data = (0..self.rows).flat_map(|row| self.row(row)[..columns].iter().copied()).collect();
        Matrix { rows: self.rows, columns, data }
    }

    fn tensor(&self) -> Tensor<Flex, 2> {
        Tensor::from_data(TensorData::new(self.data.clone(), [self.rows, self.columns]), &Default::default())
    }
}

/// A tensor's values on the host, in row-major order.
pub(super) fn host<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// The mean of rows `[rows, width]`, summed in 64 bits: `[width]`.
#[cfg(feature = "train")]
pub(super) fn mean_row(rows: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; width];
    for row in rows.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
    }
    let count = (rows.len() / width).max(1) as f64;
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}

/// Standard normal numbers by the Box-Muller transform.
pub(super) fn gaussian(count: usize, random: &mut ChaCha8Rng) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(count + 1);
    while numbers.len() < count {
        // 1 - u is in (0, 1], so its logarithm is finite.
        let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
        let angle = std::f64::consts::TAU * random.random::<f64>();
        numbers.push((radius * angle.cos()) as f32);
        numbers.push((radius * angle.sin()) as f32);
    }
    numbers.truncate(count);
    numbers
}

/// The inner product, summed in an order that depends on the length alone.
pub(super) fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (left_chunks, right_chunks) = (left.chunks_exact(16), right.chunks_exact(16));
    let tail: f32 = left_chunks.remainder().iter().zip(right_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in left_chunks.zip(right_chunks) {
        for lane in 0..16 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + tail
}
