//! The search of models that know tokens only: the likeliest `beam` sets of tokens of real items kept at each step.

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use super::harness::{RankError, Ranker};
use super::holders::Holders;
use super::item_scorer::latest;
use super::trial::Question;
use crate::domain::{CodeShape, CodeTable, HistoryEntry, ItemNumber, Token};
use crate::model::{Network, NetworkConfig, encoder_batch, flat_codes};

/// Which codebook a path goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenOrder {
    /// The next one: TIGER's (Rajput et al. 2023).
    Fixed,
    /// The unused one whose likeliest token is likeliest: CRSS by the paper's plain reading.
    Surest,
}

/// Ranks by generating tokens, those of real items only: a token's probability is a softmax over those of its codebook that
/// some item holds beside the tokens before it.
#[derive(Debug)]
pub struct TokenSearch<'a, B: Backend> {
    network: Network<B>,
    config: NetworkConfig,
    holders: Holders<'a>,
    order: TokenOrder,
    /// `[items, d]`.
    vectors: Tensor<B, 2>,
    beam: usize,
    device: B::Device,
}

/// A path on its way.
#[derive(Debug, Clone, Default)]
struct Path {
    /// The items that it may still lead to; none: all.
    left: Option<Vec<ItemNumber>>,
    /// A bit for each codebook that it has used.
    used: u64,
    /// ln P of its tokens.
    score: f32,
}

/// A path and what it might be followed by.
struct Child {
    /// The path's place among those of its request.
    parent: usize,
    token: Token,
    score: f32,
}

impl<'a, B: Backend> TokenSearch<'a, B> {
    /// A search over the items of `codes` that keeps `beam` paths.
    pub fn new(
        network: Network<B>,
        config: NetworkConfig,
        codes: &'a CodeTable,
        order: TokenOrder,
        beam: usize,
        device: B::Device,
    ) -> Self {
        let vectors = network.item_vectors(flat_codes(codes, &device));
        Self { network, config, holders: Holders::of(codes), order, vectors, beam, device }
    }

    /// The children of a path that hold an item which may be named, all of one codebook; `logits` are of all next tokens.
    fn children(&self, path: &Path, logits: &[f32], question: &Question<'_>) -> Vec<(Token, f32)> {
        let CodeShape { codebooks, entries } = self.holders.codes().shape();
        let unused = (0..codebooks).filter(|codebook| path.used >> codebook & 1 == 0);
        let choice = match self.order {
            TokenOrder::Fixed => 1,
            TokenOrder::Surest => codebooks,
        };
        let mut surest = (f32::NEG_INFINITY, Vec::new());
        for codebook in unused.take(choice) {
            let logits = &logits[codebook * entries..(codebook + 1) * entries];
            let follows = self.holders.following(path.left.as_deref(), codebook, |_| true);
            let following = || (0..entries).filter(|&entry| follows[entry]);
            let most = following().map(|entry| logits[entry]).fold(f32::MIN, f32::max);
            let sum: f32 = following().map(|entry| (logits[entry] - most).exp()).sum();
            let allowed = self.holders.following(path.left.as_deref(), codebook, |item| question.allows(item));
            let children: Vec<(Token, f32)> = (0..entries)
                .filter(|&entry| allowed[entry])
                .map(|entry| {
                    let token = Token { codebook: codebook as u8, entry: entry as u16 };
                    (token, logits[entry] - most - sum.ln())
                })
                .collect();
            let confidence = children.iter().map(|&(_, score)| score).fold(f32::NEG_INFINITY, f32::max);
            if confidence > surest.0 {
                surest = (confidence, children);
            }
        }
        surest.1
    }

    /// The best children of a request's paths; `logits` holds a row for each path.
    fn grown(&self, paths: &[Path], logits: &[f32], question: &Question<'_>) -> (Vec<Path>, Vec<Child>) {
        let tokens = self.holders.codes().shape().tokens();
        let mut children = Vec::new();
        for (parent, (path, logits)) in paths.iter().zip(logits.chunks_exact(tokens)).enumerate() {
            let of_path = self.children(path, logits, question).into_iter();
            children.extend(of_path.map(|(token, score)| Child { parent, token, score: path.score + score }));
        }
        let place = |child: &Child| (child.parent, child.token.codebook, child.token.entry);
        children.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| place(a).cmp(&place(b))));
        children.truncate(self.beam.max(question.k));
        let grown = children.iter().map(|child| {
            let before = &paths[child.parent];
            Path {
                left: Some(self.holders.narrowed(before.left.as_deref(), child.token)),
                used: before.used | 1 << child.token.codebook,
                score: child.score,
            }
        });
        (grown.collect(), children)
    }

    fn ints(&self, values: Vec<i32>) -> Tensor<B, 1, Int> {
        let count = values.len();
        Tensor::from_data(TensorData::new(values, [count]), &self.device)
    }
}

impl<B: Backend> Ranker for TokenSearch<'_, B> {
    fn name(&self) -> &str {
        match self.order {
            TokenOrder::Fixed => "tiger",
            TokenOrder::Surest => "codebook",
        }
    }

    fn rank(&mut self, questions: &[Question<'_>]) -> Result<Vec<Vec<ItemNumber>>, RankError> {
        let histories: Vec<&[HistoryEntry]> = questions.iter().map(|question| question.history.as_slice()).collect();
        let max_history = self.config.max_history;
        let length = histories.iter().map(|history| history.len()).max().unwrap_or(1).clamp(1, max_history);
        let encoded = encoder_batch::<B>(&histories, length, max_history, &self.device);
        let states = self.network.encode(&encoded, self.vectors.clone().select(0, encoded.items.clone()));
        let mut x = self.network.begin_inputs(latest(states.clone(), &histories, length)); // [paths, d]
        let history = self.network.history_memory(states, questions.len());
        let hidden: Vec<bool> = histories
            .iter()
            .flat_map(|history| (0..length).map(move |column| column >= history.len().min(length)))
            .collect();
        let hidden: Tensor<B, 4, Bool> =
            Tensor::from_data(TensorData::new(hidden, [questions.len(), 1, 1, length]), &self.device);

        let shape = self.holders.codes().shape();
        let mut live: Vec<Vec<Path>> = vec![vec![Path::default()]; questions.len()];
        let (mut past, mut width) = (Vec::new(), 1);
        for step in 1..=shape.codebooks {
            let states = self.network.decode(x, questions.len() * width, &mut past, &history, hidden.clone());
            let logits = self.network.token_scores(self.network.refinements(states)); // [paths, M * D]
            let logits = logits.into_data().into_vec::<f32>().map_err(|error| format!("{error:?}"))?;
            let mut chosen = Vec::new();
            for ((row, question), logits) in
                live.iter_mut().zip(questions).zip(logits.chunks_exact(width * shape.tokens()))
            {
                let (grown, children) = self.grown(row, logits, question);
                *row = grown;
                chosen.push(children);
            }
            // Requests with fewer paths are filled up with copies that nobody reads.
            let before = width;
            width = chosen.iter().map(Vec::len).max().unwrap_or(1).max(1);
            let (mut parents, mut tokens) = (Vec::new(), Vec::new());
            for (at, children) in chosen.iter().enumerate() {
                let filler = (at * before, 0);
                let rows = children.iter().map(|child| (at * before + child.parent, shape.flat(child.token)));
                for (parent, token) in rows.chain(std::iter::repeat(filler)).take(width) {
                    parents.push(parent as i32);
                    tokens.push(token as i32);
                }
            }
            let parents = self.ints(parents);
            for layer in &mut past {
                layer.keys = layer.keys.clone().select(0, parents.clone());
                layer.values = layer.values.clone().select(0, parents.clone());
            }
            x = self.network.token_inputs(self.network.tokens().select(0, self.ints(tokens)), step);
        }
        Ok(live
            .iter()
            .zip(questions)
            .map(|(row, question)| {
                let items = row.iter().flat_map(|path| path.left.iter().flatten());
                items.copied().filter(|&item| question.allows(item)).take(question.k).collect()
            })
            .collect())
    }

    fn excluding_is_striking_out(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::Distribution;

    use super::*;
    use crate::domain::{CodeShape, EventKind, History};
    use crate::model::{load_weights, save_weights};

    const ITEMS: usize = 40;

    fn config() -> NetworkConfig {
        NetworkConfig {
            items: ITEMS,
            codes: CodeShape { codebooks: 3, entries: 5 },
            own_residuals: false,
            ..NetworkConfig::tiny()
        }
    }

    /// Codes of which some are shared by two items.
    fn codes() -> CodeTable {
        let code = |item: u16| [item % 5, item / 5 % 4, item % 3];
        let entries = (0..ITEMS as u16).flat_map(|item| code(if item == 39 { 3 } else { item })).collect();
        CodeTable::new(config().codes, entries).unwrap()
    }

    fn network() -> Network<Flex> {
        let mut network = config().init::<Flex>(&Default::default());
        network.refinement_head.weight =
            network.refinement_head.weight.map(|x| x.random_like(Distribution::Normal(0.0, 1.0)));
        // Fresh parameters are drawn when first read, so that copies would differ.
        load_weights(&config(), save_weights(&network).unwrap(), &Default::default()).unwrap()
    }

    /// ln P of an item's tokens along its path, each decoded from all before it and compared with what else may follow.
    fn log_p(network: &Network<Flex>, history: &History, codes: &CodeTable, order: TokenOrder, item: u32) -> f32 {
        let device = Default::default();
        let vectors = network.item_vectors(flat_codes(codes, &device));
        let encoded = encoder_batch::<Flex>(&[history.as_slice()], history.len(), 6, &device);
        let states = network.encode(&encoded, vectors.select(0, encoded.items.clone()));
        let query = states.clone().slice(history.len() - 1..history.len());
        let memory = network.history_memory(states, 1);
        let entry = |item: u32, codebook: usize| usize::from(codes.code(item)[codebook]);
        let (mut path, mut sum): (Vec<usize>, f32) = (Vec::new(), 0.0);
        while path.len() < 3 {
            let mut inputs = vec![network.begin_inputs(query.clone())];
            for (step, &codebook) in path.iter().enumerate() {
                let row = (codebook * 5 + entry(item, codebook)) as i32;
                let row = Tensor::<Flex, 1, Int>::from_data(TensorData::new(vec![row], [1]), &device);
                inputs.push(network.token_inputs(network.tokens().select(0, row), step + 1));
            }
            let hidden = Tensor::<Flex, 4, Bool>::from_data(
                TensorData::new(vec![false; history.len()], [1, 1, 1, history.len()]),
                &device,
            );
            let states = network.decode(Tensor::cat(inputs, 0), 1, &mut Vec::new(), &memory, hidden);
            let scores: Vec<f32> = network.token_scores(network.refinements(states)).into_data().into_vec().unwrap();
            let scores = &scores[path.len() * 15..];
            let fits = |other: u32| path.iter().all(|&codebook| entry(other, codebook) == entry(item, codebook));
            let log_p = |codebook: usize, token: usize| {
                let follows = |token: usize| (0..ITEMS as u32).any(|one| fits(one) && entry(one, codebook) == token);
                let sum: f32 = (0..5).filter(|&j| follows(j)).map(|j| scores[codebook * 5 + j].exp()).sum();
                if follows(token) { scores[codebook * 5 + token] - sum.ln() } else { f32::NEG_INFINITY }
            };
            let confidence = |codebook: usize| (0..5).map(|j| log_p(codebook, j)).fold(f32::MIN, f32::max);
            let unused = (0..3).filter(|codebook| !path.contains(codebook));
            let codebook = match order {
                TokenOrder::Fixed => path.len(),
                TokenOrder::Surest => unused.max_by(|&a, &b| confidence(a).total_cmp(&confidence(b))).unwrap(),
            };
            sum += log_p(codebook, entry(item, codebook));
            path.push(codebook);
        }
        sum
    }

    #[test]
    fn a_beam_as_wide_as_the_catalogue_ranks_all_items_by_the_probability_of_their_tokens() {
        let (codes, network) = (codes(), network());
        let entry = |item: u32| HistoryEntry { item, kind: EventKind::View, time: 0 };
        let histories: [History; 2] = [vec![entry(3), entry(9)], vec![entry(20), entry(1), entry(7)]];
        let questions: Vec<Question<'_>> =
            histories.iter().map(|history| Question { history, k: ITEMS, exclude: &[5, 6] }).collect();
        for order in [TokenOrder::Fixed, TokenOrder::Surest] {
            let mut search = TokenSearch::new(network.clone(), config(), &codes, order, ITEMS, Default::default());
            let lists = search.rank(&questions).unwrap();
            for (history, list) in histories.iter().zip(&lists) {
                let scores: Vec<f32> = list.iter().map(|&item| log_p(&network, history, &codes, order, item)).collect();
                assert_eq!(list.len(), ITEMS - 2);
                assert!(scores.windows(2).all(|pair| pair[0] >= pair[1] - 1.0e-4), "{order:?}: {scores:?}");
            }
            assert_eq!(search.rank(&questions[1..]).unwrap()[0], lists[1]);
        }
    }
}
