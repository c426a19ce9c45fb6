use candle_core::{Result, Tensor};

use super::{AutoencoderKlConfig, configuration::LARGE, mid_block::MidBlock};
use crate::{
    kernels::conv2d::Conv2d,
    models::{
        layers::{GroupNorm, conv2d},
        resnet::{ResnetBlock2D, Upsample2D},
    },
    weights::Weights,
};

/// diffusers' `Decoder`.
#[derive(Debug)]
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<UpDecoderBlock2D>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    pub fn new(weights: &Weights, config: &AutoencoderKlConfig) -> Self {
        let channels = &config.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let up = weights.pp("up_blocks");
        Self {
            conv_in: conv2d(&weights.pp("conv_in"), config.latent_channels, last, 3, 1, 1),
            mid_block: MidBlock::new(&weights.pp("mid_block"), config),
            up_blocks: (0..channels.len()).map(|i| UpDecoderBlock2D::new(&up.pp(i), config, i)).collect(),
            conv_norm_out: GroupNorm::new(&weights.pp("conv_norm_out"), config.norm_num_groups, first, 1e-6),
            conv_out: conv2d(&weights.pp("conv_out"), first, config.out_channels, 3, 1, 1),
        }
    }

    /// (B, h, w, C) → (B, H, W, 3)
    pub fn forward(&self, latents: &Tensor) -> Result<Tensor> {
        let mut x = self.mid_block.forward(&self.conv_in.forward(latents)?)?;
        for block in &self.up_blocks {
            x = block.forward(x)?;
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&x)?)
    }
}

#[derive(Debug)]
struct UpDecoderBlock2D {
    resnets: Vec<ResnetBlock2D>,
    /// In all blocks but the last.
    upsampler: Option<Upsample2D>,
}

impl UpDecoderBlock2D {
    /// Block `i` from the latents.
    fn new(weights: &Weights, config: &AutoencoderKlConfig, i: usize) -> Self {
        let channels = &config.block_out_channels;
        let last = channels.len() - 1;
        let (inputs, outputs) = (channels[(last - i + 1).min(last)], channels[last - i]);
        let resnet = |j| {
            let inputs = if j == 0 { inputs } else { outputs };
            ResnetBlock2D::new(&weights.pp("resnets").pp(j), inputs, outputs, config.resnet())
        };
        Self {
            resnets: (0..=config.layers_per_block).map(resnet).collect(),
            upsampler: (i < last).then(|| Upsample2D::new(&weights.pp("upsamplers.0"), outputs, LARGE)),
        }
    }

    fn forward(&self, mut x: Tensor) -> Result<Tensor> {
        for resnet in &self.resnets {
            x = resnet.forward(&x, None)?;
        }
        match &self.upsampler {
            Some(upsampler) => upsampler.forward(&x, 2 * x.dim(1)?, 2 * x.dim(2)?),
            None => Ok(x),
        }
    }
}
