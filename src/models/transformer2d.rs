//! Transformers over the places of a map, with attention to the text.

use candle_core::{Result, Tensor};

use super::{
    adapters::RowAdapters,
    attention::attention,
    layers::{GegluLayer, GroupNorm, LayerNorm, Linear},
    pause::pause,
};
use crate::{kernels::Kernels, weights::Weights};

/// The parameters that the transformers of one block share.
#[derive(Clone, Copy, Debug)]
pub(super) struct TransformerKind {
    pub channels: usize,
    pub heads: usize,
    pub layers: usize,
    /// Width of the text's hidden states.
    pub cross_attention_dim: usize,
    pub groups: usize,
    pub use_linear_projection: bool,
}

/// diffusers' `Transformer2DModel` on continuous input.
#[derive(Debug)]
pub(super) struct Transformer2DModel {
    norm: GroupNorm,
    proj_in: Linear,
    transformer_blocks: Vec<BasicTransformerBlock>,
    proj_out: Linear,
}

impl Transformer2DModel {
    pub fn new(weights: &Weights, kind: TransformerKind) -> Self {
        let TransformerKind { channels, layers, groups, use_linear_projection, .. } = kind;
        let project = if use_linear_projection { Linear::new } else { Linear::pointwise };
        let blocks = weights.pp("transformer_blocks");
        Self {
            norm: GroupNorm::new(&weights.pp("norm"), groups, channels, 1e-6),
            proj_in: project(&weights.pp("proj_in"), channels, channels),
            transformer_blocks: (0..layers).map(|i| BasicTransformerBlock::new(&blocks.pp(i), kind)).collect(),
            proj_out: project(&weights.pp("proj_out"), channels, channels),
        }
    }

    /// x (B, h, w, C), text (B, L, D) → (B, h, w, C)
    pub async fn forward(&self, x: &Tensor, text: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        let (b, h, w, c) = x.dims4()?;
        let mut hidden = self.proj_in.adapted(&self.norm.forward(x)?, adapters)?.reshape((b, h * w, c))?;
        for block in &self.transformer_blocks {
            hidden = block.forward(hidden, text, adapters).await?;
        }
        self.proj_out.adapted_with(&hidden.reshape((b, h, w, c))?, x, adapters)
    }
}

/// diffusers' `BasicTransformerBlock`: self-attention, attention to the text, feed-forward.
#[derive(Debug)]
struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl BasicTransformerBlock {
    fn new(weights: &Weights, kind: TransformerKind) -> Self {
        let TransformerKind { channels, heads, cross_attention_dim, .. } = kind;
        let norm = |name| LayerNorm::new(&weights.pp(name), channels, 1e-5);
        Self {
            norm1: norm("norm1"),
            attn1: Attention::new(&weights.pp("attn1"), channels, channels, heads),
            norm2: norm("norm2"),
            attn2: Attention::new(&weights.pp("attn2"), channels, cross_attention_dim, heads),
            norm3: norm("norm3"),
            ff: FeedForward::new(&weights.pp("ff"), channels),
        }
    }

    /// x (B, N, C), text (B, L, D) → (B, N, C)
    async fn forward(&self, x: Tensor, text: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        let normed = self.norm1.forward(&x)?;
        let x = self.attn1.forward_with(&normed, &normed, &x, adapters).await?;
        let x = self.attn2.forward_with(&self.norm2.forward(&x)?, text, &x, adapters).await?;
        pause().await;
        self.ff.forward_with(&self.norm3.forward(&x)?, &x, adapters)
    }
}

/// diffusers' `Attention` in the form of `BasicTransformerBlock`: only the last layer has biases.
#[derive(Debug)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
    kernels: Kernels,
}

impl Attention {
    fn new(weights: &Weights, channels: usize, source: usize, heads: usize) -> Self {
        Self {
            to_q: Linear::without_bias(&weights.pp("to_q"), channels, channels),
            to_k: Linear::without_bias(&weights.pp("to_k"), source, channels),
            to_v: Linear::without_bias(&weights.pp("to_v"), source, channels),
            to_out: Linear::new(&weights.pp("to_out.0"), channels, channels),
            heads,
            kernels: weights.kernels(),
        }
    }

    /// x (B, N, C), source (B, M, S), residual (B, N, C) → attention of x to source, plus the residual, (B, N, C)
    async fn forward_with(
        &self,
        x: &Tensor,
        source: &Tensor,
        residual: &Tensor,
        adapters: &RowAdapters,
    ) -> Result<Tensor> {
        let q = self.to_q.adapted(x, adapters)?;
        let (k, v) = (self.to_k.adapted(source, adapters)?, self.to_v.adapted(source, adapters)?);
        self.to_out.adapted_with(&attention(self.kernels, &q, &k, &v, self.heads).await?, residual, adapters)
    }
}

/// diffusers' `FeedForward` with `activation_fn = "geglu"`; the inner width is four times the outer one.
#[derive(Debug)]
struct FeedForward {
    proj: GegluLayer,
    out: Linear,
}

impl FeedForward {
    fn new(weights: &Weights, channels: usize) -> Self {
        Self {
            proj: GegluLayer::new(&weights.pp("net.0.proj"), channels, 4 * channels),
            out: Linear::new(&weights.pp("net.2"), 4 * channels, channels),
        }
    }

    /// x (B, N, C), residual (B, N, C) → the layers' output plus the residual, (B, N, C)
    fn forward_with(&self, x: &Tensor, residual: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        self.out.adapted_with(&self.proj.adapted(x, adapters)?, residual, adapters)
    }
}
