//! Multi-head attention that lets many queries share one set of keys and values.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor};

use super::probe::through;

/// Sizes of an [`Attention`] layer.
#[derive(Debug, Clone, Copy)]
pub struct AttentionConfig {
    /// d: input and output width.
    pub width: usize,
    /// Heads.
    pub heads: usize,
    /// Numbers of a query, key or value in one head.
    pub head_width: usize,
    /// Dropout of the attention weights.
    pub dropout: f64,
}

/// Scaled dot-product attention with `heads` heads.
#[derive(Module, Debug)]
pub struct Attention<B: Backend> {
    pub(super) query: Linear<B>,
    pub(super) key: Linear<B>,
    pub(super) value: Linear<B>,
    pub(super) output: Linear<B>,
    dropout: Dropout,
    pub(super) heads: usize,
}

/// Keys and values of a memory, computed once and attended to many times.
#[derive(Debug, Clone)]
pub struct KeysValues<B: Backend> {
    /// `[batch, heads, positions, head width]`
    pub keys: Tensor<B, 4>,
    /// `[batch, heads, positions, head width]`
    pub values: Tensor<B, 4>,
}

impl AttentionConfig {
    /// A layer with fresh weights.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Attention<B> {
        let inner = self.heads * self.head_width;
        let linear = |from: usize, to: usize| LinearConfig::new(from, to).with_bias(false).init(device);
        Attention {
            query: linear(self.width, inner),
            key: linear(self.width, inner),
            value: linear(self.width, inner),
            output: linear(inner, self.width),
            dropout: DropoutConfig::new(self.dropout).init(),
            heads: self.heads,
        }
    }
}

impl<B: Backend> Attention<B> {
    /// Keys and values of `memory`.
    ///
    /// # Shapes
    ///
    /// - memory: `[batch * positions, d]`
    pub fn keys_values(&self, memory: Tensor<B, 2>, batch: usize) -> KeysValues<B> {
        KeysValues {
            keys: self.split(through(&self.key, memory.clone()), batch),
            values: self.split(through(&self.value, memory), batch),
        }
    }

    /// What each query row reads from its batch entry's memory. Where `hidden` is true, a query does not look.
    ///
    /// # Shapes
    ///
    /// - queries: `[batch * rows, d]`
    /// - hidden: broadcasts to `[batch, heads, rows, positions]`
    /// - output: `[batch * rows, d]`
    pub fn attend(&self, queries: Tensor<B, 2>, memory: &KeysValues<B>, hidden: Tensor<B, 4, Bool>) -> Tensor<B, 2> {
        self.read(self.weights(queries, memory, hidden), memory)
    }

    /// How much each query row looks at each position of its batch entry's memory.
    ///
    /// # Shapes
    ///
    /// - queries: `[batch * rows, d]`
    /// - hidden: broadcasts to `[batch, heads, rows, positions]`
    /// - output: `[batch, heads, rows, positions]`
    pub fn weights(&self, queries: Tensor<B, 2>, memory: &KeysValues<B>, hidden: Tensor<B, 4, Bool>) -> Tensor<B, 4> {
        let [batch, heads, positions, head_width] = memory.keys.dims();
        let queries = self.split(through(&self.query, queries) / (head_width as f32).sqrt(), batch); // [batch, heads, rows, head width]
        let rows = queries.dims()[2];
        let scores = queries.matmul(memory.keys.clone().swap_dims(2, 3)); // [batch, heads, rows, positions]
        let hidden = hidden.expand([batch, heads, rows, positions]);
        self.dropout.forward(softmax(scores.mask_fill(hidden, -1.0e9), 3))
    }

    /// What is read by looking so: [`Self::weights`] to `[batch * rows, d]`.
    pub fn read(&self, weights: Tensor<B, 4>, memory: &KeysValues<B>) -> Tensor<B, 2> {
        let [batch, heads, rows, _] = weights.dims();
        let head_width = memory.values.dims()[3];
        let read = weights.matmul(memory.values.clone()); // [batch, heads, rows, head width]
        let read = read.swap_dims(1, 2).reshape([batch * rows, heads * head_width]);
        through(&self.output, read)
    }

    /// `[batch * rows, heads * head width]` to `[batch, heads, rows, head width]`.
    fn split(&self, x: Tensor<B, 2>, batch: usize) -> Tensor<B, 4> {
        let [all, width] = x.dims();
        x.reshape([batch, all / batch, self.heads, width / self.heads]).swap_dims(1, 2)
    }
}
