//! Self-attention between the pixels of a feature map (B, h, w, C).

use candle_core::{Result, Tensor};

use super::{
    attention::attention,
    layers::{GroupNorm, Linear},
};
use crate::{kernels::Kernels, weights::Weights};

/// diffusers' `Attention` of every pixel of a feature map to every pixel, with biases and a residual.
#[derive(Debug)]
pub(super) struct SpatialAttention {
    group_norm: Option<GroupNorm>,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
    rescale_output_factor: f64,
    kernels: Kernels,
}

/// The parameters of a [`SpatialAttention`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SpatialAttentionKind {
    pub channels: usize,
    /// The number of heads, which divides `channels`.
    pub heads: usize,
    /// Groups of the norm before the attention; `None`: no norm.
    pub groups: Option<usize>,
    pub eps: f64,
    /// The sum of attention and residual is divided by this factor.
    pub rescale_output_factor: f64,
}

impl SpatialAttention {
    pub fn new(weights: &Weights, kind: SpatialAttentionKind) -> Self {
        let SpatialAttentionKind { channels, heads, groups, eps, rescale_output_factor } = kind;
        let linear = |name| Linear::new(&weights.pp(name), channels, channels);
        Self {
            group_norm: groups.map(|groups| GroupNorm::new(&weights.pp("group_norm"), groups, channels, eps)),
            to_q: linear("to_q"),
            to_k: linear("to_k"),
            to_v: linear("to_v"),
            to_out: linear("to_out.0"),
            heads,
            rescale_output_factor,
            kernels: weights.kernels(),
        }
    }

    /// (B, h, w, C) → (B, h, w, C)
    pub async fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, h, w, c) = x.dims4()?;
        let normed = match &self.group_norm {
            Some(norm) => norm.forward(x)?,
            None => x.clone(),
        };
        let normed = normed.reshape((b, h * w, c))?;
        let (q, k, v) = (self.to_q.forward(&normed)?, self.to_k.forward(&normed)?, self.to_v.forward(&normed)?);
        let attended = attention(self.kernels, &q, &k, &v, self.heads).await?.reshape((b, h, w, c))?;
        let sum = self.to_out.forward_with(&attended, x)?;
        if self.rescale_output_factor == 1.0 { Ok(sum) } else { sum / self.rescale_output_factor }
    }
}
