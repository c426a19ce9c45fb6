//! The diffusion transformer of Stable Diffusion 3 and 3.5 (diffusers' `SD3Transformer2DModel`; Esser et al. 2024,
//! arXiv:2403.03206).

mod attention;
mod block;
mod configuration;

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

use block::JointBlock;
pub use configuration::Sd3Transformer2DConfig;

use super::{
    adapters::RowAdapters,
    layers::{Conv, Linear, ModulatedNorm, channels_last, modulations},
    pause::pause,
    time_embedding::{Sinusoids, TimestepEmbedding},
};
use crate::{kernels::Kernels, weights::Weights};

/// Predicts the velocity from noisy latents, a time and a prompt. The tokens of the picture and of the prompt have
/// their own weights and attend to each other.
#[derive(Debug)]
pub struct Sd3Transformer2DModel {
    pos_embed: PatchEmbed,
    timestep_embedder: TimestepEmbedding,
    text_embedder: TimestepEmbedding,
    context_embedder: Linear,
    transformer_blocks: Vec<JointBlock>,
    norm_out: Linear,
    norm: ModulatedNorm,
    proj_out: Linear,
    kernels: Kernels,
    config: Sd3Transformer2DConfig,
}

/// The conditions of a batch of B rows.
#[derive(Clone, Copy, Debug)]
pub struct Sd3Conditions<'a> {
    /// Training timesteps, (B).
    pub t: &'a [f32],
    /// Hidden states of the prompts, (B, L, [`Sd3Transformer2DConfig::joint_attention_dim`]).
    pub text: &'a Tensor,
    /// Vectors of the whole prompts, (B, [`Sd3Transformer2DConfig::pooled_projection_dim`]).
    pub pooled: &'a Tensor,
    pub adapters: &'a RowAdapters,
    /// The blocks that are left out in all rows, by index.
    pub skipped: &'a [u32],
}

/// Number of sines and cosines of a timestep.
const TIME_WIDTH: usize = 256;

/// The epsilon of all norms.
const EPS: f64 = 1e-6;

impl Sd3Transformer2DModel {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &Sd3Transformer2DConfig, weights: &Weights) -> Self {
        let width = config.width();
        let (embed, blocks) = (weights.pp("time_text_embed"), weights.pp("transformer_blocks"));
        let block = |i| JointBlock::new(&blocks.pp(i), config, i);
        Self {
            pos_embed: PatchEmbed::new(&weights.pp("pos_embed"), config),
            timestep_embedder: TimestepEmbedding::new(&embed.pp("timestep_embedder"), TIME_WIDTH, None, width),
            text_embedder: TimestepEmbedding::new(
                &embed.pp("text_embedder"),
                config.pooled_projection_dim,
                None,
                width,
            ),
            context_embedder: Linear::new(&weights.pp("context_embedder"), config.joint_attention_dim, width),
            transformer_blocks: (0..config.num_layers).into_par_iter().map(block).collect(),
            norm_out: Linear::new(&weights.pp("norm_out.linear"), width, 2 * width),
            norm: ModulatedNorm::new(weights, EPS),
            proj_out: Linear::new(&weights.pp("proj_out"), width, config.patch_size.pow(2) * config.outputs()),
            kernels: weights.kernels(),
            config: config.clone(),
        }
    }

    /// sample (B, C, h, w) → velocity (B, C_out, h, w). Sides are multiples of the patch size.
    pub async fn forward(&self, sample: &Tensor, conditions: &Sd3Conditions<'_>) -> Result<Tensor> {
        let Sd3Conditions { t, text, pooled, adapters, skipped } = *conditions;
        let (b, _, h, w) = sample.dims4()?;
        if t.len() != b || text.dim(0)? != b || pooled.dim(0)? != b {
            candle_core::bail!("{:?} latents, {} times, {:?} texts", sample.shape(), t.len(), text.shape());
        }
        let embedded = self.kernels.silu(&self.embedding(t, pooled, adapters)?)?;
        let mut x = self.pos_embed.forward(sample, adapters)?;
        let mut context = self.context_embedder.adapted(text, adapters)?;
        for (_, block) in (0..).zip(&self.transformer_blocks).filter(|(i, _)| !skipped.contains(i)) {
            (x, context) = block.forward(x, context, &embedded, adapters).await?;
        }
        pause().await;
        let [scale, shift] = modulations(&self.norm_out.adapted(&embedded, adapters)?)?;
        let x = self.proj_out.adapted(&self.norm.forward(&x, &shift, &scale)?, adapters)?;
        self.unpatchified(&x, [h, w])
    }

    /// The sum of the embeddings of time and prompt, (B, D).
    fn embedding(&self, t: &[f32], pooled: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        let sinusoids = Sinusoids { width: TIME_WIDTH, flip_sin_to_cos: true, freq_shift: 0.0 };
        let times = sinusoids.forward(t, t.len(), pooled.device())?;
        self.timestep_embedder.forward(&times, None, adapters)? + self.text_embedder.forward(pooled, None, adapters)?
    }

    /// (B, N, p·p·C) → (B, C, h, w), in float32
    fn unpatchified(&self, x: &Tensor, [h, w]: [usize; 2]) -> Result<Tensor> {
        let (patch, channels, b) = (self.config.patch_size, self.config.outputs(), x.dim(0)?);
        let x = x.to_dtype(DType::F32)?.reshape(&[b, h / patch, w / patch, patch, patch, channels][..])?;
        x.permute([0, 5, 1, 3, 2, 4])?.contiguous()?.reshape((b, channels, h, w))
    }
}

/// diffusers' `PatchEmbed` with stored positions: one token for each patch, plus the embedding of its position.
#[derive(Debug)]
struct PatchEmbed {
    proj: Conv,
    /// Embeddings of the positions of the largest picture, (side, side, D).
    pos_embed: Tensor,
    patch: usize,
}

impl PatchEmbed {
    fn new(weights: &Weights, config: &Sd3Transformer2DConfig) -> Self {
        let (width, patch, side) = (config.width(), config.patch_size, config.pos_embed_max_size);
        let stored = weights.tensor("pos_embed", &[1, side * side, width]);
        Self {
            proj: Conv::new(&weights.pp("proj"), config.in_channels, width, patch, patch, 0),
            pos_embed: stored.reshape((side, side, width)).expect("the tensor has the requested shape"),
            patch,
        }
    }

    /// sample (B, C, h, w) → (B, N, D). Smaller pictures take the positions in the middle of the largest one.
    fn forward(&self, sample: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        let (b, _, h, w) = sample.dims4()?;
        let (side, _, width) = self.pos_embed.dims3()?;
        let grid = [h / self.patch, w / self.patch];
        let [top, left] = grid.map(|of_picture| side.checked_sub(of_picture).map(|rest| rest / 2));
        let (Some(top), Some(left)) = (top, left) else {
            candle_core::bail!("{h} × {w} latents: at most {} along one side", side * self.patch)
        };
        let positions = self.pos_embed.narrow(0, top, grid[0])?.narrow(1, left, grid[1])?.contiguous()?;
        let x = self.proj.adapted(&channels_last(sample)?, adapters)?.reshape((b, grid[0] * grid[1], width))?;
        x.broadcast_add(&positions.reshape((grid[0] * grid[1], width))?.to_dtype(x.dtype())?)
    }
}
