//! Which items users have together: positive pointwise mutual information of neighbours in training sequences.

use rayon::prelude::*;

use super::sparse::{SparseRows, sum_by_column};

/// Distances up to this one divide it, so that weights of one over the distance stay whole numbers: sums of whole
/// numbers do not depend on their order.
const WEIGHT_UNIT: u64 = 720_720;

/// `[items, items]`, symmetric: max(0, ln(c(a, b) * total / (c(a) * c(b))) - ln shift), where c sums 1 / distance over
/// events of one sequence at most `window` apart. Repeats of one item are not its neighbours.
///
/// `sequences` hold item numbers below `items`, and must be the training parts alone: whatever they hold is learned.
pub(super) fn mutual_information(items: usize, sequences: &[Vec<u32>], window: usize, shift: f32) -> SparseRows {
    let mut places = vec![Vec::new(); items];
    for (sequence, events) in sequences.iter().enumerate() {
        for (position, &item) in events.iter().enumerate() {
            places[item as usize].push((sequence, position));
        }
    }
    let counts: Vec<Vec<(u32, u64)>> = places
        .par_iter()
        .enumerate()
        .map(|(item, places)| neighbours(item as u32, places, sequences, window))
        .collect();
    let sums: Vec<u64> = counts.iter().map(|row| row.iter().map(|&(_, count)| count).sum()).collect();
    let total = sums.iter().sum::<u64>() as f64;
    let shift = f64::from(shift).ln();
    let rows = counts
        .par_iter()
        .enumerate()
        .map(|(item, row)| {
            row.iter()
                .map(|&(other, count)| {
                    let expected = sums[item] as f64 * sums[other as usize] as f64;
                    (other, ((count as f64 * total / expected).ln() - shift).max(0.0) as f32)
                })
                .filter(|&(_, value)| value > 0.0)
                .collect()
        })
        .collect();
    SparseRows::new(items, rows)
}

fn neighbours(item: u32, places: &[(usize, usize)], sequences: &[Vec<u32>], window: usize) -> Vec<(u32, u64)> {
    let mut found: Vec<(u32, u64)> = Vec::new();
    for &(sequence, position) in places {
        let events = &sequences[sequence];
        let (from, to) = (position.saturating_sub(window), (position + window + 1).min(events.len()));
        for (at, &other) in events[from..to].iter().enumerate() {
            if other != item {
                found.push((other, WEIGHT_UNIT / (from + at).abs_diff(position) as u64));
            }
        }
    }
    sum_by_column(&mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_seen_together_more_than_chance_have_information() {
        let sequences = vec![vec![0, 1], vec![1, 0], vec![2, 3], vec![3, 2], vec![0, 1, 2]];
        let rows = mutual_information(5, &sequences, 4, 1.0);
        assert_eq!(rows.row(0).first().map(|entry| entry.0), Some(1));
        assert!(rows.row(4).is_empty());
        for row in 0..5 {
            for &(column, value) in rows.row(row) {
                let back = rows.row(column as usize).iter().find(|entry| entry.0 == row as u32);
                assert_eq!(back.map(|entry| entry.1), Some(value));
            }
        }
    }
}
