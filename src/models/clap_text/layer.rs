//! One layer of RoBERTa's encoder: attention and a feed-forward layer, each followed by a norm.

use candle_core::{DType, Result, Tensor};

use super::ClapTextConfig;
use crate::{
    kernels::{Kernels, attention::Scores},
    models::layers::{LayerNorm, Linear},
    weights::Weights,
};

/// transformers' `ClapTextLayer`.
#[derive(Debug)]
pub(super) struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    heads: usize,
    kernels: Kernels,
}

impl Layer {
    pub fn new(weights: &Weights, config: &ClapTextConfig) -> Self {
        let (width, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let attention = weights.pp("attention");
        let project = |name| Linear::new(&attention.pp("self").pp(name), width, width);
        Self {
            query: project("query"),
            key: project("key"),
            value: project("value"),
            attention_output: Linear::new(&attention.pp("output.dense"), width, width),
            attention_norm: LayerNorm::new(&attention.pp("output.LayerNorm"), width, eps),
            intermediate: Linear::new(&weights.pp("intermediate.dense"), width, inner),
            output: Linear::new(&weights.pp("output.dense"), inner, width),
            output_norm: LayerNorm::new(&weights.pp("output.LayerNorm"), width, eps),
            heads: config.num_attention_heads,
            kernels: weights.kernels(),
        }
    }

    /// (B, L, D) → (B, L, D); `lengths` has the number of tokens of each row.
    pub fn forward(&self, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let (q, k, v) = (self.query.forward(x)?, self.key.forward(x)?, self.value.forward(x)?);
        let scores = Scores { keys: Some(lengths), ..Scores::default() };
        let attended = self.kernels.scored_attention(&q, &k, &v, self.heads, scores)?;
        let x = self.attention_norm.forward(&self.sum(&attended, x, &self.attention_output)?)?;
        let inner = self.kernels.gelu_erf(&self.intermediate.forward(&x)?)?;
        self.output_norm.forward(&self.sum(&inner, &x, &self.output)?)
    }

    /// x + the layer's output for y, in float32.
    fn sum(&self, y: &Tensor, x: &Tensor, layer: &Linear) -> Result<Tensor> {
        match self.kernels {
            Kernels::Packed(_) => layer.forward_with(y, x),
            Kernels::Reference(_) => x + layer.forward(y)?.to_dtype(DType::F32)?,
        }
    }
}
