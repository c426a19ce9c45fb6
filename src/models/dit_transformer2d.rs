//! The diffusion transformer for class-conditional pictures (diffusers' `DiTTransformer2DModel`; Peebles and Xie 2023,
//! arXiv:2212.09748).

mod block;
mod configuration;

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use block::Block;
pub use configuration::DiTTransformer2DConfig;

use super::{
    layers::{Linear, ModulatedNorm, channels_last, conv2d, modulations},
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
        let blocks = weights.pp("transformer_blocks");
        let proj = conv2d(&weights.pp("pos_embed.proj"), config.in_channels, width, patch, patch, 0);
        let device = weights.zeros(&[1]).device().clone();
        let transformer_blocks: Result<Vec<Block>> =
            (0..config.num_layers).into_par_iter().map(|i| Block::new(&blocks.pp(i), config)).collect();
        Ok(Self {
            proj,
            positions: positions(config.sample_size / patch, width, &device)?,
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
        self.unpatchified(&x)
    }

    /// (B, N, p·p·C) → (B, C, s, s)
    fn unpatchified(&self, x: &Tensor) -> Result<Tensor> {
        let (patch, channels, side) = (self.config.patch_size, self.config.outputs(), self.config.sample_size);
        let (b, grid) = (x.dim(0)?, side / patch);
        let x = x.reshape(&[b, grid, grid, patch, patch, channels][..])?.permute([0, 5, 1, 3, 2, 4])?;
        x.contiguous()?.reshape((b, channels, side, side))
    }
}

/// The position embedding of each patch, (grid², D): sines and cosines of its column, then of its row (diffusers'
/// `get_2d_sincos_pos_embed`).
fn positions(grid: usize, width: usize, device: &Device) -> Result<Tensor> {
    let quarter = width / 4;
    let omega = |i: usize| 1.0 / libm::pow(10_000.0, i as f64 / quarter as f64);
    let axis = |position: usize| {
        let angles = move |i: usize| position as f64 * omega(i);
        let sines = (0..quarter).map(move |i| libm::sin(angles(i)) as f32);
        sines.chain((0..quarter).map(move |i| libm::cos(angles(i)) as f32))
    };
    let patches = (0..grid).flat_map(|row| (0..grid).map(move |column| (row, column)));
    let values: Vec<f32> = patches.flat_map(|(row, column)| axis(column).chain(axis(row))).collect();
    Tensor::from_vec(values, (grid * grid, width), device)
}
