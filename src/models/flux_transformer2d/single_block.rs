//! A block with one stream of text tokens and patches: attention and feed-forward layer run side by side.

use candle_core::{Result, Tensor};

use super::{FluxTransformer2DConfig, attention::Projections, positions::Rotary};
use crate::{
    kernels::{Kernels, maps::beside},
    models::{
        adapters::RowAdapters,
        layers::{Linear, ModulatedNorm, modulations},
        pause::pause,
    },
    weights::Weights,
};

/// diffusers' `FluxSingleTransformerBlock`.
#[derive(Debug)]
pub(super) struct SingleBlock {
    norm: ModulatedNorm,
    modulation: Linear,
    projections: Projections,
    proj_mlp: Linear,
    proj_out: Linear,
    heads: usize,
    kernels: Kernels,
}

impl SingleBlock {
    pub fn new(weights: &Weights, config: &FluxTransformer2DConfig) -> Self {
        let width = config.width();
        Self {
            norm: ModulatedNorm::new(weights, 1e-6),
            modulation: Linear::new(&weights.pp("norm.linear"), width, 3 * width),
            projections: Projections::new(&weights.pp("attn"), config, ["to_q", "to_k", "to_v", "norm_q", "norm_k"]),
            proj_mlp: Linear::new(&weights.pp("proj_mlp"), width, 4 * width),
            proj_out: Linear::new(&weights.pp("proj_out"), 5 * width, width),
            heads: config.num_attention_heads,
            kernels: weights.kernels(),
        }
    }

    /// x (B, L + N, D), embedding (B, D) after SiLU → (B, L + N, D)
    pub async fn forward(
        &self,
        x: Tensor,
        embedding: &Tensor,
        rotary: &Rotary,
        adapters: &RowAdapters,
    ) -> Result<Tensor> {
        pause().await;
        let [shift, scale, gate] = modulations(&self.modulation.adapted(embedding, adapters)?)?;
        let normed = self.norm.forward(&x, &shift, &scale)?;
        let projected = self.projections.forward(&normed, adapters)?;
        let attended = projected.attended(self.kernels, self.heads, rotary).await?;
        pause().await;
        let inner = self.proj_mlp.adapted_gelu(&normed, adapters, self.kernels)?;
        let joined = beside(&attended, &inner)?;
        self.proj_out.adapted_gated(&joined, [&x, &gate], adapters, self.kernels)
    }
}
