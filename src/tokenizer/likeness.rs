//! Which items are like which, by their features.

use rayon::prelude::*;

use super::FeatureTable;

/// Likeness counts by this power of its cosine.
const SHARPNESS: i32 = 8;

/// Feature rows of length one, without what only a past tells: that is no likeness to an item that has none.
#[derive(Debug, Clone)]
pub struct Likeness {
    width: usize,
    rows: Vec<f32>,
}

impl Likeness {
    /// The rows of `items` of a table, in that order.
    pub fn of(table: &FeatureTable, items: impl IntoIterator<Item = usize>) -> Self {
        let past = table.columns_of_the_past();
        let rows = items.into_iter().flat_map(|item| {
            let mut row = table.row(item).to_vec();
            past.iter().cloned().flatten().for_each(|column| row[column] = 0.0);
            let length = length(&row).max(f32::MIN_POSITIVE);
            row.iter_mut().for_each(|value| *value /= length);
            row
        });
        Self { width: table.width, rows: rows.collect() }
    }

    /// Rows of `width` numbers, each of length one.
    pub fn of_rows(width: usize, rows: Vec<f32>) -> Self {
        Self { width, rows }
    }

    /// The rows, one an item.
    pub fn rows(&self) -> impl IndexedParallelIterator<Item = &[f32]> {
        self.rows.par_chunks_exact(self.width)
    }

    /// The `count` rows likest to `row`, likest first, with shares by a power of their cosines that sum to one.
    pub fn nearest(&self, row: &[f32], count: usize) -> Vec<(usize, f32)> {
        let dot = |other: &[f32]| other.iter().zip(row).map(|(a, b)| a * b).sum::<f32>();
        let mut like: Vec<(usize, f32)> = self.rows.chunks_exact(self.width).map(dot).enumerate().collect();
        let closer = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if count < like.len() {
            like.select_nth_unstable_by(count, closer);
            like.truncate(count);
        }
        like.sort_unstable_by(closer);
        let weight = |cosine: f32| cosine.max(1.0e-3).powi(SHARPNESS);
        let total: f32 = like.iter().map(|(_, cosine)| weight(*cosine)).sum();
        like.into_iter().map(|(item, cosine)| (item, weight(cosine) / total)).collect()
    }
}

fn length(row: &[f32]) -> f32 {
    row.iter().map(|value| value * value).sum::<f32>().sqrt()
}
