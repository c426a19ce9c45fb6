//! The decoder of the autoencoders, layer by layer.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::{AutoencoderKlConfig, mid_block::MidBlock};
use crate::{
    kernels::conv2d::Conv2d,
    models::{
        adapters::RowAdapters,
        demand::Demand,
        layers::{GroupNorm, conv2d},
        pause::pause,
        resnet::{ResnetBlock2D, Upsample2D},
        spatial_attention::SpatialAttention,
    },
    weights::Weights,
};

/// diffusers' `Decoder`.
#[derive(Debug)]
pub(in crate::models) struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<UpDecoderBlock2D>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    config: AutoencoderKlConfig,
}

/// One layer of the decoder. A stage of decoding has at least one layer.
enum Layer<'a> {
    In(&'a Conv2d),
    Resnet(&'a ResnetBlock2D),
    Attention(&'a SpatialAttention),
    Upsample(&'a Upsample2D),
    Out(&'a GroupNorm, &'a Conv2d),
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
            config: config.clone(),
        }
    }

    /// The number of layers.
    pub fn depth(&self) -> usize {
        self.layers().len()
    }

    /// The demand of each layer for one row of (h, w) latent pixels.
    pub fn demands(&self, h: usize, w: usize) -> Vec<Demand> {
        self.config.decode_layers(h, w)
    }

    /// Runs some of the layers in order. All layers together turn (B, h, w, C) into (B, H, W, 3).
    pub async fn forward(&self, layers: Range<usize>, mut x: Tensor) -> Result<Tensor> {
        let all = self.layers();
        let Some(layers) = all.get(layers.clone()) else {
            candle_core::bail!("layers {layers:?} of a decoder of {}", all.len())
        };
        for layer in layers {
            pause().await;
            x = match layer {
                Layer::In(conv) => conv.forward(&x)?,
                Layer::Resnet(resnet) => resnet.forward(&x, None, RowAdapters::NONE).await?,
                Layer::Attention(attention) => attention.forward(&x).await?,
                Layer::Upsample(upsampler) => upsampler.forward(&x, 2 * x.dim(1)?, 2 * x.dim(2)?, RowAdapters::NONE)?,
                Layer::Out(norm, conv) => conv.forward(&norm.forward_silu(&x)?)?,
            };
        }
        Ok(x)
    }

    fn layers(&self) -> Vec<Layer<'_>> {
        let [first, second] = &self.mid_block.resnets;
        let mut layers = vec![Layer::In(&self.conv_in), Layer::Resnet(first)];
        layers.extend(self.mid_block.attention.iter().map(Layer::Attention));
        layers.push(Layer::Resnet(second));
        for block in &self.up_blocks {
            layers.extend(block.resnets.iter().map(Layer::Resnet));
            layers.extend(block.upsampler.iter().map(Layer::Upsample));
        }
        layers.push(Layer::Out(&self.conv_norm_out, &self.conv_out));
        layers
    }
}

/// diffusers' `UpDecoderBlock2D`.
#[derive(Debug)]
struct UpDecoderBlock2D {
    resnets: Vec<ResnetBlock2D>,
    /// Present in all blocks except the last.
    upsampler: Option<Upsample2D>,
}

impl UpDecoderBlock2D {
    /// Block `i`, counted from the latents.
    fn new(weights: &Weights, config: &AutoencoderKlConfig, i: usize) -> Self {
        let (inputs, outputs) = Self::widths(config, i);
        let resnet = |j| {
            let inputs = if j == 0 { inputs } else { outputs };
            ResnetBlock2D::new(&weights.pp("resnets").pp(j), inputs, outputs, config.resnet())
        };
        Self {
            resnets: (0..=config.layers_per_block).map(resnet).collect(),
            upsampler: (i + 1 < config.block_out_channels.len())
                .then(|| Upsample2D::new(&weights.pp("upsamplers.0"), outputs)),
        }
    }

    /// The input and output channels of block `i`.
    fn widths(config: &AutoencoderKlConfig, i: usize) -> (usize, usize) {
        let channels = &config.block_out_channels;
        let last = channels.len() - 1;
        (channels[(last - i + 1).min(last)], channels[last - i])
    }
}
