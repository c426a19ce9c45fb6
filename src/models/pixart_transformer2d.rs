//! The diffusion transformer of PixArt (diffusers' `PixArtTransformer2DModel`; alpha: Chen et al. 2023,
//! arXiv:2310.00426; sigma: Chen et al. 2024, arXiv:2403.04692).

mod block;
mod configuration;
mod embeddings;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use block::Block;
pub use configuration::PixArtTransformer2DConfig;
use embeddings::AdaLayerNormSingle;

use super::{
    layers::{Linear, ModulatedNorm, channels_last, conv2d},
    patches::{Positions, unpatchified},
    pause::pause,
    text_projection::PixArtAlphaTextProjection,
};
use crate::{kernels::conv2d::Conv2d, weights::Weights};

/// Predicts the noise and the interpolation of the variance from noisy latents, a time and the states of a text.
#[derive(Debug)]
pub struct PixArtTransformer2DModel {
    proj: Conv2d,
    positions: Positions,
    adaln_single: AdaLayerNormSingle,
    caption_projection: PixArtAlphaTextProjection,
    transformer_blocks: Vec<Block>,
    norm_out: ModulatedNorm,
    /// Added to the embedding of the time, for the shift and the scale of `norm_out`: (2, D).
    scale_shift_table: Tensor,
    proj_out: Linear,
    config: PixArtTransformer2DConfig,
}

/// The texts of B rows.
#[derive(Clone, Copy, Debug)]
pub struct Captions<'a> {
    /// The states of the text encoder, (B, L, D_text).
    pub states: &'a Tensor,
    /// The number of tokens of each row, at least 1. The tokens after them are padding, which has no effect.
    pub tokens: &'a [usize],
}

impl PixArtTransformer2DModel {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &PixArtTransformer2DConfig, weights: &Weights) -> Self {
        let (width, patch, outputs) = (config.width(), config.patch_size, config.outputs());
        let blocks = weights.pp("transformer_blocks");
        let positions = Positions { width, base: config.sample_size / patch, scale: config.interpolation_scale() };
        Self {
            proj: conv2d(&weights.pp("pos_embed.proj"), config.in_channels, width, patch, patch, 0),
            positions,
            adaln_single: AdaLayerNormSingle::new(&weights.pp("adaln_single"), config),
            caption_projection: PixArtAlphaTextProjection::new(
                &weights.pp("caption_projection"),
                config.caption_channels,
                width,
            ),
            transformer_blocks: (0..config.num_layers)
                .into_par_iter()
                .map(|i| Block::new(&blocks.pp(i), config))
                .collect(),
            norm_out: ModulatedNorm::new(weights, 1e-6),
            scale_shift_table: weights.tensor("scale_shift_table", &[2, width]),
            proj_out: Linear::new(&weights.pp("proj_out"), width, patch * patch * outputs),
            config: config.clone(),
        }
    }

    /// sample (B, C, h, w), t (B) in training timesteps → (B, C_out, h, w). `size` is (H, W) of the pictures in pixels,
    /// for networks with micro-conditioning. h and w are multiples of the patch size.
    pub async fn forward(
        &self,
        sample: &Tensor,
        t: &[f32],
        captions: Captions<'_>,
        size: [usize; 2],
    ) -> Result<Tensor> {
        let (b, _, h, w) = sample.dims4()?;
        let patch = self.config.patch_size;
        if t.len() != b || captions.tokens.len() != b || h % patch != 0 || w % patch != 0 {
            candle_core::bail!("{:?} latents, {} times, {} texts", sample.shape(), t.len(), captions.tokens.len());
        }
        let grid = [h / patch, w / patch];
        let x = self.proj.forward(&channels_last(sample)?)?.reshape((b, grid[0] * grid[1], self.config.width()))?;
        let mut x = x.broadcast_add(&self.positions.of(grid, x.device())?)?;
        let (modulation, embedding) = self.adaln_single.forward(t, size, x.device())?;
        let text = self.caption_projection.forward(captions.states)?;
        for block in &self.transformer_blocks {
            x = block.forward(x, &modulation, Captions { states: &text, ..captions }).await?;
        }
        pause().await;
        // (B, 1, D) + (1, 2, D)
        let modulation = embedding.unsqueeze(1)?.broadcast_add(&self.scale_shift_table.unsqueeze(0)?)?;
        let [shift, scale] = [0, 1].map(|i| modulation.narrow(1, i, 1).and_then(|part| part.contiguous()));
        let x = self.proj_out.forward(&self.norm_out.forward(&x, &shift?, &scale?)?)?;
        unpatchified(&x, grid, patch)
    }
}
