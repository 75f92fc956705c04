//! One step: contexts, roll-outs, rewards, updates.

use std::time::Instant;

use burn::module::AutodiffModule;
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use rand::Rng;
use rand::seq::index::sample as draw_places;
use rand_chacha::ChaCha8Rng;

use super::PostTrainError;
use super::catalogue::{Catalogue, Measured, Roots, add};
use super::config::PostTrainConfig;
use super::learner::{PostTraining, RoundReport};
use super::objective::{Objective, objective};
use super::reward::{Judge, Rewards, advantages};
use super::sample::{Encoded, Rollout, sample};
use crate::domain::{HistoryEntry, ItemNumber, Token};
use crate::model::{Listener, Network, encoder_batch};
use crate::training::precision::{Ladq, traces};
use crate::training::pretrain::{Kernels, PathContext, PathLoss, PathTargets, path_loss, read, softmax_rows};

/// Windows drawn for each context, of which one run of like lengths is taken: less padding.
const POOL: usize = 8;

/// A history and what came next.
#[derive(Debug, Clone, Copy)]
struct Moment<'a> {
    history: &'a [HistoryEntry],
    future: &'a [HistoryEntry],
}

impl Moment<'_> {
    /// What the user took next: what counts against a path, as a hide, was not taken.
    fn next(&self, config: &PostTrainConfig) -> Option<ItemNumber> {
        self.future.iter().find(|event| config.kinds.of(event.kind) >= 0.0).map(|event| event.item)
    }
}

/// One step and what it adds to.
pub(super) struct Step<'a, B: Backend> {
    pub task: PostTraining<'a>,
    pub catalogue: &'a Catalogue<'a, B>,
    /// The reference.
    pub frozen: &'a Network<B>,
    /// Takes sums over the round's steps.
    pub report: &'a mut RoundReport,
    pub ladq: &'a mut Ladq,
    /// The step's number in the run.
    pub at: usize,
    pub device: &'a B::Device,
}

impl<'a, I: Backend> Step<'a, I> {
    /// Samples, rewards, and moves the network `config.updates` times. `reader` reads the histories in its place.
    pub(super) fn learn<B: AutodiffBackend<InnerBackend = I, Device = I::Device>>(
        &mut self,
        mut network: Network<B>,
        reader: Option<&Network<B>>,
        optimizer: &mut impl Optimizer<Network<B>, B>,
        rate: f64,
        random: &mut ChaCha8Rng,
    ) -> Result<Network<B>, PostTrainError> {
        let started = Instant::now();
        let lot = self.lot(&network, reader, random)?;
        self.report.rollout_seconds += started.elapsed().as_secs_f64();

        let started = Instant::now();
        for update in 0..self.task.config.updates {
            let at = self.at * self.task.config.updates + update;
            let reduced = self.ladq.applied(&network);
            let listener = self.ladq.samples(at).then(Listener::<B>::start);
            let (surrogate, loss) = self.update(&reduced, &lot, random)?;
            if !loss.is_finite() {
                let (epoch, step) = (self.at / self.task.config.steps, self.at % self.task.config.steps);
                return Err(PostTrainError::Diverged { epoch, step, loss });
            }
            let found = surrogate.backward();
            if let Some(listener) = listener {
                self.ladq.sample(&network, &traces(&listener.stop(), &found), at);
            }
            self.ladq.watch(loss);
            // A gradient belongs to the tensor that was computed with; from there it finds the weight by its id.
            let gradients = GradientsParams::from_grads(found, &reduced);
            network = optimizer.step(rate, network, gradients);
        }
        self.report.update_seconds += started.elapsed().as_secs_f64();
        Ok(network)
    }

    /// Draws contexts and paths, and everything of them that updates do not change.
    fn lot<B: AutodiffBackend<InnerBackend = I, Device = I::Device>>(
        &mut self,
        network: &Network<B>,
        reader: Option<&Network<B>>,
        random: &mut ChaCha8Rng,
    ) -> Result<Lot<'a, I>, PostTrainError> {
        let config = self.task.config;
        let moments = self.moments(random);
        let plain = network.valid();
        let encoded = match reader {
            Some(reader) => {
                let read = self.encode(reader, &moments);
                Encoded { states: read.states.inner(), queries: read.queries.inner(), hidden: read.hidden.inner() }
            }
            None => self.encode(&plain, &moments),
        };
        let scores = self.catalogue.scores(encoded.queries.clone())?;
        let rollout = sample(&plain, &encoded, &scores, self.catalogue, config, random)?;
        let rewards = self.reward(&moments, &rollout);
        let gains = advantages(&rewards, config.group);
        let steps = rollout.paths.iter().map(|path| path.tokens.len()).max().unwrap_or(1);
        let mut lot = Lot { moments, encoded, scores, rollout, reference: Vec::new(), gains, steps };
        lot.reference = {
            // Where the encoder does not learn, both read the same states.
            let frozen = config.encoder.then(|| self.encode(self.frozen, &lot.moments));
            let encoded = frozen.as_ref().unwrap_or(&lot.encoded);
            let refinements = self.refine(self.frozen, encoded, &lot);
            let scores = match frozen {
                Some(encoded) => self.catalogue.scores(encoded.queries)?,
                None => lot.scores.clone(),
            };
            let shares = self.catalogue.root(&scores, lot.of_begin(&refinements))?;
            let roots = Roots { scores, shares, basis_means: Vec::new(), vector_means: Vec::new() };
            self.catalogue.measure(&roots, &lot.tokens(), &read(refinements)?, steps)
        };
        Ok(lot)
    }

    /// Draws the step's contexts: users alike, at a random event of each.
    fn moments(&self, random: &mut ChaCha8Rng) -> Vec<Moment<'a>> {
        let (config, training) = (self.task.config, self.task.training);
        let count = config.contexts.min(training.len());
        let pool = (count * POOL).min(training.len());
        let mut moments: Vec<Moment<'a>> = draw_places(random, training.len(), pool)
            .into_iter()
            .map(|at| {
                let window = training.window(at);
                let cut = random.random_range(1..window.len());
                Moment { history: &window[..cut], future: &window[cut..] }
            })
            .collect();
        moments.sort_by_key(|moment| moment.history.len());
        let start = random.random_range(0..=pool - count);
        moments[start..start + count].to_vec()
    }

    fn encode<B: Backend<Device = I::Device>>(&self, network: &Network<B>, moments: &[Moment<'_>]) -> Encoded<B>
    where
        I: Backend,
    {
        let histories: Vec<&[HistoryEntry]> = moments.iter().map(|moment| moment.history).collect();
        let longest = histories.iter().map(|history| history.len()).max().unwrap_or(1);
        let length = longest.min(self.task.network.max_history);
        let batch = encoder_batch::<B>(&histories, length, self.task.network.max_history, self.device);
        let items = batch.items.clone().into_data();
        let rows = Tensor::<I, 1, Int>::from_data(items, self.device);
        let events = self.catalogue.vectors.clone().select(0, rows).into_data();
        let states = network.encode(&batch, Tensor::from_data(events, self.device)); // [contexts * length, d]
        let ends =
            histories.iter().enumerate().map(|(row, history)| (row * length + history.len().min(length) - 1) as i32);
        let ends =
            Tensor::<B, 1, Int>::from_data(TensorData::new(ends.collect::<Vec<_>>(), [histories.len()]), self.device);
        let queries = states.clone().select(0, ends);
        let padding: Vec<bool> =
            histories.iter().flat_map(|history| (0..length).map(|column| column >= history.len())).collect();
        let hidden = Tensor::from_data(TensorData::new(padding, [histories.len(), 1, 1, length]), self.device);
        Encoded { states, queries, hidden }
    }

    /// g(d_t) of every path at every step but the last, `[paths * steps, d]`; what stands past a path's end means nothing.
    fn refine<B: Backend<Device = I::Device>>(
        &self,
        network: &Network<B>,
        encoded: &Encoded<B>,
        lot: &Lot<'_, I>,
    ) -> Tensor<B, 2> {
        let ([contexts, width], steps) = (encoded.queries.dims(), lot.steps);
        let paths = lot.tokens();
        let (count, group) = (paths.len(), paths.len() / contexts);
        let shape = self.task.index.codes().shape();
        let tokens = Tensor::<B, 2>::from_data(network.tokens().into_data(), self.device);
        let begin = network.begin_inputs(encoded.queries.clone()).unsqueeze_dim::<3>(1).repeat_dim(1, group);
        let mut inputs = vec![begin.reshape([count, 1, width])];
        for step in 0..steps - 1 {
            let chosen: Vec<i32> =
                paths.iter().map(|path| path.get(step).map_or(0, |&token| shape.flat(token) as i32)).collect();
            let chosen = Tensor::<B, 1, Int>::from_data(TensorData::new(chosen, [count]), self.device);
            inputs.push(network.token_inputs(tokens.clone().select(0, chosen), step + 1).unsqueeze_dim::<3>(1));
        }
        let x = Tensor::cat(inputs, 1).reshape([count * steps, width]);
        let history = network.history_memory(encoded.states.clone(), contexts);
        let states = network.decode(x, count, &mut Vec::new(), &history, encoded.hidden.clone());
        network.refinements(states)
    }

    /// The weighted reward of every path; adaptive weights learn from it first.
    fn reward(&mut self, moments: &[Moment<'_>], rollout: &Rollout) -> Vec<f32> {
        let (config, index) = (self.task.config, self.task.index);
        let judge = Judge { window: config.window, decay: config.decay, theta: config.theta, kinds: &config.kinds };
        let groups = || moments.iter().zip(rollout.paths.chunks(config.group));
        if config.adaptive {
            self.report.model.fade();
            for (moment, paths) in groups().filter(|(moment, _)| moment.future.len() > 1) {
                let next: Vec<Rewards> =
                    paths.iter().map(|path| path.future_rewards(&moment.future[..1], index, &judge)).collect();
                let later = paths.iter().map(|path| path.future_rewards(&moment.future[1..], index, &judge).path);
                self.report.model.add(&next, &later.collect::<Vec<_>>());
            }
            self.report.weights = self.report.model.weights(&config.rewards);
        }
        let weights = self.report.weights;
        let all: Vec<Rewards> = groups()
            .flat_map(|(moment, paths)| paths.iter().map(|path| path.future_rewards(moment.future, index, &judge)))
            .collect();
        let rewards: Vec<f32> = all.iter().map(|rewards| rewards.weighted(&weights)).collect();
        let share = 1.0 / all.len().max(1) as f32;
        all.iter().for_each(|rewards| self.report.rewards.add(rewards, share));
        self.report.reward += rewards.iter().sum::<f32>() * share;
        self.report.entropy += rollout.entropy;
        self.count_kinds_of_paths(rollout);
        rewards
    }

    fn count_kinds_of_paths(&mut self, rollout: &Rollout) {
        let distinct = |mut values: Vec<u64>| {
            values.sort_unstable();
            values.dedup();
            values.len() as f32
        };
        let (group, shape) = (self.task.config.group, self.task.index.codes().shape());
        let contexts = (rollout.paths.len() / group).max(1) as f32;
        for paths in rollout.paths.chunks(group) {
            let whole = |tokens: &[Token]| {
                tokens.iter().fold(0u64, |all, &token| all * shape.tokens() as u64 + shape.flat(token) as u64 + 1)
            };
            self.report.paths += distinct(paths.iter().map(|path| whole(&path.tokens)).collect()) / contexts;
            let ends = paths.iter().filter_map(|path| path.categories.last().map(|&category| u64::from(category)));
            self.report.categories += distinct(ends.collect()) / contexts;
        }
        let firsts = rollout.paths.iter().filter_map(|path| path.tokens.first().map(|token| u64::from(token.codebook)));
        self.report.first_codebooks += distinct(firsts.collect());
        let tokens: usize = rollout.paths.iter().map(|path| path.tokens.len()).sum();
        self.report.tokens += tokens as f32 / rollout.paths.len().max(1) as f32;
    }

    /// One update: a number to differentiate, whose gradient is the loss's, and the loss.
    fn update<B: AutodiffBackend<InnerBackend = I, Device = I::Device>>(
        &mut self,
        network: &Network<B>,
        lot: &Lot<'_, I>,
        random: &mut ChaCha8Rng,
    ) -> Result<(Tensor<B, 1>, f32), PostTrainError> {
        let config = self.task.config;
        let here = if config.encoder { self.encode(network, &lot.moments) } else { lot.constants::<B>() };
        let scores =
            if config.encoder { self.catalogue.scores(here.queries.clone().inner())? } else { lot.scores.clone() };
        let refinements = self.refine(network, &here, lot);
        let shares = self.catalogue.root(&scores, lot.of_begin(&refinements.clone().inner()))?;
        let basis_means = self.catalogue.means(&shares, &self.catalogue.basis)?;
        let vector_means =
            if config.encoder { self.catalogue.means(&shares, &self.catalogue.vectors)? } else { Vec::new() };
        let roots = Roots { scores, shares, basis_means, vector_means };
        let now = self.catalogue.measure(&roots, &lot.tokens(), &read(refinements.clone().inner())?, lot.steps);
        let found = objective(&now, &lot.rollout.log_p, &lot.reference, &lot.gains, config.clip, config.beta);

        let share = 1.0 / config.updates as f32;
        self.report.kl += found.kl * share;
        self.report.clipped += found.clipped * share;
        let mut loss = (found.policy + config.beta * found.kl) * config.reward_weight;
        let (by_refinements, by_queries) = lot.pulls(&now, &found, self.catalogue.width, config.reward_weight);
        let mut surrogate = (refinements * Tensor::<B, 2>::from_data(by_refinements, self.device)).sum();
        if config.encoder {
            let by_queries = Tensor::<B, 2>::from_data(by_queries, self.device);
            surrogate = surrogate + (here.queries.clone() * by_queries).sum();
        }
        if (config.path_weight > 0.0 || config.category_weight > 0.0)
            && let Some(kept) = self.supervise(network, &lot.moments, &here, roots.scores, random)?
        {
            loss += (kept.begin + kept.steps) * config.path_weight + kept.category * config.category_weight;
            self.report.supervised.begin += kept.begin * share;
            self.report.supervised.steps += kept.steps * share;
            self.report.supervised.category += kept.category * share;
            surrogate = surrogate + kept.surrogate;
        }
        Ok((surrogate, loss))
    }

    /// The path loss of pre-training on the same contexts, but for those after which nothing was taken.
    fn supervise<B: AutodiffBackend<InnerBackend = I, Device = I::Device>>(
        &self,
        network: &Network<B>,
        moments: &[Moment<'_>],
        here: &Encoded<B>,
        mut scores: Vec<f32>,
        random: &mut ChaCha8Rng,
    ) -> Result<Option<PathLoss<B>>, PostTrainError> {
        let (config, index) = (self.task.config, self.task.index);
        let next = moments.iter().enumerate().filter_map(|(row, moment)| Some((row, moment.next(config)?)));
        let (rows, items): (Vec<usize>, Vec<ItemNumber>) = next.unzip();
        if rows.is_empty() {
            return Ok(None);
        }
        let taught = (rows.len() < moments.len()).then(|| here.of(&rows));
        if taught.is_some() {
            scores = rows.iter().flat_map(|row| &scores[row * index.len()..(row + 1) * index.len()]).copied().collect();
        }
        let here = taught.as_ref().unwrap_or(here);
        softmax_rows(&mut scores, index.len());
        let (steps, most) = (config.path_steps.min(2), config.path_candidates);
        let targets = PathTargets::choose(index, items, &scores, steps, most, random);
        let context = PathContext {
            queries: here.queries.clone().inner(),
            history: network.history_memory(here.states.clone(), rows.len()),
            hidden: here.hidden.clone(),
            items: self.catalogue.vectors.clone(),
            token_sums: self.catalogue.basis.clone(),
            tokens: self.frozen.tokens(),
            kernels: Kernels::Host,
        };
        path_loss(network, context, &targets, index.codes(), config.path_weight, config.category_weight).map(Some)
    }
}

/// What a step samples, before its updates.
struct Lot<'a, I: Backend> {
    moments: Vec<Moment<'a>>,
    encoded: Encoded<I>,
    /// s(i), `[contexts, items]`.
    scores: Vec<f32>,
    rollout: Rollout,
    /// The paths under the frozen network.
    reference: Vec<Measured>,
    /// Advantages.
    gains: Vec<f32>,
    /// Tokens of the longest path.
    steps: usize,
}

impl<I: Backend> Lot<'_, I> {
    fn tokens(&self) -> Vec<&[Token]> {
        self.rollout.paths.iter().map(|path| path.tokens.as_slice()).collect()
    }

    /// The encoder's states as constants of a backend that differentiates.
    fn constants<B: AutodiffBackend<InnerBackend = I>>(&self) -> Encoded<B> {
        Encoded {
            states: Tensor::from_inner(self.encoded.states.clone()),
            queries: Tensor::from_inner(self.encoded.queries.clone()),
            hidden: Tensor::from_inner(self.encoded.hidden.clone()),
        }
    }

    /// g(d_0) of each context: the same in all paths of a group, taken from the first.
    fn of_begin(&self, refinements: &Tensor<I, 2>) -> Tensor<I, 2> {
        let (width, contexts) = (refinements.dims()[1], self.moments.len());
        let rows = refinements.clone().reshape([contexts as i32, -1, width as i32]);
        rows.slice([0..contexts, 0..1, 0..width]).reshape([contexts, width])
    }

    /// The loss's gradients by refinements, `[paths * steps, d]`, and by queries, `[contexts, d]`.
    fn pulls(&self, now: &[Measured], found: &Objective, width: usize, weight: f32) -> (TensorData, TensorData) {
        let (paths, contexts) = (now.len(), self.moments.len());
        let (path_row, group) = (self.steps * width, paths / contexts);
        let mut by_refinements = vec![0.0f32; paths * path_row];
        let mut by_queries = vec![0.0f32; contexts * width];
        for (path, (measured, by_log_p)) in now.iter().zip(&found.by_log_p).enumerate() {
            let own = &mut by_refinements[path * path_row..(path + 1) * path_row];
            let query = &mut by_queries[path / group * width..(path / group + 1) * width];
            for (step, &pull) in by_log_p.iter().enumerate() {
                let (at, pull) = (step * width..(step + 1) * width, pull * weight);
                add(&mut own[at.clone()], &measured.by_refinement[at.clone()], pull);
                if let Some(row) = measured.by_query.get(at) {
                    add(query, row, pull);
                }
            }
        }
        let table = |numbers: Vec<f32>| {
            let rows = numbers.len() / width;
            TensorData::new(numbers, [rows, width])
        };
        (table(by_refinements), table(by_queries))
    }
}
