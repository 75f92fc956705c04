//! What queries read from keys and values.

use pulp::{Arch, Simd, WithSimd};

use super::softmax::soften;
use crate::decode::Dot;

/// How the numbers of queries, keys and values fall into heads.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Numbers of one in all heads.
    pub width: usize,
    /// Heads; divides `width`.
    pub count: usize,
}

/// Keys and values by position, each of all heads.
pub trait Memory {
    /// Positions that query `at` looks at, and room for its own needs.
    fn positions(&mut self, at: usize) -> usize;
    /// The query.
    fn query(&self, at: usize) -> &[f32];
    /// Key and value of one of its positions.
    fn key_value(&self, at: usize, position: usize) -> (&[f32], &[f32]);
}

/// What each query reads, `[queries, width of all heads]`: for each head, the values weighed by
/// softmax(<query, key> / sqrt(head width)).
/// `weights` is room for the weights of one query.
pub fn attend<M: Memory>(memory: M, heads: Heads, weights: &mut Vec<f32>, out: &mut [f32]) {
    Arch::new().dispatch(Attend { memory, heads, weights, out });
}

struct Attend<'a, M> {
    memory: M,
    heads: Heads,
    weights: &'a mut Vec<f32>,
    out: &'a mut [f32],
}

impl<M: Memory> WithSimd for Attend<'_, M> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { mut memory, heads, weights, out } = self;
        let per = heads.width / heads.count;
        let scale = 1.0 / (per as f32).sqrt();
        for (at, out) in out.chunks_exact_mut(heads.width).enumerate() {
            let positions = memory.positions(at);
            if weights.len() < positions {
                weights.resize(positions, 0.0);
            }
            let weights = &mut weights[..positions];
            for (head, out) in out.chunks_exact_mut(per).enumerate() {
                let part = head * per..(head + 1) * per;
                let query = &memory.query(at)[part.clone()];
                for (position, weight) in weights.iter_mut().enumerate() {
                    let (key, _) = memory.key_value(at, position);
                    let mut dot = Dot::<S>::zero(simd);
                    dot.add(simd, query, &key[part.clone()]);
                    *weight = dot.total(simd) * scale;
                }
                soften(simd, weights);
                for (block, out) in out.chunks_mut(S::F32_LANES).enumerate() {
                    let start = part.start + block * S::F32_LANES;
                    let mut sum = simd.splat_f32s(0.0);
                    for (position, &weight) in weights.iter().enumerate() {
                        let (_, value) = memory.key_value(at, position);
                        let value = load::<S>(simd, &value[start..start + out.len()]);
                        sum = simd.mul_add_e_f32s(simd.splat_f32s(weight), value, sum);
                    }
                    simd.partial_store_f32s(out, sum);
                }
            }
        }
    }
}

#[inline(always)]
fn load<S: Simd>(simd: S, from: &[f32]) -> S::f32s {
    match S::as_simd_f32s(from).0.first() {
        Some(whole) => *whole,
        None => simd.partial_load_f32s(from),
    }
}
