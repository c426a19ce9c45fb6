//! One block of the transformer.

use candle_core::{Result, Tensor};

use super::StableAudio3DiTConfig;
use crate::{
    kernels::{
        Kernels,
        geglu::{Gate, Geglu},
    },
    models::{
        differential_attention::{Projections, differential_attention},
        layers::{Linear, RmsNorm, geglu, modulations},
        partial_rotary::PartialRotary,
        pause::pause,
    },
    weights::Weights,
};

/// The epsilon of all norms.
const EPS: f64 = 1e-6;

/// diffusers' `StableAudio3DiTBlock`: attention to the sound, attention to the text, and a feed-forward part. The first
/// and the last are scaled and gated by the embedding of the time.
#[derive(Debug)]
pub(super) struct Block {
    pre_norm: RmsNorm,
    self_attn: Attention,
    cross_attend_norm: RmsNorm,
    cross_attn: Attention,
    ff_norm: RmsNorm,
    ff: FeedForward,
    /// The vector that the block adds to the modulation, (6·D).
    to_scale_shift_gate: Tensor,
    kernels: Kernels,
}

impl Block {
    pub fn new(weights: &Weights, config: &StableAudio3DiTConfig) -> Self {
        let (width, is_differential) = (config.embed_dim, config.use_differential_attention);
        // Parts of the sound that stay as they are, in a task that latentd does not have.
        weights.leave("to_local_embed.");
        let norm = |name| RmsNorm::named(&weights.pp(name), "gamma", width, EPS);
        let (own, cross) = (weights.pp("self_attn"), weights.pp("cross_attn"));
        let joined = Projections::joined(&own.pp("to_qkv"), width, is_differential);
        let apart = Projections::apart([&cross.pp("to_q"), &cross.pp("to_kv")], width, width, is_differential);
        Self {
            pre_norm: norm("pre_norm"),
            self_attn: Attention::new(&own, joined, config),
            cross_attend_norm: norm("cross_attend_norm"),
            cross_attn: Attention::new(&cross, apart, config),
            ff_norm: norm("ff_norm"),
            ff: FeedForward::new(&weights.pp("ff"), width, config.inner()),
            to_scale_shift_gate: weights.tensor("to_scale_shift_gate", &[6 * width]),
            kernels: weights.kernels(),
        }
    }

    /// x (B, N, D), context (B, L, D), modulation (B, 6·D) → (B, N, D)
    pub async fn forward(
        &self,
        x: &Tensor,
        context: &Tensor,
        modulation: &Tensor,
        rotary: &PartialRotary,
    ) -> Result<Tensor> {
        let modulation = modulation.broadcast_add(&self.to_scale_shift_gate)?;
        let [scale_attn, shift_attn, gate_attn, scale_ff, shift_ff, gate_ff] = modulations(&modulation)?;
        let normed = modulated(&self.pre_norm.forward(x)?, &scale_attn, &shift_attn)?;
        let attended = self.self_attn.forward(&normed, &normed, Some(rotary)).await?;
        let x = self.kernels.gated_sum(x, &attended, &gate(&gate_attn)?)?;
        let attended = self.cross_attn.forward(&self.cross_attend_norm.forward(&x)?, context, None).await?;
        let x = (x + attended)?;
        pause().await;
        let normed = modulated(&self.ff_norm.forward(&x)?, &scale_ff, &shift_ff)?;
        self.kernels.gated_sum(&x, &self.ff.forward(&normed)?, &gate(&gate_ff)?)
    }
}

/// x · (1 + scale) + shift, for scale and shift (B, 1, D)
fn modulated(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    x.broadcast_mul(&(scale + 1.0)?)?.broadcast_add(shift)
}

/// The logistic function of 1 − x.
fn gate(x: &Tensor) -> Result<Tensor> {
    ((x - 1.0)?.exp()? + 1.0)?.recip()
}

/// diffusers' `StableAudio3SelfAttention` and `StableAudio3CrossAttention`, with normalized queries and keys.
#[derive(Debug)]
struct Attention {
    projections: Projections,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    to_out: Linear,
    heads: usize,
    kernels: Kernels,
}

impl Attention {
    fn new(weights: &Weights, projections: Projections, config: &StableAudio3DiTConfig) -> Self {
        let norm = |name| RmsNorm::named(&weights.pp(name), "gamma", config.head(), EPS);
        Self {
            projections,
            q_norm: norm("q_norm"),
            k_norm: norm("k_norm"),
            to_out: Linear::without_bias(&weights.pp("to_out"), config.embed_dim, config.embed_dim),
            heads: config.num_heads,
            kernels: weights.kernels(),
        }
    }

    /// x (B, N, D) attends to y (B, M, D), with positions if there is `rotary` → (B, N, D)
    async fn forward(&self, x: &Tensor, y: &Tensor, rotary: Option<&PartialRotary>) -> Result<Tensor> {
        let rotated = |x: Tensor| rotary.map_or(Ok(x.clone()), |rotary| rotary.rotate(&x, self.kernels));
        let q = self.projections.queries(x, |q| rotated(self.q_norm.forward_heads(&q)?))?;
        let k = self.projections.keys(y, |k| rotated(self.k_norm.forward_heads(&k)?))?;
        let v = self.projections.values(y)?;
        self.to_out.forward(&differential_attention(self.kernels, &q, &k, &v, self.heads).await?)
    }
}

/// diffusers' `StableAudio3FeedForward`: SwiGLU.
#[derive(Debug)]
struct FeedForward {
    proj_in: Geglu,
    proj_out: Linear,
}

impl FeedForward {
    fn new(weights: &Weights, width: usize, inner: usize) -> Self {
        Self {
            proj_in: geglu(&weights.pp("proj_in"), width, inner, Gate::Silu),
            proj_out: Linear::new(&weights.pp("proj_out"), inner, width),
        }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.proj_out.forward(&self.proj_in.times(x)?)
    }
}
