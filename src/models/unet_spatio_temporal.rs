//! The U-Net of Stable Video Diffusion (diffusers' `UNetSpatioTemporalConditionModel`; Blattmann et al. 2023,
//! arXiv:2311.15127).

mod blocks;
mod configuration;
mod demand;

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

pub use configuration::{ClipDownBlockType, ClipUpBlockType, UNetSpatioTemporalConfig};

use super::{
    adapters::RowAdapters,
    frames::{clips, for_each_frame},
    layers::{Conv, GroupNorm, channels_first, channels_last},
    pause::pause,
    spatio_temporal_resnet::{GROUPS, Times},
    time_embedding::{Sinusoids, TimestepEmbedding},
};
use crate::{device::Precision, kernels::Kernels, weights::Weights};
use blocks::{DownBlock, MidBlock, UpBlock};

/// Predicts the quantity of the scheduler's `prediction_type` for the frames of clips that begin with a picture.
#[derive(Debug)]
pub struct UNetSpatioTemporalModel {
    time_proj: Sinusoids,
    time_embedding: TimestepEmbedding,
    add_time_proj: Sinusoids,
    add_embedding: TimestepEmbedding,
    conv_in: Conv,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv,
    kernels: Kernels,
}

/// The conditions of each clip of a call, in addition to the noisy latents of the clip and the latents of the picture.
#[derive(Clone, Copy, Debug)]
pub struct ClipConditions<'a> {
    /// Times (B), in the scheduler's measure.
    pub t: &'a [f32],
    /// For each clip: frames per second minus 1, `motion_bucket_id` and `noise_aug_strength`.
    pub time_ids: &'a [f32],
    /// Vectors of the pictures, (B, V).
    pub vectors: &'a Tensor,
    /// F: frames per clip.
    pub frames: usize,
}

/// The number of time ids of a clip.
pub const TIME_IDS: usize = 3;

/// The inputs of the blocks besides their maps.
struct Embedded<'a> {
    times: Times,
    vectors: &'a Tensor,
    frames: usize,
}

impl UNetSpatioTemporalModel {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &UNetSpatioTemporalConfig, weights: &Weights) -> Self {
        let channels = &config.block_out_channels;
        let (first, blocks) = (channels[0], channels.len());
        let (down, up) = (weights.pp("down_blocks"), weights.pp("up_blocks"));
        let conv = |weights: &Weights, inputs, outputs| Conv::new(weights, inputs, outputs, 3, 1, 1);
        let sinusoids = |width| Sinusoids { width, flip_sin_to_cos: true, freq_shift: 0.0 };
        let embedding = |name, width| TimestepEmbedding::new(&weights.pp(name), width, None, config.time_width());
        // The blocks hold most of the weights, so they are read and packed in parallel.
        let (down_blocks, (mid_block, up_blocks)) = rayon::join(
            || (0..blocks).into_par_iter().map(|i| DownBlock::new(&down.pp(i), config, i)).collect(),
            || {
                rayon::join(
                    || MidBlock::new(&weights.pp("mid_block"), config),
                    || (0..blocks).into_par_iter().map(|i| UpBlock::new(&up.pp(i), config, i)).collect(),
                )
            },
        );
        Self {
            time_proj: sinusoids(first),
            time_embedding: embedding("time_embedding", first),
            add_time_proj: sinusoids(config.addition_time_embed_dim),
            add_embedding: embedding("add_embedding", TIME_IDS * config.addition_time_embed_dim),
            conv_in: conv(&weights.pp("conv_in"), config.in_channels, first),
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::new(&weights.pp("conv_norm_out"), GROUPS, first, 1e-5),
            // The prediction is float32: samplers multiply its errors.
            conv_out: conv(&weights.pp("conv_out").in_precision(Precision::F32), first, config.out_channels),
            kernels: weights.kernels(),
        }
    }

    /// sample (B · F, C_in, h, w) → (B · F, C_out, h, w), in float32
    pub async fn forward(&self, sample: &Tensor, conditions: ClipConditions<'_>) -> Result<Tensor> {
        let embedded = self.embed(sample, conditions)?;
        pause().await;
        let mut x = self.conv_in.adapted(&channels_last(sample)?, RowAdapters::NONE)?;
        let mut skips = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(x, &embedded, &mut skips).await?;
        }
        x = self.mid_block.forward(&x, &embedded).await?;
        for block in &self.up_blocks {
            x = block.forward(x, &embedded, &mut skips).await?;
        }
        pause().await;
        let normed = self.conv_norm_out.forward_silu(&x.to_dtype(DType::F32)?)?;
        channels_first(&self.conv_out.adapted(&normed, RowAdapters::NONE)?)
    }

    fn embed<'a>(&self, sample: &Tensor, conditions: ClipConditions<'a>) -> Result<Embedded<'a>> {
        let ClipConditions { t, time_ids, vectors, frames } = conditions;
        let (b, device) = (clips(sample.dim(0)?, frames)?, sample.device());
        if t.len() != b || time_ids.len() != TIME_IDS * b || vectors.dim(0)? != b {
            candle_core::bail!("{b} clips, {} times, {} time ids, {:?}", t.len(), time_ids.len(), vectors.shape());
        }
        let embed = |sinusoids: Sinusoids, embedding: &TimestepEmbedding, values| {
            embedding.forward(&sinusoids.forward(values, b, device)?, None, RowAdapters::NONE)
        };
        let time = embed(self.time_proj, &self.time_embedding, t)?;
        let time = (time + embed(self.add_time_proj, &self.add_embedding, time_ids)?)?;
        let of_clips = self.kernels.silu(&time)?;
        let of_frames = for_each_frame(&of_clips, frames)?;
        Ok(Embedded { times: Times { of_clips, of_frames }, vectors, frames })
    }
}
