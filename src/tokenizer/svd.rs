//! Truncated singular value decomposition by random projection and power iteration
//! (Halko, Martinsson, Tropp 2011, algorithm 4.4), deterministic under a seed and for any number of threads.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::matrix::{Matrix, dot};
use super::sparse::Operator;

/// Extra directions that the random projection keeps beyond those asked for.
const OVERSAMPLE: usize = 12;
/// Rounds of power iteration: each sharpens the wanted directions by the square of the singular values' ratio.
const POWER_ROUNDS: usize = 3;
/// Singular values below this share of the first are noise: the Gram matrix squares them in 32-bit numbers.
const RANK_FLOOR: f32 = 1e-3;

/// The leading singular triples: A is close to `left * diag(values) * right^T`.
pub(super) struct Svd {
    /// `[rows, k]`, orthonormal columns; zero columns beyond the rank.
    pub left: Matrix,
    /// k values, falling; zero beyond the rank.
    pub values: Vec<f32>,
    /// `[columns, k]`, orthonormal columns; zero columns beyond the rank.
    pub right: Matrix,
}

/// The `k` leading singular triples of `operator`; always k, padded with zeros beyond its rank.
pub(super) fn truncated_svd(operator: &dyn Operator, k: usize, seed: u64) -> Svd {
    let (rows, columns) = (operator.rows(), operator.columns());
    let sketch = (k + OVERSAMPLE).min(rows).min(columns);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut basis = orthonormal(&operator.apply(&Matrix::gaussian(columns, sketch, &mut random)));
    for _ in 0..POWER_ROUNDS {
        let back = orthonormal(&operator.apply_transposed(&basis));
        basis = orthonormal(&operator.apply(&back));
    }
    let reduced = operator.apply_transposed(&basis); // [columns, sketch]
    let (eigenvalues, vectors) = symmetric_eigen(&reduced.transposed_product(&reduced));

    let kept = k.min(sketch);
    let mut values: Vec<f32> = eigenvalues.iter().take(kept).map(|&value| value.max(0.0).sqrt() as f32).collect();
    let floor = values.first().copied().unwrap_or(0.0) * RANK_FLOOR;
    values.iter_mut().filter(|value| **value <= floor).for_each(|value| *value = 0.0);
    let vectors = vectors.truncated(kept);
    let mut left = basis.product(&vectors);
    left.scale_columns(&values.iter().map(|&value| if value > 0.0 { 1.0 } else { 0.0 }).collect::<Vec<_>>());
    let mut right = reduced.product(&vectors);
    right.scale_columns(&values.iter().map(|&value| if value > 0.0 { 1.0 / value } else { 0.0 }).collect::<Vec<_>>());
    values.resize(k, 0.0);
    Svd { left: padded(left, k), values, right: padded(right, k) }
}

/// A random rotation: `[width, width]`, orthonormal.
///
/// Singular coordinates differ in scale by orders of magnitude. A rotation spreads them evenly, so that standardising
/// each dimension afterwards keeps distances instead of blowing up the noise of the last directions.
pub(super) fn rotation(width: usize, seed: u64) -> Matrix {
    orthonormal(&Matrix::gaussian(width, width, &mut ChaCha8Rng::seed_from_u64(seed)))
}

/// The orthogonal R that makes ||from R - to||_F least: U V^T of the decomposition U S V^T of from^T to (Schönemann 1966).
/// Directions in which the two have nothing in common are paired at random. `[columns, columns]`.
#[cfg(feature = "train")]
pub(super) fn procrustes(from: &Matrix, to: &Matrix, seed: u64) -> Matrix {
    let svd = truncated_svd(&from.transposed_product(to), from.columns, seed);
    completed(svd.left, seed).product(&completed(svd.right, seed.wrapping_add(1)).transposed())
}

/// A square matrix of orthonormal and zero columns with orthonormal ones in the zeros' places.
#[cfg(feature = "train")]
fn completed(matrix: Matrix, seed: u64) -> Matrix {
    let width = matrix.columns;
    let spare = Matrix::gaussian(width, width, &mut ChaCha8Rng::seed_from_u64(seed));
    let mut both = Matrix::zeros(width, 2 * width);
    for (row, columns) in both.data.chunks_exact_mut(2 * width).enumerate() {
        columns[..width].copy_from_slice(matrix.row(row));
        columns[width..].copy_from_slice(spare.row(row));
    }
    // One column a row from here on.
    let both = orthonormal(&both).transposed();
    let there = |column: &usize| both.row(*column).iter().any(|&value| value != 0.0);
    let mut spares = (width..2 * width).filter(there);
    let mut whole = Matrix::zeros(width, width);
    for (column, out) in whole.data.chunks_exact_mut(width).enumerate() {
        let source = if there(&column) { Some(column) } else { spares.next() };
        // Gram-Schmidt leaves as many spare columns as there are zeros.
        source.into_iter().for_each(|source| out.copy_from_slice(both.row(source)));
    }
    whole.transposed()
}

fn padded(matrix: Matrix, columns: usize) -> Matrix {
    let mut wide = Matrix::zeros(matrix.rows, columns);
    for row in 0..matrix.rows {
        wide.data[row * columns..row * columns + matrix.columns].copy_from_slice(matrix.row(row));
    }
    wide
}

/// Gram-Schmidt with a second pass; columns that depend on earlier ones become zero.
fn orthonormal(matrix: &Matrix) -> Matrix {
    let length = matrix.rows;
    let mut columns = matrix.transposed().data; // [columns, rows]
    for at in 0..matrix.columns {
        let (done, rest) = columns.split_at_mut(at * length);
        let column = &mut rest[..length];
        let before = dot(column, column).sqrt();
        for _ in 0..2 {
            let shares: Vec<f32> = done.par_chunks(length.max(1)).map(|other| dot(other, column)).collect();
            column.par_chunks_mut(4096).enumerate().for_each(|(chunk, part)| {
                for (share, other) in shares.iter().zip(done.chunks(length)) {
                    let other = &other[chunk * 4096..chunk * 4096 + part.len()];
                    part.iter_mut().zip(other).for_each(|(value, o)| *value -= share * o);
                }
            });
        }
        let after = dot(column, column).sqrt();
        let factor = if after > before * 1e-5 && after > 0.0 { 1.0 / after } else { 0.0 };
        column.iter_mut().for_each(|value| *value *= factor);
    }
    Matrix { rows: matrix.columns, columns: length, data: columns }.transposed()
}

/// Eigenvalues, falling, and eigenvectors (as columns) of a symmetric matrix, by cyclic Jacobi rotations.
fn symmetric_eigen(matrix: &Matrix) -> (Vec<f64>, Matrix) {
    let n = matrix.rows;
    let mut a: Vec<f64> = matrix.data.iter().map(|&value| f64::from(value)).collect();
    // Row i of `v` is eigenvector i.
    let mut v = vec![0.0f64; n * n];
    (0..n).for_each(|i| v[i * n + i] = 1.0);
    let scale: f64 = a.iter().map(|value| value * value).sum();
    for _ in 0..30 {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i * n + j].powi(2)).sum();
        if off <= scale * 1e-18 {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut v, n, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[j * n + j].total_cmp(&a[i * n + i]).then(i.cmp(&j)));
    let values = order.iter().map(|&i| a[i * n + i]).collect();
    let mut vectors = Matrix::zeros(n, n);
    for (column, &i) in order.iter().enumerate() {
        for row in 0..n {
            vectors.data[row * n + column] = v[i * n + row] as f32;
        }
    }
    (values, vectors)
}

/// One Jacobi rotation, which makes a[p, q] zero.
fn rotate(a: &mut [f64], v: &mut [f64], n: usize, p: usize, q: usize) {
    let apq = a[p * n + q];
    if apq == 0.0 {
        return;
    }
    let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
    let tangent = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
    let sine = tangent * cosine;
    for k in 0..n {
        let (kp, kq) = (a[k * n + p], a[k * n + q]);
        a[k * n + p] = cosine * kp - sine * kq;
        a[k * n + q] = sine * kp + cosine * kq;
    }
    for rows in [a, v] {
        let (top, bottom) = rows.split_at_mut(q * n);
        let (row_p, row_q) = (&mut top[p * n..(p + 1) * n], &mut bottom[..n]);
        for (pk, qk) in row_p.iter_mut().zip(row_q) {
            let (old_p, old_q) = (*pk, *qk);
            *pk = cosine * old_p - sine * old_q;
            *qk = sine * old_p + cosine * old_q;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_rank_matrix_is_rebuilt_from_its_leading_triples() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let left = Matrix::gaussian(60, 4, &mut random);
        let right = Matrix::gaussian(4, 30, &mut random);
        let matrix = left.product(&right);
        let svd = truncated_svd(&matrix, 6, 1);
        assert!(svd.values[3] > 0.1 && svd.values[4] == 0.0, "{:?}", svd.values);
        let mut scaled = svd.left.clone();
        scaled.scale_columns(&svd.values);
        let rebuilt = scaled.product(&svd.right.transposed());
        let worst = rebuilt.data.iter().zip(&matrix.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-3, "worst {worst}");
    }

    fn assert_orthogonal(turn: &Matrix) {
        let gram = turn.transposed_product(turn);
        for row in 0..turn.columns {
            for column in 0..turn.columns {
                let expected = if row == column { 1.0 } else { 0.0 };
                assert!((gram.row(row)[column] - expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn a_rotation_keeps_lengths() {
        assert_orthogonal(&rotation(24, 5));
    }

    #[cfg(feature = "train")]
    #[test]
    fn procrustes_finds_the_rotation_and_stays_orthogonal_where_there_is_none_to_find() {
        let turn = rotation(6, 3);
        let mut from = Matrix::gaussian(40, 6, &mut ChaCha8Rng::seed_from_u64(8));
        let found = procrustes(&from, &from.product(&turn), 1);
        let worst = found.data.iter().zip(&turn.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "worst {worst}");
        from.scale_columns(&[1.0, 0.0, 2.0, 0.0, 0.0, 0.5]);
        let target = from.product(&turn);
        let found = procrustes(&from, &target, 1);
        assert_orthogonal(&found);
        let worst = from.product(&found).data.iter().zip(&target.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-3, "worst {worst}");
    }
}
