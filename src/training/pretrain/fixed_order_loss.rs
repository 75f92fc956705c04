//! What TIGER learns: the next item's tokens in the codebooks' order, each by a softmax over those that may follow.

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::evaluation::Prefixes;
use crate::model::Network;

/// A logit whose probability is zero.
const NEVER: f32 = -1.0e9;

/// Cross-entropy of the targets' tokens, summed over codebooks and averaged over targets, in nats. All positions of all
/// sequences are learnt in one pass: a position's decoder sees its own token prefix and the events up to it.
///
/// A softmax is over the tokens that continue the prefix of some item, as in the search; so the sum is the cross-entropy of
/// the item. The original's is over the whole codebook, which has the network learn by heart which codes there are.
///
/// # Shapes
///
/// - states: encoder states, `[rows * length, d]`
/// - places: the row of `states` before each target, ascending
/// - targets: the item at each place
pub(super) fn fixed_order_loss<B: AutodiffBackend>(
    network: &Network<B>,
    states: Tensor<B, 2>,
    rows: usize,
    places: &[usize],
    targets: &[u32],
    prefixes: &Prefixes<'_>,
) -> Tensor<B, 1> {
    let codes = prefixes.codes();
    let shape = codes.shape();
    let steps = shape.codebooks;
    let ([paths, width], device) = (states.dims(), states.device());
    let length = paths / rows;
    let mut items = vec![0u32; paths];
    places.iter().zip(targets).for_each(|(&place, &target)| items[place] = target);

    let ints = |values: Vec<i32>| {
        let count = values.len();
        Tensor::<B, 1, Int>::from_data(TensorData::new(values, [count]), &device)
    };
    let flat = |item: u32, codebook: usize| codebook * shape.entries + usize::from(codes.code(item)[codebook]);
    let tokens = network.tokens(); // [M * D, d]
    let mut inputs = vec![network.begin_inputs(states.clone()).unsqueeze_dim::<3>(1)]; // [paths, 1, d]
    for step in 1..steps {
        let chosen = items.iter().map(|&item| flat(item, step - 1) as i32).collect();
        let chosen = tokens.clone().select(0, ints(chosen));
        inputs.push(network.token_inputs(chosen, step).unsqueeze_dim::<3>(1));
    }
    let x = Tensor::cat(inputs, 1).reshape([paths * steps, width]);
    // A sequence's paths lie side by side, one a position, each with all its steps.
    let hidden: Vec<bool> = (0..length)
        .flat_map(|position| (0..steps).flat_map(move |_| (0..length).map(move |event| event > position)))
        .collect();
    let hidden: Tensor<B, 4, Bool> =
        Tensor::from_data(TensorData::new(hidden, [1, 1, length * steps, length]), &device);
    let history = network.history_memory(states, rows);
    let decoded = network.decode(x, paths, &mut Vec::new(), &history, hidden); // [paths * steps, d]

    let mut loss: Option<Tensor<B, 1>> = None;
    for step in 0..steps {
        let chosen = places.iter().map(|&place| (place * steps + step) as i32).collect();
        let queries = network.refinements(decoded.clone().select(0, ints(chosen))); // [targets, d]
        let book = tokens.clone().slice(step * shape.entries..(step + 1) * shape.entries); // [D, d]
        let mut cannot = vec![true; targets.len() * shape.entries];
        for (row, &target) in cannot.chunks_exact_mut(shape.entries).zip(targets) {
            let following = prefixes.children(prefixes.of_item(target, step), step);
            following.for_each(|(entry, _)| row[usize::from(entry)] = false);
        }
        let cannot = Tensor::from_data(TensorData::new(cannot, [targets.len(), shape.entries]), &device);
        let logits = log_softmax(queries.matmul(book.transpose()).mask_fill(cannot, NEVER), 1);
        let truth = targets.iter().map(|&item| i32::from(codes.code(item)[step])).collect();
        let part = logits.gather(1, ints(truth).unsqueeze_dim(1)).mean().neg();
        loss = Some(match loss {
            Some(before) => before + part,
            None => part,
        });
    }
    loss.unwrap_or_else(|| Tensor::zeros([1], &device))
}
