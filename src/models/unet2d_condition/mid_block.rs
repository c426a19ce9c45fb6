//! The block between the way down and the way up.

use candle_core::{Result, Tensor};

use super::{EmbeddedConditions, MidBlockType, UNet2DConditionConfig};
use crate::{
    models::{motion_adapter::After, resnet::ResnetBlock2D, transformer2d::Transformer2DModel},
    weights::Weights,
};

/// diffusers' `UNetMidBlock2DCrossAttn` with one layer.
#[derive(Debug)]
pub(in crate::models) struct MidBlock {
    resnets: [ResnetBlock2D; 2],
    attention: Transformer2DModel,
}

impl MidBlock {
    pub fn new(weights: &Weights, config: &UNet2DConditionConfig) -> Self {
        let MidBlockType::UNetMidBlock2DCrossAttn = config.mid_block_type;
        let last = config.block_out_channels.len() - 1;
        let channels = config.block_out_channels[last];
        let kind = config.resnet(config.mid_block_scale_factor);
        let transformer = config.transformer(last, config.transformer_layers_per_block.at(last), true);
        Self {
            resnets: [0, 1].map(|j| ResnetBlock2D::new(&weights.pp("resnets").pp(j), channels, channels, kind)),
            attention: Transformer2DModel::new(&weights.pp("attentions.0"), transformer),
        }
    }

    /// (B, h, w, C) → (B, h, w, C)
    pub async fn forward(&self, x: &Tensor, conditions: &EmbeddedConditions<'_>) -> Result<Tensor> {
        let x = self.resnets[0].forward(x, Some(&conditions.time), conditions.adapters).await?;
        let x = self.attention.forward(&x, conditions.text, conditions.adapters).await?;
        let x = conditions.moved(After::Mid, x).await?;
        self.resnets[1].forward(&x, Some(&conditions.time), conditions.adapters).await
    }
}
