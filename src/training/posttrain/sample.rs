//! Roll-outs: paths drawn by CRSS, all paths of all contexts a token at a time.

use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::PostTrainError;
use super::catalogue::Catalogue;
use super::config::PostTrainConfig;
use super::reward::{RETRIEVED, Sampled};
use crate::decode::divergence;
use crate::domain::{CodeTable, ItemNumber, Token};
use crate::model::{KeysValues, Network};
use crate::training::pretrain::read;

/// The contexts of a step as the encoder left them.
#[derive(Debug, Clone)]
pub struct Encoded<B: Backend> {
    /// Encoder states of all positions, `[contexts * events, d]`.
    pub states: Tensor<B, 2>,
    /// h, `[contexts, d]`.
    pub queries: Tensor<B, 2>,
    /// `[contexts, 1, 1, events]`, true on padding.
    pub hidden: Tensor<B, 4, Bool>,
}

impl<B: Backend> Encoded<B> {
    /// Some of the contexts, in the order of `rows`.
    pub(super) fn of(&self, rows: &[usize]) -> Self {
        let ([contexts, width], positions) = (self.queries.dims(), self.states.dims()[0]);
        let device = self.queries.device();
        let chosen: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let chosen = Tensor::<B, 1, Int>::from_data(TensorData::new(chosen, [rows.len()]), &device);
        let events = positions / contexts.max(1);
        let states = self.states.clone().reshape([contexts, events * width]).select(0, chosen.clone());
        Self {
            states: states.reshape([rows.len() * events, width]),
            queries: self.queries.clone().select(0, chosen.clone()),
            hidden: self.hidden.clone().select(0, chosen),
        }
    }
}

/// What was drawn.
#[derive(Debug)]
pub struct Rollout {
    /// `[contexts * group]` paths, by context.
    pub paths: Vec<Sampled>,
    /// ln p of each token of each path under the network that drew it.
    pub log_p: Vec<Vec<f32>>,
    /// Entropy in nats of the distributions that tokens were drawn from, mean over tokens.
    pub entropy: f32,
}

/// A path while it is drawn.
struct Drawn {
    sampled: Sampled,
    log_p: Vec<f32>,
    entropy: f32,
    held: Vec<ItemNumber>,
    used: u64,
    over: bool,
    random: ChaCha8Rng,
    belief: Vec<f32>,
}

/// Draws `config.group` paths for every context (design 3.5): at each step the codebook whose likeliest token is likeliest,
/// in it a token from p^(1/temperature). A path ends when it leaves one item, has used every codebook, or is long enough.
pub fn sample<B: Backend>(
    network: &Network<B>,
    encoded: &Encoded<B>,
    scores: &[f32],
    catalogue: &Catalogue<'_, B>,
    config: &PostTrainConfig,
    random: &mut ChaCha8Rng,
) -> Result<Rollout, PostTrainError> {
    let (items, width, group) = (catalogue.index.len(), catalogue.width, config.group);
    let codes = catalogue.index.codes();
    let shape = codes.shape();
    let contexts = encoded.queries.dims()[0];
    let device = encoded.queries.device();
    let history = network.history_memory(encoded.states.clone(), contexts);

    let begin = network.begin_inputs(encoded.queries.clone());
    let mut past = Vec::new();
    let states = network.decode(begin, contexts, &mut past, &history, encoded.hidden.clone()); // [contexts, d]
    let root = catalogue.root(scores, network.refinements(states))?;
    let seeds: Vec<u64> = (0..contexts).map(|_| random.random()).collect();
    let mut drawn: Vec<Drawn> = seeds
        .into_par_iter()
        .enumerate()
        .flat_map_iter(|(context, seed)| {
            let shares = &root[context * items..(context + 1) * items];
            let marginals = marginals(codes, 0..items as ItemNumber, shares);
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let paths: Vec<Drawn> = (0..group)
                .map(|_| {
                    let mut path = Drawn::new(ChaCha8Rng::seed_from_u64(random.random()));
                    let token = path.draw(&marginals, codes, config.temperature);
                    path.held = catalogue.index.postings(token).to_vec();
                    path
                })
                .collect();
            paths
        })
        .collect();

    // Every path goes on from its context's `<BOS>`.
    let contexts_of: Vec<i32> = (0..drawn.len()).map(|path| (path / group) as i32).collect();
    let contexts_of = Tensor::<B, 1, Int>::from_data(TensorData::new(contexts_of, [drawn.len()]), &device);
    past = past
        .into_iter()
        .map(|layer| KeysValues {
            keys: layer.keys.select(0, contexts_of.clone()),
            values: layer.values.select(0, contexts_of.clone()),
        })
        .collect();
    let longest = config.path_steps.min(shape.codebooks);
    for step in 1..=longest {
        let last = |path: &Drawn| path.sampled.tokens.last().map_or(0, |&token| shape.flat(token) as i32);
        let tokens: Vec<i32> = drawn.iter().map(last).collect();
        let tokens = Tensor::<B, 1, Int>::from_data(TensorData::new(tokens, [drawn.len()]), &device);
        let inputs = network.token_inputs(network.tokens().select(0, tokens), step);
        let states = network.decode(inputs, drawn.len(), &mut past, &history, encoded.hidden.clone());
        let refinements = read(network.refinements(states.clone()))?;
        let beliefs = read(softmax(network.category_logits(states), 1))?;
        let categories = beliefs.len() / drawn.len();
        drawn.par_iter_mut().enumerate().filter(|(_, path)| !path.over).for_each(|(at, path)| {
            path.believe(&beliefs[at * categories..(at + 1) * categories]);
            let scores = &scores[at / group * items..(at / group + 1) * items];
            let mut shares = Vec::new();
            catalogue.shares(scores, &refinements[at * width..(at + 1) * width], &path.held, &mut shares);
            if step == longest || path.held.len() == 1 {
                path.end(&shares);
                return;
            }
            let marginals = marginals(codes, path.held.iter().copied(), &shares);
            let token = path.draw(&marginals, codes, config.temperature);
            path.held = catalogue.narrowed(&path.held, token);
        });
    }
    let tokens: usize = drawn.iter().map(|path| path.log_p.len()).sum();
    let entropy = drawn.iter().map(|path| path.entropy).sum::<f32>() / tokens.max(1) as f32;
    let (paths, log_p) = drawn.into_iter().map(|path| (path.sampled, path.log_p)).unzip();
    Ok(Rollout { paths, log_p, entropy })
}

/// The shares of items by token, `[M * D]`.
fn marginals(codes: &CodeTable, items: impl Iterator<Item = ItemNumber>, shares: &[f32]) -> Vec<f32> {
    let shape = codes.shape();
    let mut sums = vec![0.0f32; shape.tokens()];
    for (item, &share) in items.zip(shares) {
        for (codebook, &entry) in codes.code(item).iter().enumerate() {
            sums[codebook * shape.entries + usize::from(entry)] += share;
        }
    }
    sums
}

impl Drawn {
    fn new(random: ChaCha8Rng) -> Self {
        Self {
            sampled: Sampled::default(),
            log_p: Vec::new(),
            entropy: 0.0,
            held: Vec::new(),
            used: 0,
            over: false,
            random,
            belief: Vec::new(),
        }
    }

    /// Chooses the next token by the shares of tokens.
    fn draw(&mut self, marginals: &[f32], codes: &CodeTable, temperature: f32) -> Token {
        let shape = codes.shape();
        let row = |codebook: usize| &marginals[codebook * shape.entries..(codebook + 1) * shape.entries];
        let most = |codebook: usize| row(codebook).iter().copied().fold(0.0f32, f32::max);
        let unused = (0..shape.codebooks).filter(|codebook| self.used >> codebook & 1 == 0);
        let surest = unused.reduce(|best, next| if most(next) > most(best) { next } else { best }).unwrap_or(0);
        let shares = row(surest);
        let tempered = |share: f32| if share > 0.0 { share.powf(1.0 / temperature) } else { 0.0 };
        let mut place = self.random.random::<f32>() * shares.iter().map(|&share| tempered(share)).sum::<f32>();
        let mut entry = 0;
        for (at, &share) in shares.iter().enumerate().filter(|(_, share)| **share > 0.0) {
            entry = at;
            place -= tempered(share);
            if place <= 0.0 {
                break;
            }
        }
        self.entropy -= shares.iter().filter(|share| **share > 0.0).map(|share| share * share.ln()).sum::<f32>();
        self.log_p.push(shares[entry].clamp(f32::MIN_POSITIVE, 1.0).ln());
        self.used |= 1 << surest;
        let token = Token { codebook: surest as u8, entry: entry as u16 };
        self.sampled.tokens.push(token);
        token
    }

    /// Takes in the belief after the last token.
    fn believe(&mut self, belief: &[f32]) {
        let likeliest = belief.iter().zip(0u32..).fold(
            (f32::MIN, 0),
            |best, (&p, category)| {
                if p > best.0 { (p, category) } else { best }
            },
        );
        self.sampled.categories.push(likeliest.1);
        if !self.belief.is_empty() {
            self.sampled.divergences.push(divergence(&self.belief, belief));
        }
        self.belief = belief.to_vec();
    }

    /// Ranks what is left.
    fn end(&mut self, shares: &[f32]) {
        let mut order: Vec<usize> = (0..self.held.len()).collect();
        order.sort_by(|&a, &b| shares[b].total_cmp(&shares[a]).then(a.cmp(&b)));
        self.sampled.retrieved = order.into_iter().take(RETRIEVED).map(|at| self.held[at]).collect();
        self.over = true;
    }
}
