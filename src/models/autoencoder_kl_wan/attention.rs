//! Self-attention between the places of each frame.

use candle_core::{Result, Tensor};

use super::rms_norm::WanRmsNorm;
use crate::{
    kernels::Kernels,
    models::{attention::attention, layers::Linear},
    weights::Weights,
};

/// diffusers' `WanAttentionBlock`, with one head and a residual.
#[derive(Debug)]
pub(super) struct FrameAttention {
    norm: WanRmsNorm,
    to_qkv: Linear,
    proj: Linear,
    kernels: Kernels,
}

impl FrameAttention {
    pub fn new(weights: &Weights, channels: usize) -> Self {
        Self {
            norm: WanRmsNorm::new(&weights.pp("norm"), channels, true),
            to_qkv: Linear::pointwise(&weights.pp("to_qkv"), channels, 3 * channels),
            proj: Linear::pointwise(&weights.pp("proj"), channels, channels),
            kernels: weights.kernels(),
        }
    }

    /// (F, h, w, C) → (F, h, w, C)
    pub async fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (frames, h, w, c) = x.dims4()?;
        let all = self.to_qkv.forward(&self.norm.forward(x)?.reshape((frames, h * w, c))?)?;
        let part = |i: usize| all.narrow(2, i * c, c)?.contiguous();
        let attended = attention(self.kernels, &part(0)?, &part(1)?, &part(2)?, 1).await?;
        self.proj.forward_with(&attended.reshape((frames, h, w, c))?, x)
    }
}
