//! The diffusion transformer for class-conditional pictures (diffusers' `DiTTransformer2DModel`; Peebles and Xie 2023,
//! arXiv:2212.09748).

mod block;
mod configuration;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use block::Block;
pub use configuration::DiTTransformer2DConfig;

use super::{
    layers::{Linear, ModulatedNorm, channels_last, conv2d, modulations},
    patches::{Positions, unpatchified},
    pause::pause,
};
use crate::{
    kernels::{Kernels, conv2d::Conv2d},
    weights::Weights,
};

/// Predicts the noise and the interpolation of the variance from noisy latents, a time and a class.
#[derive(Debug)]
pub struct DiTTransformer2DModel {
    proj: Conv2d,
    /// Position embeddings of the N patches, (N, D).
    positions: Tensor,
    transformer_blocks: Vec<Block>,
    norm_out: ModulatedNorm,
    kernels: Kernels,
    proj_out_1: Linear,
    proj_out_2: Linear,
    config: DiTTransformer2DConfig,
}

impl DiTTransformer2DModel {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &DiTTransformer2DConfig, weights: &Weights) -> Result<Self> {
        let (width, patch) = (config.width(), config.patch_size);
        let grid = config.sample_size / patch;
        let blocks = weights.pp("transformer_blocks");
        let proj = conv2d(&weights.pp("pos_embed.proj"), config.in_channels, width, patch, patch, 0);
        let device = weights.zeros(&[1]).device().clone();
        let transformer_blocks: Result<Vec<Block>> =
            (0..config.num_layers).into_par_iter().map(|i| Block::new(&blocks.pp(i), config)).collect();
        Ok(Self {
            proj,
            positions: Positions { width, base: grid, scale: 1.0 }.of([grid; 2], &device)?,
            transformer_blocks: transformer_blocks?,
            norm_out: ModulatedNorm::new(weights, 1e-6),
            proj_out_1: Linear::new(&weights.pp("proj_out_1"), width, 2 * width),
            proj_out_2: Linear::new(&weights.pp("proj_out_2"), width, patch * patch * config.outputs()),
            kernels: weights.kernels(),
            config: config.clone(),
        })
    }

    /// sample (B, C, s, s) of the trained side s, t (B) in training timesteps, class labels (B) → (B, C_out, s, s). The
    /// label equal to the number of classes means no class.
    pub async fn forward(&self, sample: &Tensor, t: &[f32], labels: &[u32]) -> Result<Tensor> {
        let (b, _, h, w) = sample.dims4()?;
        let side = self.config.sample_size;
        if t.len() != b || labels.len() != b || [h, w] != [side, side] {
            candle_core::bail!("{:?} latents, {} times, {} labels", sample.shape(), t.len(), labels.len());
        }
        let (grid, width) = (side / self.config.patch_size, self.config.width());
        let x = self.proj.forward(&channels_last(sample)?)?.reshape((b, grid * grid, width))?;
        let mut x = x.broadcast_add(&self.positions)?;
        for block in &self.transformer_blocks {
            x = block.forward(x, t, labels).await?;
        }
        pause().await;
        let Some(first) = self.transformer_blocks.first() else { candle_core::bail!("a transformer without blocks") };
        let modulation = self.proj_out_1.forward(&self.kernels.silu(&first.embedding(t, labels)?)?)?;
        let [shift, scale] = modulations(&modulation)?;
        let x = self.proj_out_2.forward(&self.norm_out.forward(&x, &shift, &scale)?)?;
        unpatchified(&x, [grid; 2], self.config.patch_size)
    }
}
