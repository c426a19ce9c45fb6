//! The encoder of the autoencoders.

use candle_core::{Result, Tensor};

use super::{AutoencoderKlConfig, mid_block::MidBlock};
use crate::{
    kernels::conv2d::Conv2d,
    models::{
        adapters::RowAdapters,
        layers::{GroupNorm, conv2d},
        pause::pause,
        resnet::{Downsample2D, ResnetBlock2D},
    },
    weights::Weights,
};

/// diffusers' `Encoder`.
#[derive(Debug)]
pub(in crate::models) struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<DownEncoderBlock2D>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    /// Builds the encoder with `outputs` output channels.
    pub fn new(weights: &Weights, config: &AutoencoderKlConfig, outputs: usize) -> Self {
        let channels = &config.block_out_channels;
        let last = channels[channels.len() - 1];
        let down = weights.pp("down_blocks");
        Self {
            conv_in: conv2d(&weights.pp("conv_in"), config.in_channels, channels[0], 3, 1, 1),
            down_blocks: (0..channels.len()).map(|i| DownEncoderBlock2D::new(&down.pp(i), config, i)).collect(),
            mid_block: MidBlock::new(&weights.pp("mid_block"), config),
            conv_norm_out: GroupNorm::new(&weights.pp("conv_norm_out"), config.norm_num_groups, last, 1e-6),
            conv_out: conv2d(&weights.pp("conv_out"), last, outputs, 3, 1, 1),
        }
    }

    /// (B, H, W, 3) → (B, h, w, outputs)
    pub async fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        pause().await;
        let mut x = self.conv_in.forward(pixels)?;
        for block in &self.down_blocks {
            x = block.forward(x).await?;
        }
        let x = self.mid_block.forward(&x).await?;
        pause().await;
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&x)?)
    }
}

/// diffusers' `DownEncoderBlock2D`.
#[derive(Debug)]
struct DownEncoderBlock2D {
    resnets: Vec<ResnetBlock2D>,
    /// Present in all blocks except the last.
    downsampler: Option<Downsample2D>,
}

impl DownEncoderBlock2D {
    fn new(weights: &Weights, config: &AutoencoderKlConfig, i: usize) -> Self {
        let channels = &config.block_out_channels;
        let (inputs, outputs) = (channels[i.saturating_sub(1)], channels[i]);
        let resnet = |j| {
            let inputs = if j == 0 { inputs } else { outputs };
            ResnetBlock2D::new(&weights.pp("resnets").pp(j), inputs, outputs, config.resnet())
        };
        Self {
            resnets: (0..config.layers_per_block).map(resnet).collect(),
            downsampler: (i + 1 < channels.len()).then(|| Downsample2D::new(&weights.pp("downsamplers.0"), outputs, 0)),
        }
    }

    async fn forward(&self, mut x: Tensor) -> Result<Tensor> {
        for resnet in &self.resnets {
            x = resnet.forward(&x, None, RowAdapters::NONE).await?;
        }
        match &self.downsampler {
            Some(downsampler) => {
                pause().await;
                downsampler.forward(&x, RowAdapters::NONE)
            }
            None => Ok(x),
        }
    }
}
