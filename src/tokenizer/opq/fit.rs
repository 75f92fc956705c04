//! The fit of OPQ: principal components, then rounds of k-means in every sub-space and the rotation that fits its
//! outcome best.

use burn::backend::Flex;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::codec::{OpqCodec, layout};
use super::config::OpqConfig;
use crate::tokenizer::codebook_learning::CodebookLearning;
use crate::tokenizer::learning::even_sample;
use crate::tokenizer::matrix::{Matrix, mean_row};
use crate::tokenizer::nearest::{by_item, chosen_entries};
use crate::tokenizer::quantiser::Codec;
use crate::tokenizer::svd::{procrustes, truncated_svd};
use crate::tokenizer::tensors::NamedTensor;
use crate::tokenizer::{FeatureTable, FitProgress, LossParts};

/// The fitted tensors, in the order of their layout. Learns from an even sample of the items, so that a large catalogue
/// costs no more memory than a middling one.
pub(in crate::tokenizer) fn fit(
    features: &FeatureTable,
    config: &OpqConfig,
    progress: &mut dyn FnMut(&FitProgress),
) -> Vec<NamedTensor> {
    let sample = even_sample(features.items());
    let rows: Vec<f32> = sample.iter().flat_map(|&item| features.row(item).iter().copied()).collect();
    let components = Components::of(&rows, features.width, config);
    let reduced = &components.reduced;

    let mut random = ChaCha8Rng::seed_from_u64(config.seed);
    let shape = [config.codebooks, config.entries, config.sub_width()];
    let device = Default::default();
    let mut rotation = balanced(reduced, config.codebooks);
    let mut rotated = reduced.product(&rotation);
    let mut points = by_sub_space(&rotated, config.codebooks);
    let mut codebooks = CodebookLearning::spread_out(shape, &points, &mut random);
    for _ in 0..config.kmeans_rounds {
        codebooks.kmeans_round::<Flex>(&points, &device);
        codebooks.place_dead_anew(&points, sample.len(), &mut random);
    }
    let mut tensors = Vec::new();
    for round in 0..config.rounds {
        let codes = codebooks.kmeans_round::<Flex>(&points, &device);
        let chosen = chosen_entries(&codebooks.entries, shape, &codes); // [M, sample, sub-width]
        let chosen = by_row(&chosen, sample.len(), config.sub_width());
        rotation = procrustes(reduced, &chosen, config.seed);
        rotated = reduced.product(&rotation);
        points = by_sub_space(&rotated, config.codebooks);
        let perplexity = codebooks.perplexity();
        // The last round leaves everything where it fits.
        let last = round + 1 == config.rounds;
        let placed_anew = if last { 0 } else { codebooks.place_dead_anew(&points, sample.len(), &mut random) };

        tensors = components.tensors(config, features.width, &rotation, &codebooks.entries);
        let codec = OpqCodec::new(config, &tensors, features.width);
        let rebuilt = codec.decode(&rows, &by_item(&codes, config.codebooks));
        progress(&FitProgress {
            epoch: round + 1,
            epochs: config.rounds,
            quantised: true,
            loss: LossParts {
                reconstruction: (square(&rows, &rebuilt) / rows.len() as f64) as f32,
                quantisation: (square(&rotated.data, &chosen.data) / sample.len() as f64) as f32,
                orthogonality: 0.0,
            },
            perplexity,
            placed_anew,
        });
    }
    tensors
}

/// Principal components of the rows.
struct Components {
    /// `[W]`
    mean: Vec<f32>,
    /// `[W, reduced]`, orthonormal columns; zero columns beyond the rows' rank.
    directions: Matrix,
    /// `[reduced]`: what each component is divided by.
    scale: Vec<f32>,
    /// The sample's scaled components: `[sample, reduced]`.
    reduced: Matrix,
}

impl Components {
    /// Of `rows`, `[sample, W]`.
    fn of(rows: &[f32], width: usize, config: &OpqConfig) -> Self {
        let mean = mean_row(rows, width);
        let data = rows.chunks_exact(width).flat_map(|row| row.iter().zip(&mean).map(|(x, m)| x - m)).collect();
        let centred = Matrix { rows: rows.len() / width, columns: width, data };
        let svd = truncated_svd(&centred, config.reduced_width(), config.seed);
        let deviation = |value: &f32| value / (centred.rows as f32).sqrt();
        let scale: Vec<f32> =
            svd.values.iter().map(|value| if config.whiten && *value > 0.0 { deviation(value) } else { 1.0 }).collect();
        let mut reduced = centred.product(&svd.right);
        reduced.scale_columns(&scale.iter().map(|scale| 1.0 / scale).collect::<Vec<_>>());
        Self { mean, directions: svd.right, scale, reduced }
    }

    fn tensors(&self, config: &OpqConfig, width: usize, rotation: &Matrix, codebooks: &[f32]) -> Vec<NamedTensor> {
        let data =
            [self.mean.as_slice(), &self.directions.data, &self.scale, &rotation.data, codebooks].map(<[f32]>::to_vec);
        let named = |((name, shape), data)| NamedTensor { name, shape, data };
        layout(config, width).into_iter().zip(data).map(named).collect()
    }
}

/// Deals the components out to the sub-spaces, largest variance first, each to the sub-space whose variances have the
/// least product so far and which is not full: the parametric solution, Ge et al. section 3.3. `[reduced, reduced]`.
fn balanced(reduced: &Matrix, codebooks: usize) -> Matrix {
    let (width, sub_width) = (reduced.columns, reduced.columns / codebooks);
    let mut variance = vec![0.0f64; width];
    for row in reduced.data.chunks_exact(width) {
        variance.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value).powi(2));
    }
    let mut order: Vec<usize> = (0..width).collect();
    order.sort_by(|&a, &b| variance[b].total_cmp(&variance[a]).then(a.cmp(&b)));
    // The logarithm of a variance below 1 is negative, and a fuller sub-space then has a lesser product: hence a floor
    // as the unit.
    let floor = variance.iter().copied().fold(0.0, f64::max).max(f64::MIN_POSITIVE) * 1e-9;
    let mut products = vec![0.0f64; codebooks];
    let mut taken = vec![0; codebooks];
    let mut turn = Matrix::zeros(width, width);
    for component in order {
        let open = (0..codebooks).filter(|&sub| taken[sub] < sub_width);
        let Some(sub) = open.min_by(|&a, &b| products[a].total_cmp(&products[b])) else { break };
        turn.data[component * width + sub * sub_width + taken[sub]] = 1.0;
        products[sub] += (variance[component] / floor).max(1.0).ln();
        taken[sub] += 1;
    }
    turn
}

/// `[rows, M * sub-width]` to `[M, rows, sub-width]`.
fn by_sub_space(rotated: &Matrix, codebooks: usize) -> Vec<f32> {
    let sub_width = rotated.columns / codebooks;
    let sub = |sub: usize| {
        (0..rotated.rows).flat_map(move |row| rotated.row(row)[sub * sub_width..(sub + 1) * sub_width].iter().copied())
    };
    (0..codebooks).flat_map(sub).collect()
}

/// `[M, rows, sub-width]` to `[rows, M * sub-width]`.
fn by_row(points: &[f32], rows: usize, sub_width: usize) -> Matrix {
    let codebooks = points.len() / (rows * sub_width);
    let part = |row: usize, sub: usize| points[(sub * rows + row) * sub_width..][..sub_width].iter().copied();
    let data = (0..rows).flat_map(|row| (0..codebooks).flat_map(move |sub| part(row, sub))).collect();
    Matrix { rows, columns: codebooks * sub_width, data }
}

/// Sum of squared differences.
fn square(left: &[f32], right: &[f32]) -> f64 {
    left.iter().zip(right).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::matrix::gaussian;

    #[test]
    fn variances_are_dealt_out_evenly_and_sub_spaces_go_there_and_back() {
        let mut matrix = Matrix { rows: 50, columns: 4, data: gaussian(200, &mut ChaCha8Rng::seed_from_u64(2)) };
        matrix.scale_columns(&[100.0, 30.0, 3.0, 1.0]);
        // The largest stands with the least, at the places of the first sub-space.
        let turned = matrix.product(&balanced(&matrix, 2));
        for row in 0..50 {
            let [a, b, c, d] = [0, 1, 2, 3].map(|column| matrix.row(row)[column]);
            assert_eq!(turned.row(row), [a, d, b, c]);
        }
        assert_eq!(by_row(&by_sub_space(&turned, 2), 50, 2), turned);
    }
}
