//! The middle block of the autoencoders' encoder and decoder.

use candle_core::{Result, Tensor};

use super::AutoencoderKlConfig;
use crate::{
    models::{
        adapters::RowAdapters,
        resnet::ResnetBlock2D,
        spatial_attention::{SpatialAttention, SpatialAttentionKind},
    },
    weights::Weights,
};

/// diffusers' `UNetMidBlock2D` with `num_layers=1`: a resnet, an optional attention, and a second resnet.
#[derive(Debug)]
pub(super) struct MidBlock {
    pub resnets: [ResnetBlock2D; 2],
    pub attention: Option<SpatialAttention>,
}

impl MidBlock {
    pub fn new(weights: &Weights, config: &AutoencoderKlConfig) -> Self {
        let channels = config.block_out_channels[config.block_out_channels.len() - 1];
        let resnet = |j| ResnetBlock2D::new(&weights.pp("resnets").pp(j), channels, channels, config.resnet());
        Self {
            resnets: [0, 1].map(resnet),
            attention: config
                .mid_block_add_attention
                .then(|| SpatialAttention::new(&weights.pp("attentions.0"), Self::attention(config, channels))),
        }
    }

    /// The parameters of the attention: one head with all channels of the map.
    fn attention(config: &AutoencoderKlConfig, channels: usize) -> SpatialAttentionKind {
        let groups = Some(config.norm_num_groups);
        SpatialAttentionKind { channels, heads: 1, groups, eps: 1e-6, rescale_output_factor: 1.0 }
    }

    /// (B, h, w, C) → (B, h, w, C)
    pub async fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.resnets[0].forward(x, None, RowAdapters::NONE).await?;
        if let Some(attention) = &self.attention {
            x = attention.forward(&x).await?;
        }
        self.resnets[1].forward(&x, None, RowAdapters::NONE).await
    }
}
