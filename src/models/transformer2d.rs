//! Transformers over the places of a map, with attention to the text.

use candle_core::{Result, Tensor};

use super::{
    adapters::RowAdapters,
    attention::{repeated, scored_attention},
    layers::{GegluLayer, GroupNorm, LayerNorm, Linear, RmsNorm},
    pause::pause,
};
use crate::{
    kernels::{Kernels, attention::Scores},
    weights::Weights,
};

/// The parameters that the transformers of one block share.
#[derive(Clone, Copy, Debug)]
pub(super) struct TransformerKind {
    pub channels: usize,
    pub heads: usize,
    pub layers: usize,
    /// Width of the text's hidden states; without a text, the channels.
    pub cross_attention_dim: usize,
    pub groups: usize,
    pub use_linear_projection: bool,
    /// Heads of keys and values, which `heads` heads of queries share.
    pub kv_heads: usize,
    /// Whether the queries and keys of each head are normalized.
    pub qk_norm: bool,
    /// Whether places attend to each other. Otherwise only the norm before that attention is applied.
    pub attends_to_itself: bool,
    /// The inner width of the feed-forward layers, in widths of the map.
    pub ff_mult: usize,
}

/// The texts that the rows of a map attend to.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// Hidden states, (B, L, D).
    pub hidden: &'a Tensor,
    /// The number of tokens of each row, if padding follows them that the network masks.
    pub lengths: Option<&'a [usize]>,
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

    /// x (B, h, w, C) → (B, h, w, C). Without a text, places attend to each other in its place.
    pub async fn forward(&self, x: &Tensor, text: Option<Text<'_>>, adapters: &RowAdapters) -> Result<Tensor> {
        let (b, h, w, c) = x.dims4()?;
        let mut hidden = self.proj_in.adapted(&self.norm.forward(x)?, adapters)?.reshape((b, h * w, c))?;
        for block in &self.transformer_blocks {
            hidden = block.forward(hidden, text, adapters).await?;
        }
        self.proj_out.adapted_with(&hidden.reshape((b, h, w, c))?, x, adapters)
    }
}

/// diffusers' `BasicTransformerBlock`: self-attention, attention to the text or again to itself, feed-forward.
#[derive(Debug)]
struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: Option<Attention>,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl BasicTransformerBlock {
    fn new(weights: &Weights, kind: TransformerKind) -> Self {
        let TransformerKind { channels, cross_attention_dim, attends_to_itself, .. } = kind;
        let attention = |name, source| Attention::new(&weights.pp(name), source, kind);
        let norm = |name| LayerNorm::new(&weights.pp(name), channels, 1e-5);
        Self {
            norm1: norm("norm1"),
            attn1: attends_to_itself.then(|| attention("attn1", channels)),
            norm2: norm("norm2"),
            attn2: attention("attn2", cross_attention_dim),
            norm3: norm("norm3"),
            ff: FeedForward::new(&weights.pp("ff"), channels, kind.ff_mult),
        }
    }

    /// x (B, N, C) → (B, N, C)
    async fn forward(&self, x: Tensor, text: Option<Text<'_>>, adapters: &RowAdapters) -> Result<Tensor> {
        let normed = self.norm1.forward(&x)?;
        let x = match &self.attn1 {
            Some(attention) => {
                let itself = Text { hidden: &normed, lengths: None };
                attention.forward_with(&normed, itself, &x, adapters).await?
            }
            None => normed,
        };
        let normed = self.norm2.forward(&x)?;
        let source = text.unwrap_or(Text { hidden: &normed, lengths: None });
        let x = self.attn2.forward_with(&normed, source, &x, adapters).await?;
        pause().await;
        self.ff.forward_with(&self.norm3.forward(&x)?, &x, adapters)
    }
}

/// diffusers' `Attention` in the form of `BasicTransformerBlock`: only the last layer has biases. Several heads of
/// queries may share a head of keys and values (Ainslie et al. 2023, arXiv:2305.13245).
#[derive(Debug)]
pub(super) struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    pub to_out: Linear,
    /// The norms of queries and keys.
    norms: Option<[RmsNorm; 2]>,
    heads: usize,
    kv_heads: usize,
    kernels: Kernels,
}

impl Attention {
    pub fn new(weights: &Weights, source: usize, kind: TransformerKind) -> Self {
        let TransformerKind { channels, heads, kv_heads, qk_norm, .. } = kind;
        let (d, norms) = (channels / heads, ["norm_q", "norm_k"]);
        Self {
            to_q: Linear::without_bias(&weights.pp("to_q"), channels, channels),
            to_k: Linear::without_bias(&weights.pp("to_k"), source, kv_heads * d),
            to_v: Linear::without_bias(&weights.pp("to_v"), source, kv_heads * d),
            to_out: Linear::new(&weights.pp("to_out.0"), channels, channels),
            norms: qk_norm.then(|| norms.map(|name| RmsNorm::new(&weights.pp(name), d, 1e-5))),
            heads,
            kv_heads,
            kernels: weights.kernels(),
        }
    }

    /// x (B, N, C), source (B, M, S), residual (B, N, C) → attention of x to source, plus the residual, (B, N, C)
    pub async fn forward_with(
        &self,
        x: &Tensor,
        source: Text<'_>,
        residual: &Tensor,
        adapters: &RowAdapters,
    ) -> Result<Tensor> {
        self.to_out.adapted_with(&self.attended(x, source, adapters).await?, residual, adapters)
    }

    /// x (B, N, C), source (B, M, S) → the input of the last layer, (B, N, C)
    pub async fn attended(
        &self,
        x: &Tensor,
        Text { hidden: source, lengths }: Text<'_>,
        adapters: &RowAdapters,
    ) -> Result<Tensor> {
        let mut q = self.to_q.adapted(x, adapters)?;
        let (mut k, v) = (self.to_k.adapted(source, adapters)?, self.to_v.adapted(source, adapters)?);
        if let Some([norm_q, norm_k]) = &self.norms {
            (q, k) = (norm_q.forward_heads(&q)?, norm_k.forward_heads(&k)?);
        }
        let [k, v] = [k, v].map(|of| repeated(&of, self.kv_heads, self.heads / self.kv_heads));
        let scores = Scores { keys: lengths, ..Scores::default() };
        scored_attention(self.kernels, &q, &k?, &v?, self.heads, scores).await
    }
}

/// diffusers' `FeedForward` with `activation_fn = "geglu"`; the inner width is `mult` times the outer one.
#[derive(Debug)]
pub(super) struct FeedForward {
    proj: GegluLayer,
    out: Linear,
}

impl FeedForward {
    pub fn new(weights: &Weights, channels: usize, mult: usize) -> Self {
        Self {
            proj: GegluLayer::new(&weights.pp("net.0.proj"), channels, mult * channels),
            out: Linear::new(&weights.pp("net.2"), mult * channels, channels),
        }
    }

    /// x (B, N, C), residual (B, N, C) → the layers' output plus the residual, (B, N, C)
    pub fn forward_with(&self, x: &Tensor, residual: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        self.out.adapted_with(&self.proj.adapted(x, adapters)?, residual, adapters)
    }
}
