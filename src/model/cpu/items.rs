//! s(i) = <h, v_i> of every item.

use pulp::{Arch, Simd, WithSimd};

use super::gemm::{Packed, sums};
use crate::decode::Dot;
use crate::domain::{breathe_at, share_out};

/// So many requests are scored item by item; more, by a product of matrices.
const FEW: usize = 2;

/// Items of a product's tile.
const TILE: usize = 8;

/// The products of some queries, `[queries, d]`, with every item's vector, `[items, d]`, into `scores`,
/// `[queries, items]`, by so many threads.
pub fn score(items: &[f32], queries: &[f32], width: usize, scores: &mut [f32], threads: usize) {
    let (count, rows) = (items.len() / width, queries.len() / width);
    if rows == 0 {
        return;
    }
    // Whole tiles to each thread.
    let share = count.div_ceil(threads).next_multiple_of(TILE);
    let mut shares: Vec<(&[f32], Vec<&mut [f32]>)> =
        items.chunks(share * width).map(|items| (items, Vec::with_capacity(rows))).collect();
    for row in scores.chunks_exact_mut(count) {
        row.chunks_mut(share).zip(&mut shares).for_each(|(part, (_, parts))| parts.push(part));
    }
    share_out(shares, |(items, mut parts)| {
        let parts = &mut parts[..];
        if rows <= FEW {
            Arch::new().dispatch(OneByOne { items, queries, width, scores: parts });
        } else {
            let mut columns = Packed::zeros(width, rows);
            columns.fill_columns(queries, width, 0..width);
            Arch::new().dispatch(Together { items, columns: &columns, scores: parts });
        }
    });
}

struct OneByOne<'a, 's> {
    items: &'a [f32],
    queries: &'a [f32],
    width: usize,
    scores: &'a mut [&'s mut [f32]],
}

impl WithSimd for OneByOne<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (at, item) in self.items.chunks_exact(self.width).enumerate() {
            breathe_at(at);
            for (query, scores) in self.queries.chunks_exact(self.width).zip(self.scores.iter_mut()) {
                let mut dot = Dot::<S>::zero(simd);
                dot.add(simd, query, item);
                scores[at] = dot.total(simd);
            }
        }
    }
}

struct Together<'a, 's> {
    items: &'a [f32],
    /// The queries as columns.
    columns: &'a Packed,
    scores: &'a mut [&'s mut [f32]],
}

impl WithSimd for Together<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.columns.outer() <= S::F32_LANES {
            self.put::<S, 1>(simd);
        } else {
            self.put::<S, 2>(simd);
        }
    }
}

impl Together<'_, '_> {
    /// W: registers of each panel that hold queries.
    #[inline(always)]
    fn put<S: Simd, const W: usize>(self, simd: S) {
        let width = self.columns.inner();
        for (tile, items) in self.items.chunks(TILE * width).enumerate() {
            let first = tile * TILE;
            breathe_at(first);
            if items.len() == TILE * width {
                put_tile::<S, TILE, W>(simd, items, first, self.columns, self.scores);
            } else {
                for (at, item) in items.chunks_exact(width).enumerate() {
                    put_tile::<S, 1, W>(simd, item, first + at, self.columns, self.scores);
                }
            }
        }
    }
}

/// R items times all queries.
#[inline(always)]
fn put_tile<S: Simd, const R: usize, const W: usize>(
    simd: S,
    items: &[f32],
    first: usize,
    columns: &Packed,
    scores: &mut [&mut [f32]],
) {
    // As many numbers as any machine's two registers hold.
    const WIDEST: usize = 32;
    let mut rest = scores;
    for panel in columns.panels() {
        let mut values = [[0.0f32; WIDEST]; R];
        for (values, sums) in values.iter_mut().zip(sums::<S, R, W>(simd, items, panel)) {
            let (places, _) = S::as_mut_simd_f32s(values);
            places.iter_mut().zip(sums).for_each(|(place, sum)| *place = sum);
        }
        let (these, others) = rest.split_at_mut(columns.panel_width().min(rest.len()));
        for (query, scores) in these.iter_mut().enumerate() {
            let scores = &mut scores[first..first + R];
            scores.iter_mut().zip(&values).for_each(|(score, values)| *score = values[query]);
        }
        rest = others;
    }
}
