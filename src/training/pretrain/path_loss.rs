//! What the decoder learns: along a path to the target, the target among the items that the path still allows, and the
//! target's category.

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::catalogue_loss::{ScalarF32, catalogue_loss};
use super::kernels::Kernels;
use super::learner::PretrainError;
use crate::catalog::Index;
use crate::domain::{CodeShape, CodeTable, ItemNumber, Token};
use crate::model::{KeysValues, Network};

/// The paths of one step: one per row, all of the same number of tokens.
#[derive(Debug, Clone)]
pub struct PathTargets {
    /// The item that each path leads to.
    pub items: Vec<ItemNumber>,
    /// Its category.
    pub categories: Vec<u32>,
    /// The tokens of each path, in order: `[rows][steps]`.
    pub tokens: Vec<Vec<Token>>,
    /// After each token: the items still allowed, the target first, with the logarithm of how many each stands for.
    pub candidates: Vec<Vec<Candidates>>,
}

/// The items that a path still allows, or a sample of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates {
    /// The target first.
    pub items: Vec<ItemNumber>,
    /// Added to the scores of all but the target: ln(others / sampled others), zero when none is left out.
    pub correction: f32,
}

/// The parts of the path loss, in nats, and their weighted sum as a tensor to differentiate.
#[derive(Debug)]
pub struct PathLoss<B: AutodiffBackend> {
    /// Mean cross-entropy of the target over the catalogue at `<BOS>`.
    pub begin: f32,
    /// Mean cross-entropy of the target over the candidates after the first token and later ones, where there is a choice.
    pub steps: f32,
    /// Mean cross-entropy of the category over all states.
    pub category: f32,
    /// `begin + steps` and `category`, weighted; its value is not the loss's (see [`catalogue_loss`]), its gradient is.
    pub surrogate: Tensor<B, 1>,
}

impl PathTargets {
    /// Chooses a path to each target: every other one a random permutation of its code, the rest in the order of the
    /// scorer's confidence (at each step the codebook whose likeliest token is likeliest).
    ///
    /// `probabilities` holds one row of P(item | history) per target, `[rows, items]`.
    pub fn choose(
        index: &Index,
        items: Vec<ItemNumber>,
        probabilities: &[f32],
        steps: usize,
        most: usize,
        random: &mut ChaCha8Rng,
    ) -> Self {
        let (codes, count) = (index.codes(), index.len());
        let shape = codes.shape();
        let steps = steps.min(shape.codebooks);
        let orders: Vec<Option<Vec<usize>>> = (0..items.len())
            .map(|row| {
                let mut order: Vec<usize> = (0..shape.codebooks).collect();
                order.shuffle(random);
                order.truncate(steps);
                row.is_multiple_of(2).then_some(order)
            })
            .collect();
        let seeds: Vec<u64> = (0..items.len()).map(|_| random.random()).collect();
        let rows: Vec<(Vec<Token>, Vec<Candidates>)> = items
            .par_iter()
            .zip(orders)
            .zip(seeds)
            .enumerate()
            .map(|(row, ((&target, order), seed))| {
                let p = &probabilities[row * count..(row + 1) * count];
                let code = codes.code(target);
                let mut used = 0u64;
                let mut left: Option<Vec<ItemNumber>> = None;
                let (mut tokens, mut allowed) = (Vec::new(), Vec::new());
                for step in 0..steps {
                    let codebook = match &order {
                        Some(order) => order[step],
                        None => surest(index, p, left.as_deref(), used, shape),
                    };
                    used |= 1 << codebook;
                    let token = Token { codebook: codebook as u8, entry: code[codebook] };
                    let next = match &left {
                        None => index.postings(token).to_vec(),
                        Some(items) => {
                            items.iter().copied().filter(|&item| codes.code(item)[codebook] == token.entry).collect()
                        }
                    };
                    tokens.push(token);
                    allowed.push(Candidates::sample(&next, target, most, seed ^ step as u64));
                    left = Some(next);
                }
                (tokens, allowed)
            })
            .collect();
        let categories = items.iter().map(|&item| index.class(item)).collect();
        let (tokens, candidates) = rows.into_iter().unzip();
        Self { items, categories, tokens, candidates }
    }
}

/// The unused codebook whose likeliest token is likeliest among `left` (all items when none is given).
fn surest(index: &Index, p: &[f32], left: Option<&[ItemNumber]>, used: u64, shape: CodeShape) -> usize {
    let mut marginals = vec![0.0f32; shape.tokens()];
    let mut add = |item: ItemNumber| {
        for (codebook, &entry) in index.codes().code(item).iter().enumerate() {
            marginals[codebook * shape.entries + usize::from(entry)] += p[item as usize];
        }
    };
    match left {
        None => (0..p.len() as ItemNumber).for_each(&mut add),
        Some(items) => items.iter().copied().for_each(&mut add),
    }
    let mut best = (f32::NEG_INFINITY, 0);
    for codebook in (0..shape.codebooks).filter(|codebook| used >> codebook & 1 == 0) {
        let row = &marginals[codebook * shape.entries..(codebook + 1) * shape.entries];
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if most > best.0 {
            best = (most, codebook);
        }
    }
    best.1
}

impl Candidates {
    fn sample(items: &[ItemNumber], target: ItemNumber, most: usize, seed: u64) -> Self {
        use rand::SeedableRng;
        let mut others: Vec<ItemNumber> = items.iter().copied().filter(|&item| item != target).collect();
        let (all, room) = (others.len(), most.max(2) - 1);
        if all > room {
            others.partial_shuffle(&mut ChaCha8Rng::seed_from_u64(seed), room);
            others.truncate(room);
        }
        let correction = if others.is_empty() { 0.0 } else { (all as f32 / others.len() as f32).ln() };
        Self { items: std::iter::once(target).chain(others).collect(), correction }
    }
}

/// What [`path_loss`] reads of the encoder's pass; one row per path. All of it is constant: paths do not move the scorer.
#[derive(Debug, Clone)]
pub struct PathContext<B: AutodiffBackend> {
    /// h, `[rows, d]`.
    pub queries: Tensor<B::InnerBackend, 2>,
    /// Keys and values of the histories, one entry per decoder block.
    pub history: Vec<KeysValues<B>>,
    /// `[rows, 1, 1, events]`, true on events after the path's position and on padding.
    pub hidden: Tensor<B, 4, Bool>,
    /// v of all items, `[items, d]`.
    pub items: Tensor<B::InnerBackend, 2>,
    /// The tokens' part of it, `[items, d]`.
    pub token_sums: Tensor<B::InnerBackend, 2>,
    /// The token table, `[M * D, d]`.
    pub tokens: Tensor<B::InnerBackend, 2>,
    /// Who sums over the catalogue.
    pub kernels: Kernels,
}

/// The path loss of one step: the cross-entropy of P(i | h, path) over candidates(path) after every token, and of the
/// category at every state.
pub fn path_loss<B: AutodiffBackend>(
    network: &Network<B>,
    context: PathContext<B>,
    targets: &PathTargets,
    codes: &CodeTable,
    path_weight: f32,
    category_weight: f32,
) -> Result<PathLoss<B>, PretrainError> {
    let shape = codes.shape();
    let paths = targets.items.len();
    let steps = targets.tokens.first().map_or(0, Vec::len);
    let device = context.items.device();

    let tokens = Tensor::<B, 2>::from_inner(context.tokens.clone());
    let queries = Tensor::from_inner(context.queries.clone());
    let mut inputs = vec![network.begin_inputs(queries).unsqueeze_dim::<3>(1)]; // [paths, 1, d]
    for step in 0..steps {
        let chosen: Vec<i32> = targets.tokens.iter().map(|path| shape.flat(path[step]) as i32).collect();
        let rows = tokens.clone().select(0, ints::<B>(chosen, &device));
        inputs.push(network.token_inputs(rows, step + 1).unsqueeze_dim::<3>(1));
    }
    let x = Tensor::cat(inputs, 1); // [paths, steps + 1, d]
    let width = x.dims()[2];
    let x = x.reshape([paths * (steps + 1), width]);
    let states = network.decode(x, paths, &mut Vec::new(), &context.history, context.hidden.clone()); // [paths * (steps + 1), d]
    let refinements = network.refinements(states.clone()).reshape([paths, steps + 1, width]);
    let at = |step: usize| refinements.clone().slice([0..paths, step..step + 1]).reshape([paths, width]);

    // s_0(i) = <h, v_i> + <g, what the tokens say of i>: one product of rows twice as wide.
    let queries = Tensor::cat(vec![context.queries.clone(), at(0).inner()], 1);
    let items = Tensor::cat(vec![context.items.clone(), context.token_sums.clone()], 1);
    let begin = catalogue_loss(queries, items, &targets.items, 0.0, &[], false, context.kernels)?;
    let by_refinements = begin.by_queries.slice([0..paths, width..2 * width]);
    let mut surrogate = (at(0) * Tensor::from_inner(by_refinements)).sum() * path_weight;

    let mut sums = (0.0f32, 0.0f32);
    for step in 1..=steps {
        if let Some((loss, choices)) = choice_loss(at(step), &context, targets, codes, step - 1) {
            sums = (sums.0 + loss.clone().inner().into_scalar_f32(), sums.1 + choices);
            surrogate = surrogate + loss * (path_weight / paths as f32);
        }
    }

    let logits = log_softmax(network.category_logits(states), 1); // [paths * (steps + 1), categories]
    let truth: Vec<i32> =
        targets.categories.iter().flat_map(|&category| std::iter::repeat_n(category as i32, steps + 1)).collect();
    let category = logits.gather(1, ints::<B>(truth, &device).unsqueeze_dim(1)).mean().neg();
    let category_value = category.clone().inner().into_scalar_f32();
    Ok(PathLoss {
        begin: begin.value,
        steps: if sums.1 > 0.0 { sums.0 / sums.1 } else { 0.0 },
        category: category_value,
        surrogate: surrogate + category * category_weight,
    })
}

/// Summed cross-entropy of the target among the candidates after token `step`, and in how many rows there was a choice.
/// Codebooks already used add the same to all candidates of a row, so they need not be left out.
fn choice_loss<B: AutodiffBackend>(
    refinements: Tensor<B, 2>,
    context: &PathContext<B>,
    targets: &PathTargets,
    codes: &CodeTable,
    step: usize,
) -> Option<(Tensor<B, 1>, f32)> {
    let shape = codes.shape();
    let rows: Vec<usize> =
        (0..targets.items.len()).filter(|&row| targets.candidates[row][step].items.len() > 1).collect();
    let most = rows.iter().map(|&row| targets.candidates[row][step].items.len()).max()?;
    let (mut places, mut items, mut bias) = (Vec::new(), Vec::new(), Vec::new());
    for &row in &rows {
        let candidates = &targets.candidates[row][step];
        for column in 0..most {
            let item = candidates.items.get(column).copied();
            bias.push(match (column, item) {
                (_, None) => -1.0e9,
                (0, Some(_)) => 0.0,
                (_, Some(_)) => candidates.correction,
            });
            let item = item.unwrap_or(candidates.items[0]);
            items.push(item as i32);
            places.extend(
                codes.code(item).iter().enumerate().map(|(r, &entry)| (r * shape.entries + usize::from(entry)) as i32),
            );
        }
    }
    let (count, width, device) = (rows.len(), refinements.dims()[1], refinements.device());
    let chosen: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let tokens = Tensor::<B, 2>::from_inner(context.tokens.clone()).transpose(); // [d, M * D]
    let table = refinements.select(0, ints::<B>(chosen.clone(), &device)).matmul(tokens); // [rows, M * D]
    let places: Tensor<B, 2, Int> =
        Tensor::from_data(TensorData::new(places, [count, most * shape.codebooks]), &device);
    let refined = table.gather(1, places).reshape([count, most, shape.codebooks]).sum_dim(2).reshape([count, most]);

    let queries = context.queries.clone().select(0, ints::<B>(chosen, &device).inner()); // [rows, d]
    let vectors = context.items.clone().select(0, ints::<B>(items, &device).inner()).reshape([count, most, width]);
    let scores = vectors.matmul(queries.unsqueeze_dim::<3>(2)).reshape([count, most]);
    let bias = Tensor::from_data(TensorData::new(bias, [count, most]), &device);
    let logits = log_softmax(refined + Tensor::from_inner(scores + bias), 1);
    Some((logits.slice([0..count, 0..1]).sum().neg(), count as f32))
}

fn ints<B: AutodiffBackend>(values: Vec<i32>, device: &B::Device) -> Tensor<B, 1, Int> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use burn::optim::GradientsParams;
    use burn::tensor::Distribution;
    use rand::SeedableRng;

    use super::*;
    use crate::catalog::CatalogItem;
    use crate::domain::{EventKind, HistoryEntry, Item};
    use crate::model::{NetworkConfig, encoder_batch, flat_codes};

    type B = Autodiff<Flex>;

    const ITEMS: usize = 24;

    fn index() -> Index {
        let shape = CodeShape { codebooks: 3, entries: 4 };
        // Every combination of the first two codebooks, so that a path of one token leaves several items.
        let entries = (0..ITEMS as u16).flat_map(|item| [item % 4, item / 4 % 4, item % 3]).collect();
        let item = |number: usize| Item {
            id: number.to_string(),
            title: None,
            brand: None,
            categories: Vec::new(),
            price: None,
            eligible: true,
        };
        let items =
            (0..ITEMS).map(|number| CatalogItem { item: item(number), category: number as u32 % 2, prior: 0.0 });
        let names = vec!["even".into(), "odd".into()];
        Index::build(items.collect(), CodeTable::new(shape, entries).unwrap(), names, "test".into()).unwrap()
    }

    fn network(index: &Index) -> (Network<B>, NetworkConfig) {
        let config = NetworkConfig {
            items: ITEMS,
            codes: index.codes().shape(),
            feed_forward: 16,
            max_history: 8,
            ..NetworkConfig::tiny()
        };
        (config.init(&Default::default()), config)
    }

    /// Two users, one path each, as `learner` builds them.
    fn context(network: &Network<B>, index: &Index) -> PathContext<B> {
        let device = Default::default();
        let entry = |item: u32| HistoryEntry { item, kind: EventKind::View, time: 0 };
        let histories = [vec![entry(1), entry(5)], vec![entry(7)]];
        let slices: Vec<&[HistoryEntry]> = histories.iter().map(Vec::as_slice).collect();
        let flat = flat_codes(index.codes(), &device);
        let items = network.item_vectors(flat.clone());
        let batch = encoder_batch::<B>(&slices, 2, 8, &device);
        let states = network.encode(&batch, items.clone().select(0, batch.items.clone()));
        let queries = states.clone().select(0, ints::<B>(vec![1, 2], &device));
        let hidden = TensorData::new(vec![false, false, false, true], [2, 1, 1, 2]);
        PathContext {
            queries: queries.inner(),
            history: network.history_memory(states.detach(), 2),
            hidden: Tensor::from_data(hidden, &device),
            items: items.inner(),
            token_sums: network.token_sums(flat).inner(),
            tokens: network.tokens().inner(),
            kernels: Kernels::Host,
        }
    }

    fn targets(index: &Index) -> PathTargets {
        let uniform = vec![1.0 / ITEMS as f32; 2 * ITEMS];
        PathTargets::choose(index, vec![9, 14], &uniform, 2, 64, &mut ChaCha8Rng::seed_from_u64(3))
    }

    #[test]
    fn fresh_path_heads_cost_what_the_scorer_costs() {
        let index = index();
        let (network, _) = network(&index);
        let (context, targets) = (context(&network, &index), targets(&index));
        let scores = context.queries.clone().matmul(context.items.clone().transpose());
        let scores: Vec<f32> = scores.into_data().into_vec().unwrap();
        let softmax_loss = |row: usize, items: &[ItemNumber], target: ItemNumber| {
            let score = |item: ItemNumber| f64::from(scores[row * ITEMS + item as usize]);
            items.iter().map(|&item| score(item).exp()).sum::<f64>().ln() - score(target)
        };
        let all: Vec<ItemNumber> = (0..ITEMS as ItemNumber).collect();
        let begin = (0..2).map(|row| softmax_loss(row, &all, targets.items[row])).sum::<f64>() / 2.0;
        let choices: Vec<f64> = (0..2)
            .flat_map(|row| targets.candidates[row].iter().map(move |candidates| (row, candidates)))
            .filter(|(_, candidates)| candidates.items.len() > 1)
            .map(|(row, candidates)| softmax_loss(row, &candidates.items, candidates.items[0]))
            .collect();
        let steps = choices.iter().sum::<f64>() / choices.len() as f64;
        let loss = path_loss(&network, context, &targets, index.codes(), 1.0, 0.2).unwrap();
        assert!((f64::from(loss.begin) - begin).abs() < 1.0e-4, "{} {begin}", loss.begin);
        assert!((f64::from(loss.steps) - steps).abs() < 1.0e-4, "{} {steps}", loss.steps);
    }

    #[test]
    fn the_path_loss_moves_what_reads_paths_and_nothing_else() {
        let index = index();
        let (network, _) = network(&index);
        let loss = path_loss(&network, context(&network, &index), &targets(&index), index.codes(), 1.0, 0.2).unwrap();
        let gradients = loss.surrogate.backward();
        assert!(network.tokens().grad(&gradients).is_none(), "the token table moved");
        assert!(network.residuals().grad(&gradients).is_none(), "the residuals moved");
        let heads = GradientsParams::from_grads(gradients, &network);
        assert!(!heads.is_empty(), "nothing reached the decoder");
    }

    #[test]
    fn paths_lead_to_their_items_and_the_target_comes_first() {
        let index = index();
        let random: Vec<f32> =
            Tensor::<Flex, 1>::random([2 * ITEMS], Distribution::Uniform(0.0, 1.0), &Default::default())
                .into_data()
                .into_vec()
                .unwrap();
        let targets = PathTargets::choose(&index, vec![9, 14], &random, 3, 64, &mut ChaCha8Rng::seed_from_u64(3));
        for (row, &item) in targets.items.iter().enumerate() {
            let code = index.codes().code(item);
            let mut allowed: Vec<ItemNumber> = (0..ITEMS as ItemNumber).collect();
            for (token, candidates) in targets.tokens[row].iter().zip(&targets.candidates[row]) {
                assert_eq!(token.entry, code[usize::from(token.codebook)]);
                allowed.retain(|&other| index.codes().code(other)[usize::from(token.codebook)] == token.entry);
                assert_eq!(candidates.items[0], item);
                let mut sorted = candidates.items.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, allowed);
            }
            let mut books: Vec<u8> = targets.tokens[row].iter().map(|token| token.codebook).collect();
            books.sort_unstable();
            assert_eq!(books, [0, 1, 2]);
        }
    }

    #[test]
    fn every_other_path_starts_at_the_surest_codebook() {
        let index = index();
        // All mass on items 0 to 3, which share entry 0 of codebook 1 and nothing else.
        let mut sure = vec![0.0f32; 2 * ITEMS];
        (0..4).for_each(|item| sure[ITEMS + item] = 0.25);
        let targets = PathTargets::choose(&index, vec![9, 2], &sure, 2, 64, &mut ChaCha8Rng::seed_from_u64(3));
        assert_eq!(targets.tokens[1][0], Token { codebook: 1, entry: 0 });
    }

    #[test]
    fn a_sample_keeps_the_target_and_says_what_each_stands_for() {
        let items: Vec<ItemNumber> = (0..101).collect();
        let sample = Candidates::sample(&items, 7, 11, 1);
        assert_eq!((sample.items.len(), sample.items[0]), (11, 7));
        assert!((sample.correction - 10.0f32.ln()).abs() < 1.0e-6);
        assert_eq!(Candidates::sample(&items, 7, 500, 1).correction, 0.0);
    }
}
