//! Item vectors in a byte a number: a quarter of the memory to read, and a bound on what that loses.
//!
//! In large catalogues every request is bound by reading every item's vector. The sweep over bytes says which items can
//! be among the best at all, and only those are scored by their true vectors: the way of product quantisation in search,
//! with a bound in the place of luck.

use pulp::{Arch, Simd, WithSimd};

use crate::domain::{breathe_at, share_out};

/// Numbers of a row that one step of the sweep takes in.
const BLOCK: usize = 32;

/// The largest byte of an item.
const MOST_BYTE: f32 = 127.0;

/// The largest whole number of a query: sums of [`Coarse::WIDEST`] products with bytes fit 32 bits.
const MOST_ENTRY: f32 = 16_383.0;

/// For each item bytes b and a scale c, so that its vector is nearly c b.
#[derive(Debug)]
pub struct Coarse {
    width: usize,
    /// `[items, d]`
    rows: Vec<i8>,
    /// `[items]`
    scales: Vec<f32>,
    /// `[items]`, see [`Self::margins`].
    margins: Vec<f32>,
    /// No margin is, or was, wider.
    widest: f32,
    /// The query in whole numbers, `[d]`.
    query: Vec<i32>,
}

impl Coarse {
    /// The widest vectors that a sweep can sum.
    pub const WIDEST: usize = 1024;

    /// Rounds `[items, width]` vectors; none when they are wider than [`Self::WIDEST`] or not all finite.
    pub fn of(vectors: &[f32], width: usize) -> Option<Self> {
        if width > Self::WIDEST || !vectors.iter().all(|number| number.is_finite()) {
            return None;
        }
        let items = vectors.len() / width;
        let (rows, scales, margins) =
            (Vec::with_capacity(vectors.len()), Vec::with_capacity(items), Vec::with_capacity(items));
        let mut coarse = Self { width, rows, scales, margins, widest: 0.0, query: Vec::new() };
        coarse.grow(items);
        vectors.chunks_exact(width).enumerate().for_each(|(item, vector)| coarse.set(item, vector));
        Some(coarse)
    }

    /// Makes room for so many items, those that are new of zeros.
    pub fn grow(&mut self, items: usize) {
        self.rows.resize(items * self.width, 0);
        self.scales.resize(items, 0.0);
        self.margins.resize(items, 0.0);
    }

    /// Rounds the vector of one item, finite numbers.
    pub fn set(&mut self, item: usize, vector: &[f32]) {
        let scale = largest(vector) / MOST_BYTE;
        let (mut missed, mut length) = (0.0f64, 0.0f64);
        for (byte, &number) in self.rows[item * self.width..][..self.width].iter_mut().zip(vector) {
            *byte = whole(number, scale).clamp(-MOST_BYTE, MOST_BYTE) as i8;
            let kept = f64::from(*byte) * f64::from(scale);
            missed += (f64::from(number) - kept).powi(2);
            length += kept.powi(2);
        }
        // For a query of length one: what half a step in each of its numbers turns, and the roundings of two sums.
        let by_query = (self.width as f64).sqrt() / f64::from(2.0 * MOST_ENTRY) + 1e-5;
        self.scales[item] = scale;
        self.margins[item] = (1.0001 * (missed.sqrt() + length.sqrt() * by_query)) as f32;
        self.widest = self.widest.max(self.margins[item]);
    }

    /// <query, v_i> of every item, nearly: within the length of the query times the item's margin. By so many threads.
    pub fn sweep(&mut self, query: &[f32], scores: &mut [f32], threads: usize) {
        let scale = largest(query) / MOST_ENTRY;
        self.query.clear();
        self.query.extend(query.iter().map(|&number| whole(number, scale) as i32));
        let Self { width, rows, scales, query, .. } = self;
        let share = scores.len().div_ceil(threads).max(1);
        let shares = rows.chunks(share * *width).zip(scales.chunks(share)).zip(scores.chunks_mut(share));
        share_out(shares, |((rows, scales), scores)| {
            Arch::new().dispatch(Sweep { width: *width, rows, scales, query, scale, scores });
        });
    }

    /// How far the score of each item may be off for a query of length one, `[items]`.
    pub fn margins(&self) -> &[f32] {
        &self.margins
    }

    /// How far any score may be off for a query of length one.
    pub fn widest(&self) -> f32 {
        self.widest
    }
}

fn largest(numbers: &[f32]) -> f32 {
    numbers.iter().fold(0.0, |most, number| most.max(number.abs()))
}

/// The number in steps of `scale`; zero when there are no steps.
fn whole(number: f32, scale: f32) -> f32 {
    if scale > 0.0 { (number / scale).round() } else { 0.0 }
}

struct Sweep<'a> {
    width: usize,
    rows: &'a [i8],
    scales: &'a [f32],
    query: &'a [i32],
    scale: f32,
    scores: &'a mut [f32],
}

impl WithSimd for Sweep<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (query, query_rest) = self.query.as_chunks::<BLOCK>();
        let rows = self.rows.chunks_exact(self.width).zip(self.scales).zip(self.scores);
        for (at, ((row, scale), score)) in rows.enumerate() {
            breathe_at(at);
            let (row, rest) = row.as_chunks::<BLOCK>();
            // A sum for each place, so that they are added up across only once.
            let mut sums = [0i32; BLOCK];
            for (row, query) in row.iter().zip(query) {
                (0..BLOCK).for_each(|at| sums[at] += i32::from(row[at]) * query[at]);
            }
            let rest: i32 = rest.iter().zip(query_rest).map(|(a, b)| i32::from(*a) * b).sum();
            let sum = sums.iter().sum::<i32>() + rest;
            *score = sum as f32 * (scale * self.scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn no_score_is_further_off_than_its_margin_says() {
        let mut random = StdRng::seed_from_u64(3);
        for width in [1, 31, 64, 128, 200] {
            let items = 500;
            // Items of very different lengths, some of a single large number, one of zeros.
            let mut vectors: Vec<f32> = (0..items * width).map(|_| random.random_range(-1.0..1.0)).collect();
            for (at, vector) in vectors.chunks_exact_mut(width).enumerate() {
                let factor = if at == 7 { 0.0 } else { 10f32.powi(at as i32 % 5 - 2) };
                vector.iter_mut().for_each(|number| *number *= factor);
                vector[0] *= if at % 9 == 0 { 50.0 } else { 1.0 };
            }
            let mut coarse = Coarse::of(&vectors, width).unwrap();
            for (size, threads) in [(0.0, 1), (1e-3, 2), (40.0, 3)] {
                let query: Vec<f32> = (0..width).map(|_| size * random.random_range(-1.0..1.0)).collect();
                let mut scores = vec![0.0; items];
                coarse.sweep(&query, &mut scores, threads);
                let length = query.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
                for (at, vector) in vectors.chunks_exact(width).enumerate() {
                    let true_score: f64 = vector.iter().zip(&query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    let off = (true_score - f64::from(scores[at])).abs();
                    let margin = length * f64::from(coarse.margins()[at]);
                    assert!(off <= margin, "width {width}, item {at}: off by {off}, margin {margin}");
                }
            }
        }
    }

    #[test]
    fn a_margin_is_a_hundredth_of_the_item() {
        let mut random = StdRng::seed_from_u64(4);
        let vectors: Vec<f32> = (0..1000 * 128).map(|_| random.random_range(-1.0..1.0)).collect();
        let coarse = Coarse::of(&vectors, 128).unwrap();
        for (vector, margin) in vectors.chunks_exact(128).zip(coarse.margins()) {
            let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
            assert!(*margin < 0.01 * length, "{margin} of {length}");
        }
    }

    #[test]
    fn numbers_without_end_and_rows_too_wide_are_not_rounded() {
        assert!(Coarse::of(&[1.0, f32::NAN], 2).is_none());
        assert!(Coarse::of(&vec![0.0; Coarse::WIDEST + 1], Coarse::WIDEST + 1).is_none());
    }
}
