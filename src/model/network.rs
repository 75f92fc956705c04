//! The whole network: embeddings, encoder, scorer heads, path decoder, category head.

use burn::module::{Initializer, Module, Param};
use burn::nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use super::attention::KeysValues;
use super::block::{DecoderBlock, EncoderBlock};
use super::config::NetworkConfig;
use crate::domain::EventKind;

/// REG4Rec's network.
#[derive(Module, Debug)]
pub struct Network<B: Backend> {
    /// Z: one row per token, `[M * D, code width]`; read by the input, the scorer and the decoder.
    tokens: Param<Tensor<B, 2>>,
    /// e_i: one row per item, `[items, residual width]`; zero at start, so an item never seen scores by its code alone.
    pub(super) residuals: Param<Tensor<B, 2>>,
    item_input: Linear<B>,
    kinds: Embedding<B>,
    gaps: Embedding<B>,
    positions: Embedding<B>,
    dropout: Dropout,
    encoder: Vec<EncoderBlock<B>>,
    encoder_norm: RmsNorm<B>,
    token_head: Linear<B>,
    residual_head: Linear<B>,
    log_temperatures: Param<Tensor<B, 1>>,
    begin: Param<Tensor<B, 2>>,
    token_input: Linear<B>,
    steps: Embedding<B>,
    decoder: Vec<DecoderBlock<B>>,
    decoder_norm: RmsNorm<B>,
    pub(super) refinement_head: Linear<B>,
    category_head: Linear<B>,
    codebooks: usize,
    entries: usize,
    code_width: usize,
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
}

/// What the scorer asks of items: rows to be multiplied with the item matrix.
#[derive(Debug, Clone)]
pub struct Queries<B: Backend> {
    /// f_r(h) / tau_r for all r, `[rows, M * code width]`.
    pub tokens: Tensor<B, 2>,
    /// u(h), `[rows, residual width]`.
    pub residual: Tensor<B, 2>,
}

impl<B: Backend> Queries<B> {
    /// `[rows, M * code width + residual width]`: its product with the item matrix is s(i).
    pub fn concatenated(self) -> Tensor<B, 2> {
        Tensor::cat(vec![self.tokens, self.residual], 1)
    }
}

impl NetworkConfig {
    /// A network with fresh weights. Expects a configuration that `validate` accepts.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Network<B> {
        let (codes, width) = (self.codes, self.width);
        let token_width = codes.codebooks * self.code_width;
        let small = Initializer::Normal { mean: 0.0, std: 0.02 };
        let table = |rows: usize| EmbeddingConfig::new(rows, width).with_initializer(small.clone()).init::<B>(device);
        let linear = |from: usize, to: usize| LinearConfig::new(from, to).init::<B>(device);
        let zero =
            |from: usize, to: usize| LinearConfig::new(from, to).with_initializer(Initializer::Zeros).init::<B>(device);
        let norm = || RmsNormConfig::new(width).init::<B>(device);
        Network {
            tokens: Initializer::Normal { mean: 0.0, std: 0.05 }.init([codes.tokens(), self.code_width], device),
            residuals: Initializer::Zeros.init([self.items, self.residual_width], device),
            item_input: linear(self.item_width(), width),
            kinds: table(EventKind::ALL.len()),
            gaps: table(Self::TIME_GAPS),
            positions: table(self.max_history),
            dropout: DropoutConfig::new(self.dropout).init(),
            encoder: (0..self.encoder_layers).map(|_| EncoderBlock::new(self, device)).collect(),
            encoder_norm: norm(),
            token_head: linear(width, token_width),
            residual_head: linear(width, self.residual_width),
            log_temperatures: Initializer::Constant { value: self.temperature.ln() }.init([codes.codebooks], device),
            begin: small.init([1, width], device),
            token_input: linear(self.code_width, width),
            steps: table(codes.codebooks + 1),
            decoder: (0..self.decoder_layers).map(|_| DecoderBlock::new(self, device)).collect(),
            decoder_norm: norm(),
            // Zero, so that the path model starts out exactly equal to the scorer and can only learn what paths tell.
            refinement_head: zero(width, token_width),
            category_head: linear(width, self.categories),
            codebooks: codes.codebooks,
            entries: codes.entries,
            code_width: self.code_width,
        }
    }
}

impl<B: Backend> Network<B> {
    /// Every item's M token embeddings and its residual, side by side.
    ///
    /// # Shapes
    ///
    /// - codes: `[items * M]`, flat token numbers `r * D + j`
    /// - output: `[items, M * code width + residual width]`
    pub fn item_matrix(&self, codes: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        let residuals = self.residuals.val();
        let items = residuals.dims()[0];
        let tokens = self.tokens.val().select(0, codes); // [items * M, code width]
        Tensor::cat(vec![tokens.reshape([items, self.codebooks * self.code_width]), residuals], 1)
    }

    /// Z: the token table, `[M * D, code width]`.
    pub fn tokens(&self) -> Tensor<B, 2> {
        self.tokens.val()
    }

    /// e_i of all items, `[items, residual width]`.
    pub fn residuals(&self) -> Tensor<B, 2> {
        self.residuals.val()
    }

    /// Rows of the item matrix as the encoder takes them: `[rows, M * code width + residual width]` to `[rows, d]`.
    pub fn item_input(&self, rows: Tensor<B, 2>) -> Tensor<B, 2> {
        self.item_input.forward(rows)
    }

    /// Encoder states of all positions of all histories; each sees itself and what came before it.
    ///
    /// # Shapes
    ///
    /// - item_inputs: `[batch * length, d]`, from [`Self::item_input`]
    /// - output: `[batch * length, d]`
    pub fn encode(&self, histories: &EncoderBatch<B>, item_inputs: Tensor<B, 2>) -> Tensor<B, 2> {
        let (batch, length) = (histories.batch, histories.length);
        let width = item_inputs.dims()[1];
        let device = item_inputs.device();
        let places = Tensor::<B, 1, Int>::arange(0..length as i64, &device).unsqueeze::<2>(); // [1, length]
        let about = self.kinds.forward(histories.kinds.clone())
            + self.gaps.forward(histories.gaps.clone())
            + self.positions.forward(places); // [batch, length, d]
        let mut x = self.dropout.forward(item_inputs + about.reshape([batch * length, width]));
        // Padding comes last, so looking only backwards hides it from every real position.
        let hidden = Tensor::<B, 2, Bool>::tril_mask([length, length], 0, &device).unsqueeze::<4>();
        for block in &self.encoder {
            x = block.forward(x, batch, hidden.clone());
        }
        self.encoder_norm.forward(x)
    }

    /// The scorer's heads on encoder states `[rows, d]`.
    pub fn queries(&self, states: Tensor<B, 2>) -> Queries<B> {
        let rows = states.dims()[0];
        let tokens = self.token_head.forward(states.clone()); // [rows, M * code width]
        let tokens = tokens.reshape([rows, self.codebooks, self.code_width])
            / self.log_temperatures.val().exp().reshape([1, self.codebooks, 1]);
        Queries {
            tokens: tokens.reshape([rows, self.codebooks * self.code_width]),
            residual: self.residual_head.forward(states),
        }
    }

    /// What each token adds to the score of an item that holds it.
    ///
    /// # Shapes
    ///
    /// - queries: `[rows, M * code width]`
    /// - tokens: the token table, `[M * D, code width]`
    /// - output: `[M, rows, D]`
    pub fn token_scores(&self, queries: Tensor<B, 2>, tokens: Tensor<B, 2>) -> Tensor<B, 3> {
        let rows = queries.dims()[0];
        let queries = queries.reshape([rows, self.codebooks, self.code_width]).swap_dims(0, 1); // [M, rows, code width]
        let tokens = tokens.reshape([self.codebooks, self.entries, self.code_width]);
        queries.matmul(tokens.swap_dims(1, 2))
    }

    /// Decoder inputs: `<BOS>` for every path.
    ///
    /// # Shapes
    ///
    /// - output: `[paths, d]`
    pub fn begin_inputs(&self, paths: usize) -> Tensor<B, 2> {
        let begin = self.begin.val() + self.steps.weight.val().slice(0..1);
        begin.repeat_dim(0, paths)
    }

    /// Decoder inputs: the token chosen as the `step`-th of its path, counted from one.
    ///
    /// # Shapes
    ///
    /// - tokens: the chosen tokens' rows of the token table, `[paths, code width]`
    /// - output: `[paths, d]`
    pub fn token_inputs(&self, tokens: Tensor<B, 2>, step: usize) -> Tensor<B, 2> {
        self.token_input.forward(tokens) + self.steps.weight.val().slice(step..step + 1)
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
    /// - past: one entry per block, `[paths, heads, past steps, d / heads]`; empty before the first step
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
            x = block.forward(x, &memory, hidden.clone(), history, history_hidden.clone());
        }
        self.decoder_norm.forward(x)
    }

    /// g_r(d_t) for all r: decoder states `[rows, d]` to `[rows, M * code width]`.
    pub fn refinements(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        self.refinement_head.forward(states)
    }

    /// Category logits: decoder states `[rows, d]` to `[rows, categories]`.
    pub fn category_logits(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        self.category_head.forward(states)
    }

    /// tau_r: `[M]`.
    pub fn temperatures(&self) -> Tensor<B, 1> {
        self.log_temperatures.val().exp()
    }
}

impl<B: Backend> EncoderBatch<B> {
    /// Takes rows of equal length: item numbers, kinds and time gaps, `[batch * length]` each.
    pub fn new(
        batch: usize,
        length: usize,
        items: Vec<i32>,
        kinds: Vec<i32>,
        gaps: Vec<i32>,
        device: &B::Device,
    ) -> Self {
        let table = |rows: Vec<i32>| Tensor::from_data(TensorData::new(rows, [batch, length]), device);
        Self {
            batch,
            length,
            items: Tensor::from_data(TensorData::new(items, [batch * length]), device),
            kinds: table(kinds),
            gaps: table(gaps),
        }
    }
}
