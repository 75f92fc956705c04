//! Sparse matrices, and what a truncated SVD needs of any matrix.

use std::ops::AddAssign;

use rayon::prelude::*;

use super::matrix::Matrix;

/// Sorts a row's entries by column and adds up those of the same column.
pub(super) fn sum_by_column<W: AddAssign + Copy>(entries: &mut Vec<(u32, W)>) {
    entries.sort_unstable_by_key(|entry| entry.0);
    entries.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
}

/// A matrix that is only ever multiplied with thin dense ones.
pub(super) trait Operator: Sync {
    /// Number of rows.
    fn rows(&self) -> usize;
    /// Number of columns.
    fn columns(&self) -> usize;
    /// A X: `[columns, k]` to `[rows, k]`.
    fn apply(&self, thin: &Matrix) -> Matrix;
    /// A^T X: `[rows, k]` to `[columns, k]`.
    fn apply_transposed(&self, thin: &Matrix) -> Matrix;
}

impl Operator for Matrix {
    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }

    fn apply(&self, thin: &Matrix) -> Matrix {
        self.product(thin)
    }

    fn apply_transposed(&self, thin: &Matrix) -> Matrix {
        self.transposed_product(thin)
    }
}

/// Rows of (column, value), columns ascending within a row.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct SparseRows {
    columns: usize,
    starts: Vec<usize>,
    entries: Vec<(u32, f32)>,
}

impl SparseRows {
    /// Takes each row's entries.
    pub fn new(columns: usize, rows: Vec<Vec<(u32, f32)>>) -> Self {
        let mut starts = Vec::with_capacity(rows.len() + 1);
        starts.push(0);
        let mut entries = Vec::with_capacity(rows.iter().map(Vec::len).sum());
        for row in rows {
            entries.extend(row);
            starts.push(entries.len());
        }
        Self { columns, starts, entries }
    }

    /// The entries of one row.
    pub fn row(&self, row: usize) -> &[(u32, f32)] {
        &self.entries[self.starts[row]..self.starts[row + 1]]
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Columns become rows.
    pub fn transposed(&self) -> SparseRows {
        let mut rows = vec![Vec::new(); self.columns];
        for row in 0..self.len() {
            for &(column, value) in self.row(row) {
                rows[column as usize].push((row as u32, value));
            }
        }
        SparseRows::new(self.len(), rows)
    }

    /// The product with a dense matrix: `[columns, k]` to `[rows, k]`. Each row is summed in its own order.
    pub fn product(&self, dense: &Matrix) -> Matrix {
        let width = dense.columns;
        let mut out = Matrix::zeros(self.len(), width);
        if width > 0 {
            out.data.par_chunks_mut(width).enumerate().for_each(|(row, sum)| {
                for &(column, value) in self.row(row) {
                    sum.iter_mut().zip(dense.row(column as usize)).for_each(|(s, d)| *s += value * d);
                }
            });
        }
        out
    }
}

/// A sparse matrix kept in both orientations, so that either product runs over rows.
pub(super) struct SparseOperator {
    forward: SparseRows,
    backward: SparseRows,
}

impl SparseOperator {
    /// Of a sparse matrix.
    pub fn new(forward: SparseRows) -> Self {
        let backward = forward.transposed();
        Self { forward, backward }
    }

    /// The matrix itself.
    pub fn forward(&self) -> &SparseRows {
        &self.forward
    }
}

impl Operator for SparseOperator {
    fn rows(&self) -> usize {
        self.forward.len()
    }

    fn columns(&self) -> usize {
        self.backward.len()
    }

    fn apply(&self, thin: &Matrix) -> Matrix {
        self.forward.product(thin)
    }

    fn apply_transposed(&self, thin: &Matrix) -> Matrix {
        self.backward.product(thin)
    }
}
