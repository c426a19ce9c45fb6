//! The decoder of clips, layer by layer.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::AutoencoderKlTemporalDecoderConfig;
use crate::{
    kernels::{conv2d::Conv2d, finish::Epilogue},
    models::{
        adapters::RowAdapters,
        frames::{FrameConv, clips},
        layers::{GroupNorm, conv2d},
        pause::pause,
        resnet::Upsample2D,
        spatial_attention::{SpatialAttention, SpatialAttentionKind},
        spatio_temporal_resnet::{GROUPS, SpatioTemporalResBlock},
    },
    weights::Weights,
};

/// diffusers' `TemporalDecoder`.
#[derive(Debug)]
pub(super) struct TemporalDecoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    time_conv_out: FrameConv,
}

/// diffusers' `MidBlockTemporalDecoder`. It has `layers_per_block` residual blocks and one attention. diffusers
/// computes the first block, and then pairs of an attention and a further block. There is only one attention, so the
/// blocks after the second one have no effect. If there is only one block, the attention has no effect.
#[derive(Debug)]
struct MidBlock {
    first: SpatioTemporalResBlock,
    second: Option<(SpatialAttention, SpatioTemporalResBlock)>,
}

/// diffusers' `UpBlockTemporalDecoder`.
#[derive(Debug)]
struct UpBlock {
    resnets: Vec<SpatioTemporalResBlock>,
    /// Present in all blocks except the last.
    upsampler: Option<Upsample2D>,
}

/// One layer of the decoder. A stage of decoding has at least one layer.
enum Layer<'a> {
    In(&'a Conv2d),
    Resnet(&'a SpatioTemporalResBlock),
    Attention(&'a SpatialAttention),
    Upsample(&'a Upsample2D),
    Out(&'a GroupNorm, &'a Conv2d, &'a FrameConv),
}

impl TemporalDecoder {
    pub fn new(weights: &Weights, config: &AutoencoderKlTemporalDecoderConfig) -> Self {
        let (sizes, up) = (&config.pictures, weights.pp("up_blocks"));
        let (first, last) = (sizes.block_out_channels[0], config.widths(0).1);
        Self {
            conv_in: conv2d(&weights.pp("conv_in"), sizes.latent_channels, last, 3, 1, 1),
            mid_block: MidBlock::new(&weights.pp("mid_block"), last, sizes.layers_per_block),
            up_blocks: (0..sizes.block_out_channels.len()).map(|i| UpBlock::new(&up.pp(i), config, i)).collect(),
            conv_norm_out: GroupNorm::new(&weights.pp("conv_norm_out"), GROUPS, first, 1e-6),
            conv_out: conv2d(&weights.pp("conv_out"), first, sizes.out_channels, 3, 1, 1),
            time_conv_out: FrameConv::new(&weights.pp("time_conv_out"), sizes.out_channels, sizes.out_channels),
        }
    }

    /// Runs some of the layers in order on clips of `frames` frames. All layers together turn (B · F, h, w, C) into
    /// (B · F, H, W, 3).
    pub async fn forward(&self, layers: Range<usize>, mut x: Tensor, frames: usize) -> Result<Tensor> {
        let all = self.layers();
        let Some(layers) = all.get(layers.clone()) else {
            candle_core::bail!("layers {layers:?} of a decoder of {}", all.len())
        };
        for layer in layers {
            pause().await;
            x = match layer {
                Layer::In(conv) => conv.forward(&x)?,
                Layer::Resnet(resnet) => resnet.forward(&x, frames, None).await?,
                Layer::Attention(attention) => attention.forward(&x).await?,
                Layer::Upsample(upsampler) => upsampler.forward(&x, 2 * x.dim(1)?, 2 * x.dim(2)?, RowAdapters::NONE)?,
                Layer::Out(norm, conv, over_frames) => {
                    let pixels = conv.forward(&norm.forward_silu(&x)?)?;
                    let shape = pixels.dims4()?;
                    let clip = pixels.reshape((clips(shape.0, frames)?, frames, shape.1 * shape.2, shape.3))?;
                    over_frames.forward_with(&clip, Epilogue::default())?.reshape(shape)?
                }
            };
        }
        Ok(x)
    }

    fn layers(&self) -> Vec<Layer<'_>> {
        let mut layers = vec![Layer::In(&self.conv_in), Layer::Resnet(&self.mid_block.first)];
        if let Some((attention, resnet)) = &self.mid_block.second {
            layers.extend([Layer::Attention(attention), Layer::Resnet(resnet)]);
        }
        for block in &self.up_blocks {
            layers.extend(block.resnets.iter().map(Layer::Resnet));
            layers.extend(block.upsampler.iter().map(Layer::Upsample));
        }
        layers.push(Layer::Out(&self.conv_norm_out, &self.conv_out, &self.time_conv_out));
        layers
    }
}

impl MidBlock {
    fn new(weights: &Weights, channels: usize, blocks: usize) -> Self {
        let resnet = |j: usize| {
            let kind = AutoencoderKlTemporalDecoderConfig::resnet();
            SpatioTemporalResBlock::new(&weights.pp("resnets").pp(j), channels, channels, kind)
        };
        let kind =
            SpatialAttentionKind { channels, heads: 1, groups: Some(GROUPS), eps: 1e-6, rescale_output_factor: 1.0 };
        let attention = SpatialAttention::new(&weights.pp("attentions.0"), kind);
        let mut resnets = (0..blocks).map(resnet);
        let first = resnets.next().unwrap_or_else(|| resnet(0));
        let second = resnets.next().map(|second| (attention, second));
        // Blocks without effect are read as well, because the file of this network has them.
        resnets.for_each(drop);
        Self { first, second }
    }
}

impl UpBlock {
    /// Block `i`, counted from the latents.
    fn new(weights: &Weights, config: &AutoencoderKlTemporalDecoderConfig, i: usize) -> Self {
        let (inputs, outputs) = config.widths(i);
        let resnet = |j: usize| {
            let (inputs, kind) = (if j == 0 { inputs } else { outputs }, AutoencoderKlTemporalDecoderConfig::resnet());
            SpatioTemporalResBlock::new(&weights.pp("resnets").pp(j), inputs, outputs, kind)
        };
        Self {
            resnets: (0..=config.pictures.layers_per_block).map(resnet).collect(),
            upsampler: (i + 1 < config.pictures.block_out_channels.len())
                .then(|| Upsample2D::new(&weights.pp("upsamplers.0"), outputs)),
        }
    }
}
