//! U-Nets that take pictures or latents, a time and perhaps a class, but no text (diffusers' `UNet2DModel`; Ho et al.
//! 2020, arXiv:2006.11239; NCSN++: Song et al. 2021, arXiv:2011.13456).

mod configuration;
mod demand;
mod down_block;
mod embeddings;
mod layout;
mod mid_block;
mod up_block;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

pub use configuration::{
    ClassEmbedType, DownBlockType, MidBlockType, ResampleType, TimeEmbeddingType, UNet2DConfig, UpBlockType,
};
use down_block::DownBlock;
use embeddings::Embeddings;
use mid_block::MidBlock;
use up_block::UpBlock;

use super::{
    adapters::RowAdapters,
    layers::{Conv, GroupNorm, channels_first, channels_last},
    pause::pause,
};
use crate::{kernels::finish::Epilogue, weights::Weights};

/// Predicts the quantity of the scheduler's `prediction_type`, or a score, from noisy samples and their times.
#[derive(Debug)]
pub struct UNet2DModel {
    embeddings: Embeddings,
    conv_in: Conv,
    down_blocks: Vec<DownBlock>,
    mid_block: Option<MidBlock>,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv,
    config: UNet2DConfig,
}

impl UNet2DModel {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &UNet2DConfig, weights: &Weights) -> Self {
        let channels = &config.block_out_channels;
        let (down, up) = (weights.pp("down_blocks"), weights.pp("up_blocks"));
        let conv = |name, inputs, outputs| Conv::new(&weights.pp(name), inputs, outputs, 3, 1, 1);
        // The blocks hold most of the weights, so they are read and packed in parallel.
        let (down_blocks, (mid_block, up_blocks)) = rayon::join(
            || (0..channels.len()).into_par_iter().map(|i| DownBlock::new(&down.pp(i), config, i)).collect(),
            || {
                rayon::join(
                    || config.middle().map(|block| MidBlock::new(&weights.pp("mid_block"), &block)),
                    || (0..channels.len()).into_par_iter().map(|i| UpBlock::new(&up.pp(i), config, i)).collect(),
                )
            },
        );
        let norm = weights.pp("conv_norm_out");
        Self {
            embeddings: Embeddings::new(weights, config),
            conv_in: conv("conv_in", config.in_channels, channels[0]),
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::new(&norm, config.groups(channels[0]), channels[0], config.norm_eps),
            conv_out: conv("conv_out", channels[0], config.out_channels),
            config: config.clone(),
        }
    }

    /// sample (B, C, h, w), times (B), and classes (B) if the network has classes → (B, C_out, h, w). A time is a
    /// timestep, or a noise level if the time embedding is `fourier`.
    ///
    /// # Errors
    /// The numbers of rows differ, a class or a timestep is unknown, or h or w is not a multiple of
    /// [`UNet2DConfig::unit`].
    pub async fn forward(&self, sample: &Tensor, t: &[f32], classes: Option<&[u32]>) -> Result<Tensor> {
        let (b, _, h, w) = sample.dims4()?;
        let unit = self.config.unit();
        if t.len() != b || !h.is_multiple_of(unit) || !w.is_multiple_of(unit) {
            candle_core::bail!("samples {:?}, {} times: sides must be multiples of {unit}", sample.shape(), t.len());
        }
        let time = self.embeddings.forward(t, classes, sample.device())?;
        let mut image = channels_last(sample)?;
        if self.config.center_input_sample {
            image = image.affine(2.0, -1.0)?;
        }
        let mut x = self.conv_in.adapted(&image, RowAdapters::NONE)?;
        let mut skips = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(x, &time, &mut skips, &mut image).await?;
        }
        if let Some(block) = &self.mid_block {
            x = block.forward(x, &time).await?;
        }
        let mut image = None;
        for block in &self.up_blocks {
            x = block.forward(x, &time, &mut skips, &mut image).await?;
        }
        pause().await;
        let epilogue = Epilogue { residual: image.as_ref(), ..Epilogue::default() };
        let x = self.conv_out.adapted_with(&self.conv_norm_out.forward_silu(&x)?, epilogue, RowAdapters::NONE)?;
        let x = match self.config.time_embedding_type {
            TimeEmbeddingType::Fourier => x.broadcast_div(&Tensor::from_slice(t, (b, 1, 1, 1), x.device())?)?,
            TimeEmbeddingType::Positional | TimeEmbeddingType::Learned => x,
        };
        channels_first(&x)
    }
}
