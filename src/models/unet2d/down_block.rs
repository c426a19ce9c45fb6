//! The blocks on the way down.

use candle_core::{Result, Tensor};

use super::{
    configuration::UNet2DConfig,
    layout::{Block, Resampler},
};
use crate::{
    kernels::Kernels,
    models::{
        adapters::RowAdapters,
        layers::Linear,
        pause::pause,
        resample::Resample,
        resnet::{Downsample2D, ResnetBlock2D},
        spatial_attention::SpatialAttention,
    },
    weights::Weights,
};

/// diffusers' `DownBlock2D`, `AttnDownBlock2D`, `ResnetDownsampleBlock2D`, `SkipDownBlock2D` and `AttnSkipDownBlock2D`.
#[derive(Debug)]
pub(super) struct DownBlock {
    resnets: Vec<ResnetBlock2D>,
    /// One after each resnet, or none.
    attentions: Vec<SpatialAttention>,
    /// Present in all blocks except the last.
    downsampler: Option<Downsampler>,
    kernels: Kernels,
}

#[derive(Debug)]
enum Downsampler {
    Conv(Downsample2D),
    Resnet(ResnetBlock2D),
    /// Halves the skip image and adds its 1 × 1 convolution to the map.
    WithSkipImage {
        resnet_down: ResnetBlock2D,
        skip_conv: Linear,
    },
}

impl DownBlock {
    /// Block `i`, counted from the input.
    pub fn new(weights: &Weights, config: &UNet2DConfig, i: usize) -> Self {
        let Block { resnets, outputs, attentions, resampler, has_skip_image } = config.down(i);
        let paths = (weights.pp("resnets"), weights.pp("attentions"));
        let downsampler = resampler.map(|resampler| match resampler {
            Resampler::Conv => {
                let weights = weights.pp("downsamplers.0");
                Downsampler::Conv(Downsample2D::new(&weights, outputs, config.downsample_padding))
            }
            Resampler::Resnet(resample, kind) if has_skip_image => Downsampler::WithSkipImage {
                resnet_down: ResnetBlock2D::resampling(&weights.pp("resnet_down"), outputs, kind, resample),
                skip_conv: Linear::pointwise(&weights.pp("skip_conv"), config.in_channels, outputs),
            },
            Resampler::Resnet(resample, kind) => {
                let weights = weights.pp("downsamplers.0");
                Downsampler::Resnet(ResnetBlock2D::resampling(&weights, outputs, kind, resample))
            }
        });
        let resnet = |(j, layer): (usize, &super::layout::Layer)| {
            ResnetBlock2D::new(&paths.0.pp(j), layer.inputs, outputs, layer.kind)
        };
        Self {
            resnets: resnets.iter().enumerate().map(resnet).collect(),
            attentions: (attentions.iter().enumerate())
                .map(|(j, kind)| SpatialAttention::new(&paths.1.pp(j), *kind))
                .collect(),
            downsampler,
            kernels: weights.kernels(),
        }
    }

    /// x (B, h, w, in) → (B, h/2, w/2, out); the last block keeps the size. Every map is pushed on `skips`. `image`
    /// (B, h, w, 3) is halved with the map if the block has a skip image.
    pub async fn forward(
        &self,
        mut x: Tensor,
        time: &Tensor,
        skips: &mut Vec<Tensor>,
        image: &mut Tensor,
    ) -> Result<Tensor> {
        for (j, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(&x, Some(time), RowAdapters::NONE).await?;
            if let Some(attention) = self.attentions.get(j) {
                x = attention.forward(&x).await?;
            }
            skips.push(x.clone());
        }
        let Some(downsampler) = &self.downsampler else { return Ok(x) };
        pause().await;
        x = match downsampler {
            Downsampler::Conv(conv) => conv.forward(&x, RowAdapters::NONE)?,
            Downsampler::Resnet(resnet) => resnet.forward(&x, Some(time), RowAdapters::NONE).await?,
            Downsampler::WithSkipImage { resnet_down, skip_conv } => {
                let x = resnet_down.forward(&x, Some(time), RowAdapters::NONE).await?;
                *image = Resample::FirDown.forward(self.kernels, image)?;
                skip_conv.forward_with(image, &x)?
            }
        };
        skips.push(x.clone());
        Ok(x)
    }
}
