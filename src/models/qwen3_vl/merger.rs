//! From patches to tokens.

use candle_core::{DType, Result, Tensor};

use super::{VisionConfig, vision_block::EPS};
use crate::{
    kernels::Kernels,
    models::layers::{LayerNorm, Linear},
    weights::Weights,
};

/// transformers' `Qwen3VLVisionPatchMerger`: the patches of a token, concatenated, through two linear layers with GELU.
#[derive(Debug)]
pub(super) struct Merger {
    norm: LayerNorm,
    linear_fc1: Linear,
    linear_fc2: Linear,
    norms: Norms,
    /// C·m²: width of the concatenated patches.
    width: usize,
    kernels: Kernels,
}

/// The vectors that are normalized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Norms {
    /// Each patch.
    Patches,
    /// The patches of a token together.
    Tokens,
}

impl Merger {
    pub fn new(weights: &Weights, config: &VisionConfig, norms: Norms) -> Self {
        let width = config.hidden_size * config.spatial_merge_size.pow(2);
        let normed = if norms == Norms::Patches { config.hidden_size } else { width };
        Self {
            norm: LayerNorm::new(&weights.pp("norm"), normed, EPS),
            linear_fc1: Linear::new(&weights.pp("linear_fc1"), width, width),
            linear_fc2: Linear::new(&weights.pp("linear_fc2"), width, config.out_hidden_size),
            norms,
            width,
            kernels: weights.kernels(),
        }
    }

    /// x (1, N·m², C) → (1, N, D), in float32
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let tokens = (1, x.elem_count() / self.width, self.width);
        let x = match self.norms {
            Norms::Patches => self.norm.forward(x)?.reshape(tokens)?,
            Norms::Tokens => self.norm.forward(&x.reshape(tokens)?)?,
        };
        let inner = self.kernels.gelu_erf(&self.linear_fc1.forward(&x)?)?;
        self.linear_fc2.forward(&inner)?.to_dtype(DType::F32)
    }
}
