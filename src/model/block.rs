//! Pre-norm transformer blocks with RMS norm.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor};

use super::attention::{Attention, AttentionConfig, KeysValues};
use super::config::NetworkConfig;
use super::probe::through;

/// Two linear layers with a ReLU between.
#[derive(Module, Debug)]
pub struct FeedForward<B: Backend> {
    pub(super) norm: RmsNorm<B>,
    pub(super) up: Linear<B>,
    pub(super) down: Linear<B>,
    dropout: Dropout,
}

impl<B: Backend> FeedForward<B> {
    /// A layer with fresh weights.
    pub fn new(config: &NetworkConfig, device: &B::Device) -> Self {
        Self {
            norm: RmsNormConfig::new(config.width).init(device),
            up: LinearConfig::new(config.width, config.feed_forward).init(device),
            down: LinearConfig::new(config.feed_forward, config.width).init(device),
            dropout: DropoutConfig::new(config.dropout).init(),
        }
    }

    /// `[rows, d]` to `[rows, d]`, the input added.
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let inner = self.dropout.forward(relu(through(&self.up, self.norm.forward(x.clone()))));
        x + self.dropout.forward(through(&self.down, inner))
    }
}

/// Self-attention, then feed-forward.
#[derive(Module, Debug)]
pub struct EncoderBlock<B: Backend> {
    pub(super) norm: RmsNorm<B>,
    pub(super) attention: Attention<B>,
    dropout: Dropout,
    pub(super) feed_forward: FeedForward<B>,
}

impl<B: Backend> EncoderBlock<B> {
    /// A block with fresh weights.
    pub fn new(config: &NetworkConfig, device: &B::Device) -> Self {
        Self {
            norm: RmsNormConfig::new(config.width).init(device),
            attention: attention(config).init(device),
            dropout: DropoutConfig::new(config.dropout).init(),
            feed_forward: FeedForward::new(config, device),
        }
    }

    /// # Shapes
    ///
    /// - x: `[batch * positions, d]`
    /// - hidden: broadcasts to `[batch, heads, positions, positions]`
    /// - output: `[batch * positions, d]`
    pub fn forward(&self, x: Tensor<B, 2>, batch: usize, hidden: Tensor<B, 4, Bool>) -> Tensor<B, 2> {
        let inner = self.norm.forward(x.clone());
        let memory = self.attention.keys_values(inner.clone(), batch);
        let x = x + self.dropout.forward(self.attention.attend(inner, &memory, hidden));
        self.feed_forward.forward(x)
    }
}

/// Causal self-attention over the path, cross-attention to the history, then feed-forward.
#[derive(Module, Debug)]
pub struct DecoderBlock<B: Backend> {
    pub(super) path_norm: RmsNorm<B>,
    pub(super) path_attention: Attention<B>,
    pub(super) history_norm: RmsNorm<B>,
    pub(super) history_attention: Attention<B>,
    dropout: Dropout,
    pub(super) feed_forward: FeedForward<B>,
}

impl<B: Backend> DecoderBlock<B> {
    /// A block with fresh weights.
    pub fn new(config: &NetworkConfig, device: &B::Device) -> Self {
        Self {
            path_norm: RmsNormConfig::new(config.width).init(device),
            path_attention: attention(config).init(device),
            history_norm: RmsNormConfig::new(config.width).init(device),
            history_attention: attention(config).init(device),
            dropout: DropoutConfig::new(config.dropout).init(),
            feed_forward: FeedForward::new(config, device),
        }
    }

    /// Keys and values of the path positions `x`, `[paths * steps, d]`.
    pub fn path_memory(&self, x: Tensor<B, 2>, paths: usize) -> KeysValues<B> {
        self.path_attention.keys_values(self.path_norm.forward(x), paths)
    }

    /// Keys and values of the encoder states, `[requests * events, d]`.
    pub fn history_memory(&self, states: Tensor<B, 2>, requests: usize) -> KeysValues<B> {
        self.history_attention.keys_values(states, requests)
    }

    /// One block over path positions. `path` holds one entry per path, `history` one per request; the rows of `x` are
    /// ordered by path and, equally, by request, so that all paths of a request read its memory as one block.
    ///
    /// # Shapes
    ///
    /// - x: `[paths * steps, d]`
    /// - path_hidden: broadcasts to `[paths, heads, steps, path positions]`
    /// - history_hidden: broadcasts to `[requests, heads, paths * steps / requests, events]`
    /// - output: `[paths * steps, d]`; and how much each row looks at each event, `[requests, heads, rows, events]`
    pub fn forward(
        &self,
        x: Tensor<B, 2>,
        path: &KeysValues<B>,
        path_hidden: Tensor<B, 4, Bool>,
        history: &KeysValues<B>,
        history_hidden: Tensor<B, 4, Bool>,
    ) -> (Tensor<B, 2>, Tensor<B, 4>) {
        let read = self.path_attention.attend(self.path_norm.forward(x.clone()), path, path_hidden);
        let x = x + self.dropout.forward(read);
        let looked = self.history_attention.weights(self.history_norm.forward(x.clone()), history, history_hidden);
        let read = self.history_attention.read(looked.clone(), history);
        (self.feed_forward.forward(x + self.dropout.forward(read)), looked)
    }
}

fn attention(config: &NetworkConfig) -> AttentionConfig {
    AttentionConfig {
        width: config.width,
        heads: config.heads,
        head_width: config.head_width(),
        dropout: config.dropout,
    }
}
