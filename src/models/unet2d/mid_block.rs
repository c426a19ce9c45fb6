//! The block between the way down and the way up.

use candle_core::{Result, Tensor};

use super::layout::Block;
use crate::{
    models::{adapters::RowAdapters, resnet::ResnetBlock2D, spatial_attention::SpatialAttention},
    weights::Weights,
};

/// diffusers' `UNetMidBlock2D` with one layer.
#[derive(Debug)]
pub(super) struct MidBlock {
    resnets: Vec<ResnetBlock2D>,
    /// Runs after the first resnet.
    attention: Option<SpatialAttention>,
}

impl MidBlock {
    pub fn new(weights: &Weights, block: &Block) -> Self {
        let resnets = weights.pp("resnets");
        Self {
            resnets: (block.resnets.iter().enumerate())
                .map(|(j, layer)| ResnetBlock2D::new(&resnets.pp(j), layer.inputs, block.outputs, layer.kind))
                .collect(),
            attention: block.attentions.first().map(|kind| SpatialAttention::new(&weights.pp("attentions.0"), *kind)),
        }
    }

    /// (B, h, w, C) → (B, h, w, C)
    pub async fn forward(&self, mut x: Tensor, time: &Tensor) -> Result<Tensor> {
        for (j, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(&x, Some(time), RowAdapters::NONE).await?;
            if let Some(attention) = self.attention.as_ref().filter(|_| j == 0) {
                x = attention.forward(&x).await?;
            }
        }
        Ok(x)
    }
}
