//! What models of tokens alone learn: the next item's tokens one after another, each by a softmax over those that may follow.

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::domain::{ItemNumber, Token};
use crate::evaluation::{Holders, TokenOrder};
use crate::model::Network;

/// A logit whose probability is zero.
const NEVER: f32 = -1.0e9;

/// Cross-entropy of the targets' tokens, summed over steps and averaged over targets, in nats. All positions of all
/// sequences are learnt in one pass: a position's decoder sees its own tokens so far and the events up to it.
///
/// A softmax is over the tokens of one codebook that some item holds beside those of the path, as in the search; so with a
/// fixed order the sum is the cross-entropy of the item. The original's is over the whole codebook, which has the network
/// learn by heart which codes there are.
///
/// With [`TokenOrder::Surest`] each target's path is a random permutation of its code, and a step's loss is the mean over all
/// codebooks that are not used yet: what a search needs that chooses among them.
///
/// # Shapes
///
/// - states: encoder states, `[rows * length, d]`
/// - places: the row of `states` before each target, ascending
/// - targets: the item at each place
pub(super) fn token_loss<B: AutodiffBackend>(
    network: &Network<B>,
    states: Tensor<B, 2>,
    rows: usize,
    (places, targets): (&[usize], &[ItemNumber]),
    holders: &Holders<'_>,
    order: TokenOrder,
    random: &mut ChaCha8Rng,
) -> Tensor<B, 1> {
    let codes = holders.codes();
    let shape = codes.shape();
    let steps = shape.codebooks;
    let ([paths, width], device) = (states.dims(), states.device());
    let length = paths / rows;
    let orders: Vec<Vec<usize>> = targets
        .iter()
        .map(|_| {
            let mut codebooks: Vec<usize> = (0..steps).collect();
            if order == TokenOrder::Surest {
                codebooks.shuffle(random);
            }
            codebooks
        })
        .collect();
    let token = |target: usize, step: usize| {
        let codebook = orders[target][step];
        Token { codebook: codebook as u8, entry: codes.code(targets[target])[codebook] }
    };

    let ints = |values: Vec<i32>| {
        let count = values.len();
        Tensor::<B, 1, Int>::from_data(TensorData::new(values, [count]), &device)
    };
    let tokens = network.tokens(); // [M * D, d]
    let mut inputs = vec![network.begin_inputs(states.clone()).unsqueeze_dim::<3>(1)]; // [paths, 1, d]
    for step in 1..steps {
        // Padding reads some token, and nobody reads it.
        let mut chosen = vec![0; paths];
        places.iter().enumerate().for_each(|(at, &place)| chosen[place] = shape.flat(token(at, step - 1)) as i32);
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

    let mut loss = Tensor::<B, 1>::zeros([1], &device);
    let mut left: Vec<Option<Vec<ItemNumber>>> = vec![None; targets.len()];
    for step in 0..steps {
        let chosen = places.iter().map(|&place| (place * steps + step) as i32).collect();
        let queries = network.refinements(decoded.clone().select(0, ints(chosen))); // [targets, d]
        let learnt = match order {
            TokenOrder::Fixed => step..step + 1,
            TokenOrder::Surest => 0..steps,
        };
        let books = tokens.clone().slice(learnt.start * shape.entries..learnt.end * shape.entries); // [books * D, d]
        let count = learnt.len();
        let mut cannot = vec![true; targets.len() * count * shape.entries];
        let (mut truth, mut shares) = (Vec::new(), Vec::new());
        for (at, cannot) in cannot.chunks_exact_mut(count * shape.entries).enumerate() {
            let unused = match order {
                TokenOrder::Fixed => &orders[at][step..=step],
                TokenOrder::Surest => &orders[at][step..],
            };
            for (codebook, cannot) in learnt.clone().zip(cannot.chunks_exact_mut(shape.entries)) {
                truth.push(i32::from(codes.code(targets[at])[codebook]));
                let is_unused = unused.contains(&codebook);
                shares.push(if is_unused { 1.0 / (unused.len() * targets.len()) as f32 } else { 0.0 });
                if is_unused {
                    let following = holders.following(left[at].as_deref(), codebook, |_| true);
                    cannot.iter_mut().zip(following).for_each(|(cannot, follows)| *cannot = !follows);
                }
            }
            left[at] = Some(holders.narrowed(left[at].as_deref(), token(at, step)));
        }
        let each = [targets.len(), count, shape.entries];
        let cannot = Tensor::from_data(TensorData::new(cannot, each), &device);
        let logits = queries.matmul(books.transpose()).reshape(each).mask_fill(cannot, NEVER);
        let truth = ints(truth).reshape([targets.len(), count, 1]);
        let picked = log_softmax(logits, 2).gather(2, truth).reshape([targets.len() * count]);
        let shares = Tensor::from_data(TensorData::new(shares, [targets.len() * count]), &device);
        loss = loss - (picked * shares).sum();
    }
    loss
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use rand::SeedableRng;

    use super::*;
    use crate::domain::{CodeShape, CodeTable};
    use crate::model::NetworkConfig;

    /// What a model that knows nothing loses by one target: the logarithms of how many tokens may follow.
    fn of_chance(codes: &CodeTable, target: ItemNumber, path: &[usize], order: TokenOrder) -> f32 {
        let code = |item: ItemNumber| codes.code(item).to_vec();
        let own = code(target);
        let loss = |step: usize, codebook: usize| {
            let items = (0..codes.items() as ItemNumber).map(code);
            let fitting = items.filter(|other| path[..step].iter().all(|&r| other[r] == own[r]));
            let following: std::collections::HashSet<u16> = fitting.map(|other| other[codebook]).collect();
            (following.len() as f32).ln()
        };
        let step = |step: usize| match order {
            TokenOrder::Fixed => loss(step, path[step]),
            TokenOrder::Surest => {
                let unused = &path[step..];
                unused.iter().map(|&codebook| loss(step, codebook)).sum::<f32>() / unused.len() as f32
            }
        };
        (0..path.len()).map(step).sum()
    }

    #[test]
    fn a_network_that_knows_nothing_loses_what_chance_does() {
        let shape = CodeShape { codebooks: 3, entries: 4 };
        let network = NetworkConfig { items: 9, codes: shape, own_residuals: false, ..NetworkConfig::tiny() };
        let device = Default::default();
        let network = network.init::<Autodiff<Flex>>(&device); // its refinement head is zero
        let entries = (0..9u16).flat_map(|item| [item % 2, item / 3, item % 4]).collect();
        let codes = CodeTable::new(shape, entries).unwrap();
        let holders = Holders::of(&codes);
        let states = Tensor::zeros([2 * 3, 8], &device);
        let (places, targets) = ([0, 1, 3, 4, 5], [3, 8, 0, 5, 5]);
        for order in [TokenOrder::Fixed, TokenOrder::Surest] {
            let mut random = ChaCha8Rng::seed_from_u64(7);
            let mut same = random.clone();
            let given = (&places[..], &targets[..]);
            let loss = token_loss(&network, states.clone(), 2, given, &holders, order, &mut random);
            let expected: f32 = targets
                .iter()
                .map(|&target| {
                    let mut path = [0, 1, 2];
                    if order == TokenOrder::Surest {
                        path.shuffle(&mut same);
                    }
                    of_chance(&codes, target, &path, order)
                })
                .sum();
            let loss: f32 = loss.into_scalar();
            assert!((loss - expected / 5.0).abs() < 1e-5, "{order:?}: {loss}, not {}", expected / 5.0);
        }
    }
}
