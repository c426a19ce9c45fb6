use std::ops::Range;

use candle_core::{Result, Tensor};

use super::{
    AutoencoderKlConfig,
    mid_block::{Attention, MidBlock},
    work::{Work, conv, resnet},
};
use crate::{
    kernels::conv2d::Conv2d,
    models::{
        adapters::RowAdapters,
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
    /// What each of the layers does.
    work: Vec<Work>,
}

/// The least that a stage of decoding can be.
enum Layer<'a> {
    In(&'a Conv2d),
    Resnet(&'a ResnetBlock2D),
    Attention(&'a Attention),
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
            work: work(config),
        }
    }

    /// The number of layers.
    pub fn depth(&self) -> usize {
        self.work.len()
    }

    /// What each layer does for one row of (h, w) latent pixels.
    pub fn work(&self, h: usize, w: usize) -> Vec<f64> {
        self.work.iter().map(|work| work.at(h, w)).collect()
    }

    /// Some of the layers, one after another; all of them take (B, h, w, C) to (B, H, W, 3).
    pub fn forward(&self, layers: Range<usize>, mut x: Tensor) -> Result<Tensor> {
        let all = self.layers();
        let Some(layers) = all.get(layers.clone()) else {
            candle_core::bail!("layers {layers:?} of a decoder of {}", all.len())
        };
        for layer in layers {
            x = match layer {
                Layer::In(conv) => conv.forward(&x)?,
                Layer::Resnet(resnet) => resnet.forward(&x, None, RowAdapters::NONE)?,
                Layer::Attention(attention) => attention.forward(&x)?,
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

/// In the order of [`Decoder::layers`].
fn work(config: &AutoencoderKlConfig) -> Vec<Work> {
    let channels = &config.block_out_channels;
    let (first, last) = (channels[0], channels[channels.len() - 1]);
    let mut layers = vec![conv(1, config.latent_channels, last), resnet(1, last, last)];
    layers.extend(config.mid_block_add_attention.then(|| Work::attention(1, last)));
    layers.push(resnet(1, last, last));
    for i in 0..channels.len() {
        let (inputs, outputs) = UpDecoderBlock2D::widths(config, i);
        layers.push(resnet(1 << i, inputs, outputs));
        layers.extend((0..config.layers_per_block).map(|_| resnet(1 << i, outputs, outputs)));
        layers.extend((i + 1 < channels.len()).then(|| conv(2 << i, outputs, outputs)));
    }
    layers.push(conv(config.scale(), first, config.out_channels));
    layers
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

    /// Channels of what block `i` takes and makes.
    fn widths(config: &AutoencoderKlConfig, i: usize) -> (usize, usize) {
        let channels = &config.block_out_channels;
        let last = channels.len() - 1;
        (channels[(last - i + 1).min(last)], channels[last - i])
    }
}
