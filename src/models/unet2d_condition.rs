//! The U-Net of Stable Diffusion 1 and 2 (diffusers' `UNet2DConditionModel`; Rombach et al. 2022, arXiv:2112.10752).

mod configuration;
mod down_block;
mod mid_block;
mod up_block;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

pub use configuration::{DownBlockType, MidBlockType, UNet2DConditionConfig, UpBlockType};
use down_block::DownBlock;
use mid_block::MidBlock;
use up_block::UpBlock;

use super::{
    layers::{GroupNorm, channels_first, channels_last, conv2d},
    time_embedding::{Sinusoids, TimeEmbedding},
};
use crate::{
    kernels::{activation::silu, conv2d::Conv2d},
    weights::Weights,
};

/// Predicts from noisy latents, a time and a text what its scheduler's `prediction_type` says.
#[derive(Debug)]
pub struct UNet2DConditionModel {
    time_embedding: TimeEmbedding,
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    center_input_sample: bool,
}

impl UNet2DConditionModel {
    /// Builds the network on weights that are finished by the caller.
    pub fn new(config: &UNet2DConditionConfig, weights: &Weights) -> Self {
        let channels = &config.block_out_channels;
        let blocks = channels.len();
        let (down, up) = (weights.pp("down_blocks"), weights.pp("up_blocks"));
        let sinusoids =
            Sinusoids { width: channels[0], flip_sin_to_cos: config.flip_sin_to_cos, freq_shift: config.freq_shift };
        let conv = |name, inputs, outputs, kernel| conv2d(&weights.pp(name), inputs, outputs, kernel, 1, kernel / 2);
        // The blocks are most of a model; they are read and packed at the same time.
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
            time_embedding: TimeEmbedding::new(&weights.pp("time_embedding"), sinusoids, config.time_width()),
            conv_in: conv("conv_in", config.in_channels, channels[0], config.conv_in_kernel),
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::new(
                &weights.pp("conv_norm_out"),
                config.norm_num_groups,
                channels[0],
                config.norm_eps,
            ),
            conv_out: conv("conv_out", channels[0], config.out_channels, config.conv_out_kernel),
            center_input_sample: config.center_input_sample,
        }
    }

    /// sample (B, C, h, w), t (B) in steps of training and not rounded, text (B, L, D) → (B, C_out, h, w)
    pub fn forward(&self, sample: &Tensor, t: &[f32], text: &Tensor) -> Result<Tensor> {
        Ok(self.forward_keeping(sample, t, text)?.0)
    }

    /// The same, and the deep features (B, h, w, C) that [`UNet2DConditionModel::forward_shallow`] starts from: the map that
    /// enters the last layer on the way up.
    pub fn forward_keeping(&self, sample: &Tensor, t: &[f32], text: &Tensor) -> Result<(Tensor, Tensor)> {
        let (mut x, time) = self.enter(sample, t, text)?;
        let mut skips = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(x, &time, text, &mut skips)?;
        }
        x = self.mid_block.forward(&x, &time, text)?;
        let (last, blocks) = self.up_blocks()?;
        for block in blocks {
            x = block.forward(x, &time, text, &mut skips)?;
        }
        let features = last.forward_layers(0..last.layers() - 1, x, &time, text, &mut skips)?;
        let x = last.forward_layers(last.layers() - 1..last.layers(), features.clone(), &time, text, &mut skips)?;
        Ok((self.leave(&x)?, features))
    }

    /// The shallowest branch alone: into the network, over its outermost skip, through the last layer and out. The rest is
    /// taken for what it was in the call that left `features` (section 3 of Ma et al. 2023, arXiv:2312.00858;
    /// `cache_branch_id` 0 of its authors' program).
    pub fn forward_shallow(&self, sample: &Tensor, t: &[f32], text: &Tensor, features: &Tensor) -> Result<Tensor> {
        let (x, time) = self.enter(sample, t, text)?;
        let (last, _) = self.up_blocks()?;
        let x = last.forward_layers(last.layers() - 1..last.layers(), features.clone(), &time, text, &mut vec![x])?;
        self.leave(&x)
    }

    /// The map that goes down, (B, h, w, C), and what every block takes for the time, (B, E).
    fn enter(&self, sample: &Tensor, t: &[f32], text: &Tensor) -> Result<(Tensor, Tensor)> {
        if t.len() != sample.dim(0)? || t.len() != text.dim(0)? {
            candle_core::bail!("{:?} latents, {} times, {:?} texts", sample.shape(), t.len(), text.shape());
        }
        let time = silu(&self.time_embedding.forward(t, sample.device())?)?; // every block takes SiLU of it
        let mut x = channels_last(sample)?;
        if self.center_input_sample {
            x = x.affine(2.0, -1.0)?;
        }
        Ok((self.conv_in.forward(&x)?, time))
    }

    /// The last block, and those before it.
    fn up_blocks(&self) -> Result<(&UpBlock, &[UpBlock])> {
        match self.up_blocks.split_last() {
            Some(blocks) => Ok(blocks),
            None => candle_core::bail!("a U-Net without blocks"),
        }
    }

    /// (B, h, w, C) → (B, C_out, h, w)
    fn leave(&self, x: &Tensor) -> Result<Tensor> {
        channels_first(&self.conv_out.forward(&self.conv_norm_out.forward_silu(x)?)?)
    }
}
