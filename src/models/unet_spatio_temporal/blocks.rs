//! The blocks of the U-Net: on the way down, in the middle, and on the way up.

use candle_core::{Result, Tensor};

use super::{Embedded, UNetSpatioTemporalConfig};
use crate::{
    kernels::maps::beside,
    models::{
        adapters::RowAdapters,
        pause::pause,
        resnet::{Downsample2D, Upsample2D},
        spatio_temporal_resnet::SpatioTemporalResBlock,
        spatio_temporal_transformer::TransformerSpatioTemporalModel,
    },
    weights::Weights,
};

/// A residual block, and the transformer after it in blocks with attention.
#[derive(Debug)]
struct Layer {
    resnet: SpatioTemporalResBlock,
    attention: Option<TransformerSpatioTemporalModel>,
}

impl Layer {
    async fn forward(&self, x: &Tensor, embedded: &Embedded<'_>) -> Result<Tensor> {
        let x = self.resnet.forward(x, embedded.frames, Some(&embedded.times)).await?;
        match &self.attention {
            Some(attention) => attention.forward(&x, embedded.frames, embedded.vectors).await,
            None => Ok(x),
        }
    }
}

/// diffusers' `DownBlockSpatioTemporal` and, with attentions, `CrossAttnDownBlockSpatioTemporal`.
#[derive(Debug)]
pub(super) struct DownBlock {
    layers: Vec<Layer>,
    /// Present in all blocks except the last.
    downsampler: Option<Downsample2D>,
}

impl DownBlock {
    /// Block `i`, counted from the input.
    pub fn new(weights: &Weights, config: &UNetSpatioTemporalConfig, i: usize) -> Self {
        let channels = &config.block_out_channels;
        let (inputs, outputs) = (channels[i.saturating_sub(1)], channels[i]);
        let (resnets, attentions) = (weights.pp("resnets"), weights.pp("attentions"));
        let (block, transformer) = (config.down_block_types[i], config.transformer(i));
        let layer = |j: usize| {
            let inputs = if j == 0 { inputs } else { outputs };
            Layer {
                resnet: SpatioTemporalResBlock::new(&resnets.pp(j), inputs, outputs, config.resnet(block.eps())),
                attention: (block.is_attended())
                    .then(|| TransformerSpatioTemporalModel::new(&attentions.pp(j), transformer)),
            }
        };
        Self {
            layers: (0..config.layers_per_block.at(i)).map(layer).collect(),
            downsampler: (i + 1 < channels.len()).then(|| Downsample2D::new(&weights.pp("downsamplers.0"), outputs, 1)),
        }
    }

    /// x (B · F, h, w, in) → (B · F, h/2, w/2, out), rounded up; the last block keeps the size. Every map is pushed on
    /// `skips`.
    pub async fn forward(&self, mut x: Tensor, embedded: &Embedded<'_>, skips: &mut Vec<Tensor>) -> Result<Tensor> {
        for layer in &self.layers {
            x = layer.forward(&x, embedded).await?;
            skips.push(x.clone());
        }
        if let Some(downsampler) = &self.downsampler {
            pause().await;
            x = downsampler.forward(&x, RowAdapters::NONE)?;
            skips.push(x.clone());
        }
        Ok(x)
    }
}

/// diffusers' `UNetMidBlockSpatioTemporal` with one layer.
#[derive(Debug)]
pub(super) struct MidBlock {
    first: Layer,
    second: SpatioTemporalResBlock,
}

impl MidBlock {
    pub fn new(weights: &Weights, config: &UNetSpatioTemporalConfig) -> Self {
        let last = config.block_out_channels.len() - 1;
        let channels = config.block_out_channels[last];
        let resnet = |j: usize| {
            SpatioTemporalResBlock::new(&weights.pp("resnets").pp(j), channels, channels, config.resnet(1e-5))
        };
        let attention = TransformerSpatioTemporalModel::new(&weights.pp("attentions.0"), config.transformer(last));
        Self { first: Layer { resnet: resnet(0), attention: Some(attention) }, second: resnet(1) }
    }

    /// (B · F, h, w, C) → (B · F, h, w, C)
    pub async fn forward(&self, x: &Tensor, embedded: &Embedded<'_>) -> Result<Tensor> {
        let x = self.first.forward(x, embedded).await?;
        self.second.forward(&x, embedded.frames, Some(&embedded.times)).await
    }
}

/// diffusers' `UpBlockSpatioTemporal` and, with attentions, `CrossAttnUpBlockSpatioTemporal`.
#[derive(Debug)]
pub(super) struct UpBlock {
    layers: Vec<Layer>,
    /// Present in all blocks except the last.
    upsampler: Option<Upsample2D>,
}

impl UpBlock {
    /// Block `i`, counted from the middle. It mirrors the down block `level`.
    pub fn new(weights: &Weights, config: &UNetSpatioTemporalConfig, i: usize) -> Self {
        let channels = &config.block_out_channels;
        let last = channels.len() - 1;
        let level = last - i;
        let outputs = channels[level];
        let (previous, skipped_below) = (channels[(level + 1).min(last)], channels[level.saturating_sub(1)]);
        let layers = config.layers_per_block.at(level) + 1;
        let (resnets, attentions) = (weights.pp("resnets"), weights.pp("attentions"));
        let (block, transformer) = (config.up_block_types[i], config.transformer(level));
        let layer = |j: usize| {
            let below = if j == 0 { previous } else { outputs };
            let skipped = if j + 1 == layers { skipped_below } else { outputs };
            Layer {
                resnet: SpatioTemporalResBlock::new(&resnets.pp(j), below + skipped, outputs, config.resnet(1e-6)),
                attention: (block.is_attended())
                    .then(|| TransformerSpatioTemporalModel::new(&attentions.pp(j), transformer)),
            }
        };
        Self {
            layers: (0..layers).map(layer).collect(),
            upsampler: (i < last).then(|| Upsample2D::new(&weights.pp("upsamplers.0"), outputs)),
        }
    }

    /// x (B · F, h, w, in) → (B · F, H, W, out), where H × W is the size of the next skip. Each layer takes one map
    /// from the end of `skips`.
    pub async fn forward(&self, mut x: Tensor, embedded: &Embedded<'_>, skips: &mut Vec<Tensor>) -> Result<Tensor> {
        for layer in &self.layers {
            let Some(skip) = skips.pop() else { candle_core::bail!("the down blocks left too few maps") };
            x = layer.forward(&beside(&x, &skip)?, embedded).await?;
        }
        match (&self.upsampler, skips.last()) {
            (Some(upsampler), Some(next)) => {
                pause().await;
                upsampler.forward(&x, next.dim(1)?, next.dim(2)?, RowAdapters::NONE)
            }
            _ => Ok(x),
        }
    }
}
