//! One block of the part that sees.

use candle_core::{DType, Result, Tensor};

use super::VisionConfig;
use crate::{
    kernels::{Kernels, attention::Mask, rotary::Pairs},
    models::layers::{LayerNorm, Linear},
    weights::Weights,
};

/// transformers' epsilon, which no file sets.
pub(super) const EPS: f64 = 1e-6;

/// transformers' `Qwen3VLVisionBlock`: attention of all patches to all patches, and two linear layers with GELU.
#[derive(Debug)]
pub(super) struct VisionBlock {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    linear_fc1: Linear,
    linear_fc2: Linear,
    heads: usize,
    kernels: Kernels,
}

impl VisionBlock {
    pub fn new(weights: &Weights, config: &VisionConfig) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let (attn, mlp) = (weights.pp("attn"), weights.pp("mlp"));
        Self {
            norm1: LayerNorm::new(&weights.pp("norm1"), width, EPS),
            qkv: Linear::new(&attn.pp("qkv"), width, 3 * width),
            proj: Linear::new(&attn.pp("proj"), width, width),
            norm2: LayerNorm::new(&weights.pp("norm2"), width, EPS),
            linear_fc1: Linear::new(&mlp.pp("linear_fc1"), width, inner),
            linear_fc2: Linear::new(&mlp.pp("linear_fc2"), inner, width),
            heads: config.num_heads,
            kernels: weights.kernels(),
        }
    }

    /// x (1, N, C) → (1, N, C). `angles` are cosines and sines (1, N, d/2).
    pub fn forward(&self, x: &Tensor, (cos, sin): (&Tensor, &Tensor)) -> Result<Tensor> {
        let qkv = self.qkv.forward(&self.norm1.forward(x)?)?;
        let width = x.dim(2)?;
        let part = |i: usize| qkv.narrow(2, i * width, width)?.contiguous();
        let q = self.kernels.rotary(&part(0)?, cos, sin, Pairs::Halves)?;
        let k = self.kernels.rotary(&part(1)?, cos, sin, Pairs::Halves)?;
        let attended = self.kernels.attention(&q, &k, &part(2)?, self.heads, Mask::None)?;
        let x = (x + self.proj.forward(&attended)?.to_dtype(DType::F32)?)?;
        let inner = self.kernels.gelu_tanh(&self.linear_fc1.forward(&self.norm2.forward(&x)?)?)?;
        x + self.linear_fc2.forward(&inner)?.to_dtype(DType::F32)?
    }
}
