//! A layer of CLIP's encoders of texts and of pictures (transformers' `CLIPEncoderLayer`).

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::{
    adapters::RowAdapters,
    layers::{LayerNorm, Linear},
};
use crate::{
    kernels::{Kernels, attention::Mask},
    weights::Weights,
};

/// The activation function of the feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenAct {
    /// x·σ(1.702·x)
    QuickGelu,
    /// GELU with the error function.
    Gelu,
}

/// The sizes of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClipLayerSizes {
    /// D: width of a token's vector.
    pub width: usize,
    /// Width of the vectors between the two feed-forward layers.
    pub inner: usize,
    pub heads: usize,
    /// The epsilon of the norms.
    pub eps: f64,
    pub act: HiddenAct,
}

/// transformers' `CLIPEncoderLayer`.
#[derive(Debug)]
pub(super) struct ClipLayer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    act: HiddenAct,
    kernels: Kernels,
}

impl ClipLayer {
    pub fn new(weights: &Weights, sizes: ClipLayerSizes) -> Self {
        let ClipLayerSizes { width, inner, heads, eps, act } = sizes;
        let norm = |name| LayerNorm::new(&weights.pp(name), width, eps);
        let project = |name| Linear::new(&weights.pp("self_attn").pp(name), width, width);
        Self {
            layer_norm1: norm("layer_norm1"),
            q_proj: project("q_proj"),
            k_proj: project("k_proj"),
            v_proj: project("v_proj"),
            out_proj: project("out_proj"),
            layer_norm2: norm("layer_norm2"),
            fc1: Linear::new(&weights.pp("mlp.fc1"), width, inner),
            fc2: Linear::new(&weights.pp("mlp.fc2"), inner, width),
            heads,
            act,
            kernels: weights.kernels(),
        }
    }

    /// (B, L, D) → (B, L, D)
    pub fn forward(&self, x: Tensor, mask: Mask, adapters: &RowAdapters) -> Result<Tensor> {
        let normed = self.layer_norm1.forward(&x)?;
        let project = |layer: &Linear| layer.adapted(&normed, adapters);
        let (q, k, v) = (project(&self.q_proj)?, project(&self.k_proj)?, project(&self.v_proj)?);
        let x = self.out_proj.adapted_with(&self.kernels.attention(&q, &k, &v, self.heads, mask)?, &x, adapters)?;
        let inner = self.fc1.adapted(&self.layer_norm2.forward(&x)?, adapters)?;
        let inner = match self.act {
            HiddenAct::QuickGelu => self.kernels.quick_gelu(&inner)?,
            HiddenAct::Gelu => self.kernels.gelu_erf(&inner)?,
        };
        self.fc2.adapted_with(&inner, &x, adapters)
    }
}
