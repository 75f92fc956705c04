//! Cross-entropy over all items, its gradient taken by hand: one softmax of `[rows, items]`, three products, no graph.

use burn::tensor::activation::softmax;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};

/// Rows whose `[rows, items]` softmax is held at once; bounds memory to a few hundred MB at 10^5 items.
const ROWS: usize = 1024;

/// The loss and a tensor whose gradient is the loss's.
#[derive(Debug)]
pub struct CatalogueLoss<B: AutodiffBackend> {
    /// Mean cross-entropy in nats.
    pub value: f32,
    /// Equal to no loss, but its gradients by queries and item matrix are those of the mean cross-entropy.
    pub surrogate: Tensor<B, 1>,
    /// P(i | h) of the rows asked for, `[kept rows, items]`.
    pub probabilities: Tensor<B::InnerBackend, 2>,
}

/// Mean cross-entropy of softmax over all items of `queries * items^T`, with label smoothing. Normalised
/// over the catalogue and not per codebook: a product of per-codebook softmaxes is not a distribution over items.
///
/// With p the softmax and t the smoothed target, the gradient by the logits is (p - t) / rows; by the queries it is that
/// times the item matrix, by the item matrix its transpose times the queries. Both are computed outside the graph, and
/// enter it as constants of the surrogate `sum(queries * dq) + sum(items * di)`.
///
/// # Shapes
///
/// - queries: `[rows, width]`
/// - items: `[items, width]`
/// - targets: one item number a row
/// - keep: rows whose probabilities are handed out
/// - moves_items: whether the item matrix is learnt here; where it is a constant, its product is spared
pub fn catalogue_loss<B: AutodiffBackend>(
    queries: Tensor<B, 2>,
    items: Tensor<B, 2>,
    targets: &[u32],
    smoothing: f32,
    keep: &[usize],
    moves_items: bool,
) -> CatalogueLoss<B> {
    let (q, e) = (queries.clone().inner(), items.clone().inner());
    let ([rows, width], [count, _]) = (q.dims(), e.dims());
    let device = q.device();
    let transposed = e.clone().transpose();
    let mean_item = e.clone().mean_dim(0); // [1, width]
    let mut value = 0.0f64;
    let mut by_queries = Vec::new();
    let mut by_items = Tensor::<B::InnerBackend, 2>::zeros([count, width], &device);
    let mut kept = Vec::new();
    for start in (0..rows).step_by(ROWS) {
        let end = (start + ROWS).min(rows);
        let here = indices::<B::InnerBackend>(targets[start..end].iter().map(|&target| target as i32), &device);
        let q = q.clone().slice(start..end);
        let p = softmax(q.clone().matmul(transposed.clone()), 1); // [rows, items]
        let target_rows = e.clone().select(0, here.clone()); // [rows, width]
        let likelihood = p.clone().gather(1, here.clone().unsqueeze_dim(1)); // [rows, 1]
        // The smoothed cross-entropy is that of the target plus smoothing times (its score - the mean score).
        let gap = (q.clone() * (target_rows.clone() - mean_item.clone())).sum_dim(1) * smoothing;
        let loss = gap - likelihood.clamp_min(1.0e-30).log();
        value += f64::from(loss.sum().into_scalar_f32());
        if moves_items {
            // p^T q needs p laid out by items; the product takes the transposed view as it is.
            by_items = by_items + p.clone().transpose().matmul(q.clone());
            by_items =
                by_items.select_assign(0, here, q.clone() * (smoothing - 1.0), burn::tensor::IndexingUpdateOp::Add);
            if smoothing > 0.0 {
                by_items = by_items - q.sum_dim(0) * (smoothing / count as f32);
            }
        }
        by_queries.push(p.clone().matmul(e.clone()) - target_rows * (1.0 - smoothing) - mean_item.clone() * smoothing);
        let local: Vec<i32> =
            keep.iter().filter(|&&row| (start..end).contains(&row)).map(|&row| (row - start) as i32).collect();
        if !local.is_empty() {
            kept.push(p.select(0, indices(local.into_iter(), &device)));
        }
    }
    let scale = 1.0 / rows as f32;
    let by_queries = Tensor::from_inner(Tensor::cat(by_queries, 0) * scale);
    let mut surrogate = (queries * by_queries).sum();
    if moves_items {
        surrogate = surrogate + (items * Tensor::from_inner(by_items * scale)).sum();
    }
    let probabilities = if kept.is_empty() { Tensor::zeros([0, count], &device) } else { Tensor::cat(kept, 0) };
    CatalogueLoss { value: (value / rows as f64) as f32, surrogate, probabilities }
}

fn indices<B: Backend>(values: impl Iterator<Item = i32>, device: &B::Device) -> Tensor<B, 1, Int> {
    let values: Vec<i32> = values.collect();
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}

/// A scalar read as f32 whatever the backend's float type is.
pub(crate) trait ScalarF32 {
    fn into_scalar_f32(self) -> f32;
}

impl<B: Backend> ScalarF32 for Tensor<B, 1> {
    fn into_scalar_f32(self) -> f32 {
        use burn::tensor::ElementConversion;
        self.into_scalar().elem::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::Distribution;
    use burn::tensor::activation::log_softmax;

    use super::*;

    type B = Autodiff<Flex>;

    fn close(a: Tensor<Flex, 2>, b: Tensor<Flex, 2>) {
        let difference = (a - b).abs().max().into_scalar_f32();
        assert!(difference < 1.0e-5, "differ by {difference}");
    }

    #[test]
    fn the_surrogates_gradient_is_that_of_smoothed_cross_entropy() {
        let device = Default::default();
        let random = |rows, width| Tensor::<B, 2>::random([rows, width], Distribution::Normal(0.0, 1.0), &device);
        let (queries, items) = (random(5, 4).require_grad(), random(9, 4).require_grad());
        let targets = [3u32, 0, 8, 3, 5];
        for smoothing in [0.0f32, 0.1] {
            let ours = catalogue_loss(queries.clone(), items.clone(), &targets, smoothing, &[1, 4], true);
            let gradients = ours.surrogate.backward();

            let logp = log_softmax(queries.clone().matmul(items.clone().transpose()), 1);
            let mut weights = vec![smoothing / 9.0; 45];
            for (row, &target) in targets.iter().enumerate() {
                weights[row * 9 + target as usize] += 1.0 - smoothing;
            }
            let weights = Tensor::from_data(TensorData::new(weights, [5, 9]), &device);
            let plain = (logp.clone() * weights).sum() * (-1.0 / 5.0);
            let expected = plain.backward();

            assert!((ours.value - plain.inner().into_scalar_f32()).abs() < 1.0e-5);
            close(queries.grad(&gradients).unwrap(), queries.grad(&expected).unwrap());
            close(items.grad(&gradients).unwrap(), items.grad(&expected).unwrap());
            close(ours.probabilities.slice(0..1), logp.exp().inner().slice(1..2));
        }
    }
}
