//! Cross-entropy over all items, its gradients taken by hand: one softmax of `[rows, items]`, three products, no graph.

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

use super::kernels::{Kernels, floats, softmax_gradients};
use super::learner::PretrainError;

/// Rows whose `[rows, items]` softmax is held at once; bounds memory to a few hundred MB at 10^5 items.
const ROWS: usize = 1024;

/// The loss and its gradients.
#[derive(Debug)]
pub struct CatalogueLoss<B: Backend> {
    /// Mean cross-entropy in nats.
    pub value: f32,
    /// By the queries, `[rows, width]`.
    pub by_queries: Tensor<B, 2>,
    /// By the item vectors, `[items, width]`; none where they were said to be constants.
    pub by_items: Option<Tensor<B, 2>>,
    /// P(i | h) of the rows asked for, `[kept rows, items]`.
    pub probabilities: Vec<f32>,
}

/// Mean cross-entropy of softmax over all items of `queries * items^T`, with label smoothing. Normalised
/// over the catalogue and not per codebook: a product of per-codebook softmaxes is not a distribution over items.
///
/// With p the softmax and t the smoothed target, the gradient by the scores is (p - t) / rows; by the queries it is that
/// times the item vectors, by the item vectors its transpose times the queries. No graph is kept.
///
/// # Shapes
///
/// - queries: `[rows, width]`
/// - items: `[items, width]`
/// - targets: one item number a row
/// - keep: rows whose probabilities are handed out, ascending
/// - moves_items: whether the item vectors are learnt here; where they are constants, their product is spared
pub fn catalogue_loss<B: Backend>(
    queries: Tensor<B, 2>,
    items: Tensor<B, 2>,
    targets: &[u32],
    smoothing: f32,
    keep: &[usize],
    moves_items: bool,
    kernels: Kernels,
) -> Result<CatalogueLoss<B>, PretrainError> {
    let ([rows, _], [count, _]) = (queries.dims(), items.dims());
    let transposed = items.clone().transpose();
    let scale = 1.0 / rows as f32;
    let mut value = 0.0f64;
    let mut by_queries = Vec::new();
    let mut by_items: Option<Tensor<B, 2>> = None;
    let mut probabilities = Vec::new();
    for start in (0..rows).step_by(ROWS) {
        let end = (start + ROWS).min(rows);
        let q = queries.clone().slice(start..end);
        let scores = q.clone().matmul(transposed.clone()); // [rows, items]
        let here: Vec<usize> =
            keep.iter().filter(|&&row| (start..end).contains(&row)).map(|&row| row - start).collect();
        let targets = &targets[start..end];
        let (loss, by_scores, kept) = match kernels {
            Kernels::Host => {
                let device = scores.device();
                let mut scores = floats(scores.into_data())?;
                let (loss, kept) = softmax_gradients(&mut scores, count, targets, smoothing, &here);
                (loss, Tensor::from_data(TensorData::new(scores, [end - start, count]), &device), kept)
            }
            Kernels::Device => device_gradients(scores, targets, smoothing, &here)?,
        };
        value += loss;
        probabilities.extend(kept);
        by_queries.push(by_scores.clone().matmul(items.clone()) * scale);
        if moves_items {
            let part = by_scores.transpose().matmul(q * scale);
            by_items = Some(match by_items {
                Some(before) => before + part,
                None => part,
            });
        }
    }
    Ok(CatalogueLoss {
        value: (value / rows as f64) as f32,
        by_queries: Tensor::cat(by_queries, 0),
        by_items,
        probabilities,
    })
}

/// [`softmax_gradients`] in tensor operations: loss, gradient by the scores, kept rows of the softmax.
fn device_gradients<B: Backend>(
    scores: Tensor<B, 2>,
    targets: &[u32],
    smoothing: f32,
    keep: &[usize],
) -> Result<(f64, Tensor<B, 2>, Vec<f32>), PretrainError> {
    let [rows, items] = scores.dims();
    let device = scores.device();
    let here = indices::<B>(targets.iter().map(|&target| target as i32), &device).unsqueeze_dim::<2>(1);
    let log_p = log_softmax(scores, 1);
    let own = log_p.clone().gather(1, here.clone()).sum() * (smoothing - 1.0);
    let even = log_p.clone().mean_dim(1).sum() * -smoothing;
    let loss = f64::from((own + even).into_scalar_f32());
    let p = log_p.exp();
    let kept = if keep.is_empty() {
        Vec::new()
    } else {
        floats(p.clone().select(0, indices(keep.iter().map(|&row| row as i32), &device)).into_data())?
    };
    let target = Tensor::<B, 2>::full([rows, 1], smoothing - 1.0, &device);
    let gradients = (p - smoothing / items as f32).scatter(1, here, target, IndexingUpdateOp::Add);
    Ok((loss, gradients, kept))
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
    fn both_hands_gradients_are_those_of_smoothed_cross_entropy() {
        let device = Default::default();
        let random = |rows, width| Tensor::<B, 2>::random([rows, width], Distribution::Normal(0.0, 1.0), &device);
        let (queries, items) = (random(5, 4).require_grad(), random(9, 4).require_grad());
        let targets = [3u32, 0, 8, 3, 5];
        for (smoothing, kernels) in [0.0f32, 0.1].into_iter().flat_map(|s| [(s, Kernels::Host), (s, Kernels::Device)]) {
            let (q, i) = (queries.clone().inner(), items.clone().inner());
            let ours = catalogue_loss(q, i, &targets, smoothing, &[1, 4], true, kernels).unwrap();

            let logp = log_softmax(queries.clone().matmul(items.clone().transpose()), 1);
            let mut weights = vec![smoothing / 9.0; 45];
            for (row, &target) in targets.iter().enumerate() {
                weights[row * 9 + target as usize] += 1.0 - smoothing;
            }
            let weights = Tensor::from_data(TensorData::new(weights, [5, 9]), &device);
            let plain = (logp.clone() * weights).sum() * (-1.0 / 5.0);
            let expected = plain.backward();

            assert!((ours.value - plain.inner().into_scalar_f32()).abs() < 1.0e-5);
            close(ours.by_queries, queries.grad(&expected).unwrap());
            close(ours.by_items.unwrap(), items.grad(&expected).unwrap());
            let kept = Tensor::from_data(TensorData::new(ours.probabilities, [2, 9]), &Default::default());
            close(kept.slice(0..1), logp.exp().inner().slice(1..2));
        }
    }
}
