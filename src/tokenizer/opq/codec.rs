//! A fitted OPQ at work.

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};

use super::config::OpqConfig;
#[cfg(feature = "train")]
use crate::tokenizer::assign::{Choices, independent};
use crate::tokenizer::matrix::Matrix;
#[cfg(feature = "train")]
use crate::tokenizer::matrix::host;
#[cfg(feature = "train")]
use crate::tokenizer::nearest::half_distances;
use crate::tokenizer::nearest::{by_item, nearest};
use crate::tokenizer::quantiser::Codec;
use crate::tokenizer::tensors::NamedTensor;

/// The names and shapes of the saved tensors, for rows of `width` numbers: y = ((x - mean) components / scale) rotation.
pub(in crate::tokenizer) fn layout(config: &OpqConfig, width: usize) -> Vec<(String, Vec<usize>)> {
    let reduced = config.reduced_width();
    let layout = [
        ("mean", vec![width]),
        ("components", vec![width, reduced]),
        ("scale", vec![reduced]),
        ("rotation", vec![reduced, reduced]),
        ("codebooks", vec![config.codebooks, config.entries, config.sub_width()]),
    ];
    layout.into_iter().map(|(name, shape)| (name.to_owned(), shape)).collect()
}

/// Rows to rotated components and back, and the codebooks: `[M, D, sub-width]`.
pub(in crate::tokenizer) struct OpqCodec<'a> {
    mean: &'a [f32],
    /// `[W, reduced]`
    forward: Matrix,
    /// `[reduced, W]`
    backward: Matrix,
    codebooks: &'a [f32],
    shape: [usize; 3],
}

impl<'a> OpqCodec<'a> {
    /// From tensors in the order and shapes of [`layout`], for rows of `width` numbers.
    pub fn new(config: &OpqConfig, tensors: &'a [NamedTensor], width: usize) -> Self {
        let reduced = config.reduced_width();
        let matrix = |rows, tensor: &NamedTensor| Matrix { rows, columns: reduced, data: tensor.data.clone() };
        let (components, rotation) = (matrix(width, &tensors[1]), matrix(reduced, &tensors[3]));
        let scale = &tensors[2].data;
        let (mut shrunk, mut stretched) = (components.clone(), components);
        shrunk.scale_columns(&scale.iter().map(|value| 1.0 / value).collect::<Vec<_>>());
        stretched.scale_columns(scale);
        Self {
            mean: &tensors[0].data,
            forward: shrunk.product(&rotation),
            backward: stretched.product(&rotation).transposed(),
            codebooks: &tensors[4].data,
            shape: [config.codebooks, config.entries, config.sub_width()],
        }
    }

    /// The rotated components: `[items, M, sub-width]`.
    fn rotated(&self, rows: &[f32]) -> Matrix {
        let centred = rows.chunks_exact(self.mean.len()).flat_map(|row| row.iter().zip(self.mean).map(|(x, m)| x - m));
        let data: Vec<f32> = centred.collect();
        Matrix { rows: data.len() / self.mean.len(), columns: self.mean.len(), data }.product(&self.forward)
    }

    /// The rotated components, a list a sub-space: `[M, items, sub-width]`.
    fn points(&self, rows: &[f32]) -> Tensor<Flex, 3> {
        let [codebooks, _, sub_width] = self.shape;
        let Matrix { rows: items, data, .. } = self.rotated(rows);
        let points = TensorData::new(data, [items, codebooks, sub_width]);
        Tensor::<Flex, 3>::from_data(points, &Default::default()).swap_dims(0, 1)
    }

    fn centres(&self) -> Tensor<Flex, 3> {
        Tensor::from_data(TensorData::new(self.codebooks.to_vec(), self.shape), &Default::default())
    }
}

impl Codec for OpqCodec<'_> {
    fn encode(&self, rows: &[f32]) -> Vec<u16> {
        by_item(&nearest(self.points(rows), self.centres()), self.shape[0])
    }

    fn latents(&self, rows: &[f32]) -> Vec<f32> {
        self.rotated(rows).data
    }

    fn decode(&self, _rows: &[f32], codes: &[u16]) -> Vec<f32> {
        let [codebooks, entries, sub_width] = self.shape;
        let place = |(at, &entry): (usize, &u16)| ((at % codebooks) * entries + usize::from(entry)) * sub_width;
        let places = codes.iter().enumerate().map(place);
        let data: Vec<f32> = places.flat_map(|at| self.codebooks[at..at + sub_width].iter().copied()).collect();
        let chosen = Matrix { rows: codes.len() / codebooks, columns: codebooks * sub_width, data };
        let mut rows = chosen.product(&self.backward).data;
        for row in rows.chunks_exact_mut(self.mean.len()) {
            row.iter_mut().zip(self.mean).for_each(|(value, mean)| *value += mean);
        }
        rows
    }

    #[cfg(feature = "train")]
    fn choices(&self, rows: &[f32], _codes: &[u16]) -> Vec<Box<dyn Choices + '_>> {
        let half = half_distances(self.points(rows), self.centres()).swap_dims(0, 1); // [items, M, D]
        let distances: Vec<f32> = host(half).into_iter().map(|value| 2.0 * value).collect();
        independent(&distances, self.shape[0], self.shape[1])
    }
}
