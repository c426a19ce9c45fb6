use candle_core::{Result, Tensor};

use super::AutoencoderKlConfig;
use crate::{
    kernels::Kernels,
    models::{
        adapters::RowAdapters,
        attention::attention,
        layers::{GroupNorm, Linear},
        resnet::ResnetBlock2D,
    },
    weights::Weights,
};

/// diffusers' `UNetMidBlock2D` with one layer.
#[derive(Debug)]
pub(super) struct MidBlock {
    pub resnets: [ResnetBlock2D; 2],
    pub attention: Option<Attention>,
}

impl MidBlock {
    pub fn new(weights: &Weights, config: &AutoencoderKlConfig) -> Self {
        let channels = config.block_out_channels[config.block_out_channels.len() - 1];
        let resnet = |j| ResnetBlock2D::new(&weights.pp("resnets").pp(j), channels, channels, config.resnet());
        Self {
            resnets: [0, 1].map(resnet),
            attention: config
                .mid_block_add_attention
                .then(|| Attention::new(&weights.pp("attentions.0"), channels, config.norm_num_groups)),
        }
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

/// diffusers' `Attention` as autoencoders use it: one head as wide as the map, biases, a group norm before.
#[derive(Debug)]
pub(super) struct Attention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    kernels: Kernels,
}

impl Attention {
    fn new(weights: &Weights, channels: usize, groups: usize) -> Self {
        let linear = |name| Linear::new(&weights.pp(name), channels, channels);
        Self {
            group_norm: GroupNorm::new(&weights.pp("group_norm"), groups, channels, 1e-6),
            to_q: linear("to_q"),
            to_k: linear("to_k"),
            to_v: linear("to_v"),
            to_out: linear("to_out.0"),
            kernels: weights.kernels(),
        }
    }

    /// (B, h, w, C) → (B, h, w, C)
    pub async fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, h, w, c) = x.dims4()?;
        let normed = self.group_norm.forward(x)?.reshape((b, h * w, c))?;
        let (q, k, v) = (self.to_q.forward(&normed)?, self.to_k.forward(&normed)?, self.to_v.forward(&normed)?);
        let attended = attention(self.kernels, &q, &k, &v, 1).await?.reshape((b, h, w, c))?;
        self.to_out.forward_onto(&attended, x)
    }
}
