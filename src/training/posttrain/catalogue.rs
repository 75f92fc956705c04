//! The catalogue as the host sees it: ln p of a path's tokens, and which way a refinement moves it.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use super::PostTrainError;
use crate::catalog::Index;
use crate::domain::{ItemNumber, Token};
use crate::model::{Network, flat_codes};
use crate::training::pretrain::{read, softmax_rows};

/// Items as rows of numbers, on the device and on the host.
#[derive(Debug)]
pub struct Catalogue<'a, B: Backend> {
    /// Items and codes.
    pub index: &'a Index,
    /// d.
    pub width: usize,
    /// v_i of all items, what h is multiplied with, `[items, d]`.
    pub vectors: Tensor<B, 2>,
    /// What a refinement is multiplied with: the tokens' part of v_i, `[items, d]`.
    pub basis: Tensor<B, 2>,
    /// `vectors` on the host.
    pub vector_rows: Vec<f32>,
    /// `basis` on the host.
    pub basis_rows: Vec<f32>,
}

impl<'a, B: Backend> Catalogue<'a, B> {
    /// The items of `index` as `network` sees them.
    pub fn new(index: &'a Index, network: &Network<B>, device: &B::Device) -> Result<Self, PostTrainError> {
        let flat = flat_codes(index.codes(), device);
        let (vectors, basis) = (network.item_vectors(flat.clone()), network.token_sums(flat));
        let width = vectors.dims()[1];
        let (vector_rows, basis_rows) = (read(vectors.clone())?, read(basis.clone())?);
        Ok(Self { index, width, vectors, basis, vector_rows, basis_rows })
    }

    /// <q, v_i> of every item, `[rows, d]` to `[rows, items]`.
    pub fn scores(&self, queries: Tensor<B, 2>) -> Result<Vec<f32>, PostTrainError> {
        read(queries.matmul(self.vectors.clone().transpose()))
    }

    /// P(i | h) at `<BOS>`: softmax over all items of `scores` and what the refinements add, `[rows, items]`.
    ///
    /// # Shapes
    /// - scores: s(i), `[rows, items]`
    /// - refinements: g(d_0), `[rows, d]`
    pub fn root(&self, scores: &[f32], refinements: Tensor<B, 2>) -> Result<Vec<f32>, PostTrainError> {
        let mut all = read(refinements.matmul(self.basis.clone().transpose()))?;
        all.iter_mut().zip(scores).for_each(|(refined, score)| *refined += score);
        softmax_rows(&mut all, self.index.len());
        Ok(all)
    }

    /// The mean row of `table` under each row of `weights`: `[rows, items]` times `[items, d]`.
    pub fn means(&self, weights: &[f32], table: &Tensor<B, 2>) -> Result<Vec<f32>, PostTrainError> {
        let items = self.index.len();
        let data = TensorData::new(weights.to_vec(), [weights.len() / items, items]);
        read(Tensor::<B, 2>::from_data(data, &table.device()).matmul(table.clone()))
    }

    /// P(i | h, path) over the items `held`, of s and of the refinement g(d_t), `[d]`.
    pub fn shares(&self, scores: &[f32], refinement: &[f32], held: &[ItemNumber], out: &mut Vec<f32>) {
        out.clear();
        out.extend(held.iter().map(|&item| {
            let row = self.row(&self.basis_rows, item);
            scores[item as usize] + row.iter().zip(refinement).map(|(u, g)| u * g).sum::<f32>()
        }));
        let count = out.len();
        softmax_rows(out, count);
    }

    /// Those of `held` that have the token.
    pub fn narrowed(&self, held: &[ItemNumber], token: Token) -> Vec<ItemNumber> {
        let has = |&item: &ItemNumber| self.index.codes().code(item)[usize::from(token.codebook)] == token.entry;
        held.iter().copied().filter(has).collect()
    }

    pub(super) fn row<'r>(&self, table: &'r [f32], item: ItemNumber) -> &'r [f32] {
        &table[item as usize * self.width..(item as usize + 1) * self.width]
    }
}

/// What a network says of one path: ln p of each token, and its gradients where they were asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// ln p of each token.
    pub log_p: Vec<f32>,
    /// d ln p_t / d g(d_t), `[T, d]`: the mean of u over the items that the token leaves, less that over those before it.
    pub by_refinement: Vec<f32>,
    /// The same of v, by h, `[T, d]`; empty when the encoder does not learn.
    pub by_query: Vec<f32>,
}

/// What is known of every path's context before its tokens are measured.
#[derive(Debug)]
pub struct Roots {
    /// s(i), `[contexts, items]`.
    pub scores: Vec<f32>,
    /// P(i | h), `[contexts, items]`.
    pub shares: Vec<f32>,
    /// The mean of u under it, `[contexts, d]`; empty where no gradient is asked for.
    pub basis_means: Vec<f32>,
    /// The mean of v under it, `[contexts, d]`; empty where the encoder does not learn.
    pub vector_means: Vec<f32>,
}

impl<B: Backend> Catalogue<'_, B> {
    /// Measures the tokens of all paths.
    ///
    /// # Shapes
    /// - paths: `[contexts * group]` token lists
    /// - refinements: g(d_t) for t from 0, `[contexts * group, steps, d]`; `steps` at least the longest path
    pub fn measure(&self, roots: &Roots, paths: &[&[Token]], refinements: &[f32], steps: usize) -> Vec<Measured> {
        let contexts = roots.shares.len() / self.index.len();
        let group = paths.len() / contexts.max(1);
        paths
            .par_iter()
            .enumerate()
            .map(|(at, tokens)| {
                let own = &refinements[at * steps * self.width..(at + 1) * steps * self.width];
                self.measure_one(roots, at / group.max(1), tokens, own)
            })
            .collect()
    }

    fn measure_one(&self, roots: &Roots, context: usize, tokens: &[Token], refinements: &[f32]) -> Measured {
        let (items, width) = (self.index.len(), self.width);
        let scores = &roots.scores[context * items..(context + 1) * items];
        let root = &roots.shares[context * items..(context + 1) * items];
        let mut measured = Measured::default();
        let mut held: Vec<ItemNumber> = Vec::new();
        let mut shares = Vec::new();
        for (step, &token) in tokens.iter().enumerate() {
            let next = if step == 0 {
                self.index.postings(token).to_vec()
            } else {
                self.shares(scores, &refinements[step * width..(step + 1) * width], &held, &mut shares);
                self.narrowed(&held, token)
            };
            let share_of = |item: ItemNumber| {
                if step == 0 { root[item as usize] } else { held.binary_search(&item).map_or(0.0, |at| shares[at]) }
            };
            let left: Vec<f32> = next.iter().map(|&item| share_of(item)).collect();
            // A share can round to nothing, and its logarithm must stay a number; but what is none must show.
            let sum = left.iter().sum::<f32>().clamp(f32::MIN_POSITIVE, 1.0);
            measured.log_p.push(sum.ln());
            let direct = |table: &[f32], means: &[f32], out: &mut Vec<f32>| {
                if means.is_empty() {
                    return;
                }
                let mut direction = vec![0.0f32; width];
                for (&item, &share) in next.iter().zip(&left) {
                    add(&mut direction, self.row(table, item), share / sum);
                }
                if step == 0 {
                    add(&mut direction, &means[context * width..(context + 1) * width], -1.0);
                } else {
                    held.iter()
                        .zip(&shares)
                        .for_each(|(&item, &share)| add(&mut direction, self.row(table, item), -share));
                }
                out.extend(direction);
            };
            direct(&self.basis_rows, &roots.basis_means, &mut measured.by_refinement);
            direct(&self.vector_rows, &roots.vector_means, &mut measured.by_query);
            held = next;
        }
        measured
    }
}

/// Adds a row times a share.
pub(super) fn add(sum: &mut [f32], row: &[f32], share: f32) {
    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += share * value);
}
