//! Transformers of clips: attention between the places of each frame, then between the frames of each place.

use candle_core::{Result, Tensor};

use super::{
    adapters::RowAdapters,
    frames::{clips, for_each_frame, frames_first, learned_share, places_first},
    layers::{GroupNorm, LayerNorm, Linear},
    pause::pause,
    spatio_temporal_resnet::GROUPS,
    time_embedding::{Sinusoids, TimestepEmbedding},
    transformer2d::{Attention, FeedForward, Text, TransformerKind},
};
use crate::{
    kernels::{Kernels, finish::Epilogue},
    weights::Weights,
};

/// The parameters of a transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClipTransformerKind {
    pub channels: usize,
    pub heads: usize,
    pub layers: usize,
    /// Width of the vector of the picture.
    pub vector: usize,
}

impl ClipTransformerKind {
    fn layer(self) -> TransformerKind {
        TransformerKind {
            channels: self.channels,
            heads: self.heads,
            layers: self.layers,
            cross_attention_dim: self.vector,
            groups: GROUPS,
            use_linear_projection: true,
            kv_heads: self.heads,
            qk_norm: false,
            attends_to_itself: true,
            ff_mult: 4,
        }
    }
}

/// diffusers' `TransformerSpatioTemporalModel`, for clips that are conditioned on one vector.
#[derive(Debug)]
pub(super) struct TransformerSpatioTemporalModel {
    norm: GroupNorm,
    proj_in: Linear,
    blocks: Vec<(SpatialBlock, TemporalBlock)>,
    time_proj: Sinusoids,
    time_pos_embed: TimestepEmbedding,
    /// The share of the result of the block over places.
    share: f64,
    proj_out: Linear,
    kernels: Kernels,
}

impl TransformerSpatioTemporalModel {
    pub fn new(weights: &Weights, kind: ClipTransformerKind) -> Self {
        let c = kind.channels;
        let (spatial, temporal) = (weights.pp("transformer_blocks"), weights.pp("temporal_transformer_blocks"));
        let block = |i: usize| (SpatialBlock::new(&spatial.pp(i), kind), TemporalBlock::new(&temporal.pp(i), kind));
        Self {
            norm: GroupNorm::new(&weights.pp("norm"), GROUPS, c, 1e-6),
            proj_in: Linear::new(&weights.pp("proj_in"), c, c),
            blocks: (0..kind.layers).map(block).collect(),
            time_proj: Sinusoids { width: c, flip_sin_to_cos: true, freq_shift: 0.0 },
            time_pos_embed: TimestepEmbedding::to(&weights.pp("time_pos_embed"), c, 4 * c, c),
            share: learned_share(&weights.pp("time_mixer")),
            proj_out: Linear::new(&weights.pp("proj_out"), c, c),
            kernels: weights.kernels(),
        }
    }

    /// x (B · F, h, w, C), vectors of the pictures (B, V) → (B · F, h, w, C)
    pub async fn forward(&self, x: &Tensor, frames: usize, vectors: &Tensor) -> Result<Tensor> {
        pause().await;
        let (rows, h, w, c) = x.dims4()?;
        let numbers: Vec<f32> = (0..frames).map(|frame| frame as f32).collect();
        let numbers = self.time_proj.forward(&numbers, frames, x.device())?;
        let positions = self.time_pos_embed.forward(&numbers, None, RowAdapters::NONE)?; // (F, C)
        let mut hidden = self.proj_in.forward(&self.norm.forward(x)?)?.reshape((rows, h * w, c))?;
        for (spatial, temporal) in &self.blocks {
            hidden = spatial.forward(hidden, frames, vectors).await?;
            let turned = places_first(&hidden, frames)?.broadcast_add(&positions)?;
            let turned = temporal.forward(turned, clips(rows, frames)?, vectors).await?;
            hidden = self.kernels.mixture(&hidden, &frames_first(&turned, h * w)?, self.share)?;
        }
        self.proj_out.forward_with(&hidden.reshape((rows, h, w, c))?, x)
    }
}

/// diffusers' `BasicTransformerBlock` on the places of each frame.
#[derive(Debug)]
struct SpatialBlock {
    norm1: LayerNorm,
    attn1: Attention,
    attn2: VectorAttention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl SpatialBlock {
    fn new(weights: &Weights, kind: ClipTransformerKind) -> Self {
        let norm = |name| LayerNorm::new(&weights.pp(name), kind.channels, 1e-5);
        Self {
            norm1: norm("norm1"),
            attn1: Attention::new(&weights.pp("attn1"), kind.channels, kind.layer()),
            attn2: VectorAttention::new(weights, kind),
            norm3: norm("norm3"),
            ff: FeedForward::new(&weights.pp("ff"), kind.channels, kind.layer().ff_mult),
        }
    }

    /// x (B · F, P, C), vectors (B, V) → (B · F, P, C)
    async fn forward(&self, x: Tensor, frames: usize, vectors: &Tensor) -> Result<Tensor> {
        let vectors = for_each_frame(&self.attn2.forward(vectors)?, frames)?;
        let normed = self.norm1.forward(&x)?;
        let itself = Text { hidden: &normed, lengths: None };
        let attended = self.attn1.attended(&normed, itself, RowAdapters::NONE).await?;
        let epilogue = Epilogue { per_sample: Some(&vectors), residual: Some(&x), ..Epilogue::default() };
        let x = self.attn1.to_out.forward_finished(&attended, epilogue)?;
        pause().await;
        self.ff.forward_with(&self.norm3.forward(&x)?, &x, RowAdapters::NONE)
    }
}

/// diffusers' `TemporalBasicTransformerBlock` on the frames of each place.
#[derive(Debug)]
struct TemporalBlock {
    norm_in: LayerNorm,
    ff_in: FeedForward,
    norm1: LayerNorm,
    attn1: Attention,
    attn2: VectorAttention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl TemporalBlock {
    fn new(weights: &Weights, kind: ClipTransformerKind) -> Self {
        let norm = |name| LayerNorm::new(&weights.pp(name), kind.channels, 1e-5);
        let feed_forward = |name| FeedForward::new(&weights.pp(name), kind.channels, kind.layer().ff_mult);
        Self {
            norm_in: norm("norm_in"),
            ff_in: feed_forward("ff_in"),
            norm1: norm("norm1"),
            attn1: Attention::new(&weights.pp("attn1"), kind.channels, kind.layer()),
            attn2: VectorAttention::new(weights, kind),
            norm3: norm("norm3"),
            ff: feed_forward("ff"),
        }
    }

    /// x (B · P, F, C), vectors (B, V) for B clips → (B · P, F, C)
    async fn forward(&self, x: Tensor, clips: usize, vectors: &Tensor) -> Result<Tensor> {
        let shape = x.dims3()?;
        let whole = (clips, (), shape.2);
        pause().await;
        let x = self.ff_in.forward_with(&self.norm_in.forward(&x)?, &x, RowAdapters::NONE)?;
        let normed = self.norm1.forward(&x)?;
        let itself = Text { hidden: &normed, lengths: None };
        let attended = self.attn1.attended(&normed, itself, RowAdapters::NONE).await?;
        let (vectors, x) = (self.attn2.forward(vectors)?, x.reshape(whole)?);
        let epilogue = Epilogue { per_sample: Some(&vectors), residual: Some(&x), ..Epilogue::default() };
        let x = self.attn1.to_out.forward_finished(&attended.reshape(whole)?, epilogue)?.reshape(shape)?;
        pause().await;
        self.ff.forward_with(&self.norm3.forward(&x)?, &x, RowAdapters::NONE)
    }
}

/// diffusers' `Attention` to one vector. All of the attention goes to this vector, whatever the query is. So the result
/// is the same for every place, and the norm before it, the queries and the keys have no effect.
#[derive(Debug)]
struct VectorAttention {
    to_v: Linear,
    to_out: Linear,
}

impl VectorAttention {
    /// `weights` are the weights of the block.
    fn new(weights: &Weights, kind: ClipTransformerKind) -> Self {
        let ClipTransformerKind { channels, vector, .. } = kind;
        let (norm, attention) = (weights.pp("norm2"), weights.pp("attn2"));
        // The file must have the tensors without effect, too: without them, it is not the file of this network.
        let _ = (norm.tensor("weight", &[channels]), norm.tensor("bias", &[channels]));
        let _ = attention.tensor("to_q.weight", &[channels, channels]);
        let _ = attention.tensor("to_k.weight", &[channels, vector]);
        Self {
            to_v: Linear::without_bias(&attention.pp("to_v"), vector, channels),
            to_out: Linear::new(&attention.pp("to_out.0"), channels, channels),
        }
    }

    /// (B, V) → (B, C)
    fn forward(&self, vectors: &Tensor) -> Result<Tensor> {
        self.to_out.forward(&self.to_v.forward(vectors)?)
    }
}
