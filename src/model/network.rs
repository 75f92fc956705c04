//! The whole network: embeddings, encoder, scorer heads, path decoder, category head.

use burn::module::{Initializer, Module, ModuleMapper, Param};
use burn::nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, DType, Int, Tensor, TensorData};

use super::attention::KeysValues;
use super::block::{DecoderBlock, EncoderBlock};
use super::config::NetworkConfig;
use super::probe::through;
use crate::domain::EventKind;

/// REG4Rec's network. An item is one vector of width d, v_i = sum over r of Z_r,j_r(i) + e_i, read by the encoder's input
/// and by the scorer alike: s(i) = <h, v_i> is a sum of one score per token and one of the residual.
#[derive(Module, Debug)]
pub struct Network<B: Backend> {
    /// Z: one row per token, `[M * D, d]`; read by the input, the scorer and the decoder.
    pub(crate) tokens: Param<Tensor<B, 2>>,
    /// e_i: one row per item, `[items, d]`. While training, the part that is the item's own; once folded, all of it.
    pub(crate) residuals: Param<Tensor<B, 2>>,
    /// W: what an item's features add to its residual, `[features, d]`; none when features are not read.
    pub(crate) feature_head: Option<Param<Tensor<B, 2>>>,
    pub(super) kinds: Embedding<B>,
    pub(super) gaps: Embedding<B>,
    pub(super) positions: Embedding<B>,
    dropout: Dropout,
    pub(super) encoder: Vec<EncoderBlock<B>>,
    pub(super) encoder_norm: RmsNorm<B>,
    pub(super) begin: Param<Tensor<B, 2>>,
    pub(super) token_input: Linear<B>,
    pub(super) steps: Embedding<B>,
    pub(super) decoder: Vec<DecoderBlock<B>>,
    pub(super) decoder_norm: RmsNorm<B>,
    pub(crate) refinement_head: Linear<B>,
    pub(super) category_head: Linear<B>,
    codebooks: usize,
    pub(crate) reads_codes: bool,
    pub(super) input_scale: f32,
}

/// Histories as tensors, padded at the end to one length.
#[derive(Debug, Clone)]
pub struct EncoderBatch<B: Backend> {
    /// Histories.
    pub batch: usize,
    /// Events of each, padding included.
    pub length: usize,
    /// Item numbers, `[batch * length]`; padding repeats item 0.
    pub items: Tensor<B, 1, Int>,
    /// Event kinds, `[batch, length]`.
    pub kinds: Tensor<B, 2, Int>,
    /// Time-gap buckets, `[batch, length]`.
    pub gaps: Tensor<B, 2, Int>,
    /// Places counted so that a history's last event has the last one, `[batch, length]`.
    pub places: Tensor<B, 2, Int>,
}

impl NetworkConfig {
    /// A network with fresh weights. Expects a configuration that `validate` accepts.
    ///
    /// A residual starts at zero where codes or features describe the item, so that it learns only what they cannot say.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Network<B> {
        let (codes, width) = (self.codes, self.width);
        let spread = |share: f64| Initializer::Normal { mean: 0.0, std: (share / width as f64).sqrt() };
        let small = Initializer::Normal { mean: 0.0, std: 0.02 };
        let table = |rows: usize| EmbeddingConfig::new(rows, width).with_initializer(small.clone()).init::<B>(device);
        let linear = |from: usize, to: usize| LinearConfig::new(from, to).init::<B>(device);
        let zero =
            |from: usize, to: usize| LinearConfig::new(from, to).with_initializer(Initializer::Zeros).init::<B>(device);
        let norm = || RmsNormConfig::new(width).init::<B>(device);
        let described = self.reads_codes || self.feature_width > 0;
        let residuals = if described { Initializer::Zeros } else { spread(1.0) };
        Network {
            // Zero where items are not read by their codes: then a token adds nothing to any score.
            tokens: if self.reads_codes { spread(1.0 / codes.codebooks as f64) } else { Initializer::Zeros }
                .init([codes.tokens(), width], device),
            residuals: residuals.init([self.items, width], device),
            feature_head: (self.feature_width > 0).then(|| spread(1.0).init([self.feature_width, width], device)),
            kinds: table(EventKind::ALL.len()),
            gaps: table(Self::TIME_GAPS),
            positions: EmbeddingConfig::new(self.max_history, width).with_initializer(spread(1.0)).init(device),
            dropout: DropoutConfig::new(self.dropout).init(),
            encoder: (0..self.encoder_layers).map(|_| EncoderBlock::new(self, device)).collect(),
            encoder_norm: norm(),
            begin: small.init([1, width], device),
            token_input: linear(width, width),
            steps: table(codes.codebooks + 1),
            decoder: (0..self.decoder_layers).map(|_| DecoderBlock::new(self, device)).collect(),
            decoder_norm: norm(),
            // Zero, so that the path model starts out exactly equal to the scorer and can only learn what paths tell.
            refinement_head: zero(width, width),
            category_head: linear(width, self.categories),
            codebooks: codes.codebooks,
            reads_codes: self.reads_codes,
            input_scale: (width as f32).sqrt(),
        }
    }
}

impl<B: Backend> Network<B> {
    /// v_i of every item of a network whose residuals are whole (see [`Self::folded`]).
    ///
    /// # Shapes
    ///
    /// - codes: `[items * M]`, flat token numbers `r * D + j`
    /// - output: `[items, d]`
    pub fn item_vectors(&self, codes: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        if self.reads_codes { self.token_sums(codes) + self.residuals.val() } else { self.residuals.val() }
    }

    /// What its tokens say of every item, sum over r of Z_r,j_r(i).
    ///
    /// # Shapes
    ///
    /// - codes: `[items * M]`, flat token numbers `r * D + j`
    /// - output: `[items, d]`
    pub fn token_sums(&self, codes: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        let [items, width] = self.residuals.dims();
        let tokens = self.tokens.val().select(0, codes); // [items * M, d]
        tokens.reshape([items, self.codebooks, width]).sum_dim(1).reshape([items, width])
    }

    /// The network with e_i + W x_i in the place of e_i, so that serving needs no features.
    ///
    /// # Shapes
    ///
    /// - features: `[items, features]`
    pub fn folded(mut self, features: Tensor<B, 2>) -> Self {
        if let Some(head) = &self.feature_head {
            let given = features.matmul(head.val());
            self.residuals = self.residuals.map(|own| own + given);
        }
        self
    }

    /// The network with path heads of zero: paths then refine nothing, and the search ranks as the scorer does.
    pub fn with_silent_paths(mut self) -> Self {
        self.refinement_head.weight = self.refinement_head.weight.map(|weight| weight.zeros_like());
        self.refinement_head.bias = self.refinement_head.bias.map(|bias| bias.map(|bias| bias.zeros_like()));
        self
    }

    /// The network without its feature head: the residuals, folded, are then all that is learnt of an item beside its tokens.
    pub fn without_features(mut self) -> Self {
        self.feature_head = None;
        self
    }

    /// The network with other residuals, `[items, d]`: of as many items as the configuration says from then on.
    pub fn with_residuals(mut self, residuals: Tensor<B, 2>) -> Self {
        self.residuals = self.residuals.map(|_| residuals);
        self
    }

    /// The network with all its numbers in another precision.
    pub fn cast(self, precision: DType) -> Self {
        self.map(&mut Cast(precision))
    }

    /// W x_i: what features give to residuals, `[rows, features]` to `[rows, d]`; zero when features are not read.
    pub fn given_residuals(&self, features: Tensor<B, 2>) -> Tensor<B, 2> {
        let [rows, _] = features.dims();
        match &self.feature_head {
            Some(head) => features.matmul(head.val()),
            None => Tensor::zeros([rows, self.residuals.dims()[1]], &features.device()),
        }
    }

    /// Z: the token table, `[M * D, d]`.
    pub fn tokens(&self) -> Tensor<B, 2> {
        self.tokens.val()
    }

    /// e_i of all items, `[items, d]`.
    pub fn residuals(&self) -> Tensor<B, 2> {
        self.residuals.val()
    }

    /// Encoder states of all positions of all histories; each sees itself and what came before it.
    ///
    /// # Shapes
    ///
    /// - item_vectors: the events' v_i, `[batch * length, d]`
    /// - output: `[batch * length, d]`; a row is h, what [`Self::token_scores`] and residuals are multiplied with
    pub fn encode(&self, histories: &EncoderBatch<B>, item_vectors: Tensor<B, 2>) -> Tensor<B, 2> {
        let (batch, length) = (histories.batch, histories.length);
        let width = item_vectors.dims()[1];
        let device = item_vectors.device();
        let about = self.kinds.forward(histories.kinds.clone())
            + self.gaps.forward(histories.gaps.clone())
            + self.positions.forward(histories.places.clone()); // [batch, length, d]
        let inputs = item_vectors * self.input_scale + about.reshape([batch * length, width]);
        let mut x = self.dropout.forward(inputs);
        // Padding comes last, so looking only backwards hides it from every real position.
        let hidden = Tensor::<B, 2, Bool>::tril_mask([length, length], 0, &device).unsqueeze::<4>();
        for block in &self.encoder {
            x = block.forward(x, batch, hidden.clone());
        }
        self.encoder_norm.forward(x)
    }

    /// What each token adds to the score of an item that holds it: `[rows, d]` to `[rows, M * D]`.
    pub fn token_scores(&self, queries: Tensor<B, 2>) -> Tensor<B, 2> {
        queries.matmul(self.tokens.val().transpose())
    }

    /// Decoder inputs: `<BOS>` for every path, with the h that the path begins from. A causal encoder marks no state as the
    /// latest, so attention alone would not find it.
    ///
    /// # Shapes
    ///
    /// - queries: h, `[paths, d]`
    /// - output: `[paths, d]`
    pub fn begin_inputs(&self, queries: Tensor<B, 2>) -> Tensor<B, 2> {
        queries + self.begin.val() + self.steps.weight.val().slice(0..1)
    }

    /// Decoder inputs: the token chosen as the `step`-th of its path, counted from one.
    ///
    /// # Shapes
    ///
    /// - tokens: the chosen tokens' rows of the token table, `[paths, d]`
    /// - output: `[paths, d]`
    pub fn token_inputs(&self, tokens: Tensor<B, 2>, step: usize) -> Tensor<B, 2> {
        through(&self.token_input, tokens * self.input_scale) + self.steps.weight.val().slice(step..step + 1)
    }

    /// Keys and values of the encoder states for each decoder block, `[requests * events, d]` each.
    pub fn history_memory(&self, states: Tensor<B, 2>, requests: usize) -> Vec<KeysValues<B>> {
        self.decoder.iter().map(|block| block.history_memory(states.clone(), requests)).collect()
    }

    /// Decoder states of new path positions, after the positions in `past`; `past` grows by them.
    ///
    /// # Shapes
    ///
    /// - x: `[paths * new steps, d]`, ordered by request, path, step
    /// - past: one entry per block, `[paths, heads, past steps, head width]`; empty before the first step
    /// - history: one entry per block, one batch entry per request
    /// - history_hidden: broadcasts to `[requests, heads, rows per request, events]`
    /// - output: `[paths * new steps, d]`
    pub fn decode(
        &self,
        x: Tensor<B, 2>,
        paths: usize,
        past: &mut Vec<KeysValues<B>>,
        history: &[KeysValues<B>],
        history_hidden: Tensor<B, 4, Bool>,
    ) -> Tensor<B, 2> {
        self.decode_looking(x, paths, past, history, history_hidden, &mut |_| ())
    }

    /// As [`Self::decode`]; tells `look` of each block how much each row looks at each event,
    /// `[requests, heads, rows per request, events]`.
    pub fn decode_looking(
        &self,
        x: Tensor<B, 2>,
        paths: usize,
        past: &mut Vec<KeysValues<B>>,
        history: &[KeysValues<B>],
        history_hidden: Tensor<B, 4, Bool>,
        look: &mut dyn FnMut(Tensor<B, 4>),
    ) -> Tensor<B, 2> {
        let device = x.device();
        let new = x.dims()[0] / paths;
        let before = past.first().map_or(0, |layer| layer.keys.dims()[2]);
        // A new position sees all of the past and the new positions up to itself.
        let hidden = Tensor::<B, 2, Bool>::tril_mask([new, before + new], before as i64, &device).unsqueeze::<4>();
        let mut x = x;
        for (at, (block, history)) in self.decoder.iter().zip(history).enumerate() {
            let mut memory = block.path_memory(x.clone(), paths);
            match past.get_mut(at) {
                Some(layer) => {
                    memory.keys = Tensor::cat(vec![layer.keys.clone(), memory.keys], 2);
                    memory.values = Tensor::cat(vec![layer.values.clone(), memory.values], 2);
                    *layer = memory.clone();
                }
                None => past.push(memory.clone()),
            }
            let (read, looked) = block.forward(x, &memory, hidden.clone(), history, history_hidden.clone());
            look(looked);
            x = read;
        }
        self.decoder_norm.forward(x)
    }

    /// g(d_t), one query for the tokens of all codebooks not used yet: decoder states `[rows, d]` to `[rows, d]`.
    pub fn refinements(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        through(&self.refinement_head, states)
    }

    /// Category logits: decoder states `[rows, d]` to `[rows, categories]`.
    pub fn category_logits(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        through(&self.category_head, states)
    }
}

/// Gives every weight another precision.
struct Cast(DType);

impl<B: Backend> ModuleMapper<B> for Cast {
    fn map_float<const D: usize>(&mut self, weight: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        weight.map(|weight| weight.cast(self.0))
    }
}

impl<B: Backend> EncoderBatch<B> {
    /// Takes rows of equal length: item numbers, kinds, time gaps and places, `[batch * length]` each.
    pub fn new(
        batch: usize,
        length: usize,
        items: Vec<i32>,
        kinds: Vec<i32>,
        gaps: Vec<i32>,
        places: Vec<i32>,
        device: &B::Device,
    ) -> Self {
        let table = |rows: Vec<i32>| Tensor::from_data(TensorData::new(rows, [batch, length]), device);
        Self {
            batch,
            length,
            items: Tensor::from_data(TensorData::new(items, [batch * length]), device),
            kinds: table(kinds),
            gaps: table(gaps),
            places: table(places),
        }
    }
}
