//! The transformer of FLUX.1 (diffusers' `FluxTransformer2DModel`): a rectified flow transformer (Esser et al. 2024,
//! arXiv:2403.03206) with blocks for two streams, and then blocks for one stream of text and picture.

mod attention;
mod configuration;
mod double_block;
mod positions;
mod single_block;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

pub use configuration::FluxTransformer2DConfig;
use double_block::DoubleBlock;
use positions::Rotary;
use single_block::SingleBlock;

use super::{
    adapters::RowAdapters,
    layers::{Linear, ModulatedNorm, modulations},
    pause::pause,
    time_embedding::{Sinusoids, TimestepEmbedding},
};
use crate::{
    kernels::{Kernels, maps::after},
    weights::Weights,
};

/// Predicts the velocity of noisy latents from a time, a text and, in FLUX.1 dev, a guidance scale.
#[derive(Debug)]
pub struct FluxTransformer2DModel {
    timestep_embedder: TimestepEmbedding,
    guidance_embedder: Option<TimestepEmbedding>,
    text_embedder: TimestepEmbedding,
    context_embedder: Linear,
    x_embedder: Linear,
    transformer_blocks: Vec<DoubleBlock>,
    single_transformer_blocks: Vec<SingleBlock>,
    norm_out: ModulatedNorm,
    norm_out_linear: Linear,
    proj_out: Linear,
    axes_dims_rope: Vec<usize>,
    kernels: Kernels,
}

/// The conditions of the B rows of a batch.
#[derive(Clone, Copy, Debug)]
pub struct FluxConditions<'a> {
    /// Times from 0 (picture) to 1000 (noise), (B).
    pub t: &'a [f32],
    /// Guidance scales, (B); only for networks with `guidance_embeds`.
    pub guidance: Option<&'a [f32]>,
    /// Hidden states of the text, (B, L, T).
    pub text: &'a Tensor,
    /// Vectors of the whole prompts, (B, P).
    pub pooled: &'a Tensor,
    pub adapters: &'a RowAdapters,
}

/// Number of sines and cosines of a time or a guidance scale.
const TIME_WIDTH: usize = 256;

const SINUSOIDS: Sinusoids = Sinusoids { width: TIME_WIDTH, flip_sin_to_cos: true, freq_shift: 0.0 };

impl FluxTransformer2DModel {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &FluxTransformer2DConfig, weights: &Weights) -> Self {
        let width = config.width();
        let embed = weights.pp("time_text_embed");
        let embedder = |name: &str, inputs| TimestepEmbedding::new(&embed.pp(name), inputs, None, width);
        let (double, single) = (weights.pp("transformer_blocks"), weights.pp("single_transformer_blocks"));
        Self {
            timestep_embedder: embedder("timestep_embedder", TIME_WIDTH),
            guidance_embedder: config.guidance_embeds.then(|| embedder("guidance_embedder", TIME_WIDTH)),
            text_embedder: embedder("text_embedder", config.pooled_projection_dim),
            context_embedder: Linear::new(&weights.pp("context_embedder"), config.joint_attention_dim, width),
            x_embedder: Linear::new(&weights.pp("x_embedder"), config.in_channels, width),
            transformer_blocks: (0..config.num_layers)
                .into_par_iter()
                .map(|i| DoubleBlock::new(&double.pp(i), config))
                .collect(),
            single_transformer_blocks: (0..config.num_single_layers)
                .into_par_iter()
                .map(|i| SingleBlock::new(&single.pp(i), config))
                .collect(),
            norm_out: ModulatedNorm::new(weights, 1e-6),
            norm_out_linear: Linear::new(&weights.pp("norm_out.linear"), width, 2 * width),
            proj_out: Linear::new(&weights.pp("proj_out"), width, config.outputs()),
            axes_dims_rope: config.axes_dims_rope.clone(),
            kernels: weights.kernels(),
        }
    }

    /// x (B, rows · columns, C), the patches of a grid row by row → (B, rows · columns, C_out)
    pub async fn forward(&self, x: &Tensor, grid: [usize; 2], conditions: FluxConditions<'_>) -> Result<Tensor> {
        let FluxConditions { text, adapters, .. } = conditions;
        let (b, n, _) = x.dims3()?;
        let (texts, tokens, _) = text.dims3()?;
        if conditions.t.len() != b || texts != b || n != grid[0] * grid[1] {
            candle_core::bail!("{:?} latents, {} times, {texts} texts", x.shape(), conditions.t.len());
        }
        let embedding = self.kernels.silu(&self.embedding(conditions)?)?;
        let mut x = self.x_embedder.adapted(x, adapters)?;
        let mut text = self.context_embedder.adapted(text, adapters)?;
        let rotary = Rotary::new(tokens, grid, &self.axes_dims_rope, x.device())?;
        for block in &self.transformer_blocks {
            (x, text) = block.forward(x, text, &embedding, &rotary, adapters).await?;
        }
        let mut joint = after(&text, &x)?;
        for block in &self.single_transformer_blocks {
            joint = block.forward(joint, &embedding, &rotary, adapters).await?;
        }
        pause().await;
        let x = joint.narrow(1, tokens, n)?.contiguous()?;
        let [scale, shift] = modulations(&self.norm_out_linear.adapted(&embedding, adapters)?)?;
        self.proj_out.adapted(&self.norm_out.forward(&x, &shift, &scale)?, adapters)
    }

    /// The sum of the embeddings of time, guidance scale and prompt, (B, D).
    fn embedding(&self, conditions: FluxConditions<'_>) -> Result<Tensor> {
        let FluxConditions { t, guidance, pooled, adapters, .. } = conditions;
        let embedded = |embedder: &TimestepEmbedding, values: &[f32]| {
            embedder.forward(&SINUSOIDS.forward(values, values.len(), pooled.device())?, None, adapters)
        };
        // diffusers' pipelines divide the time by 1000, and the network multiplies it by 1000 again.
        let t: Vec<f32> = t.iter().map(|t| t / 1000.0 * 1000.0).collect();
        let mut embedding = embedded(&self.timestep_embedder, &t)?;
        if let Some(embedder) = &self.guidance_embedder {
            let Some(guidance) = guidance.filter(|guidance| guidance.len() == t.len()) else {
                candle_core::bail!("a row has no guidance scale")
            };
            let guidance: Vec<f32> = guidance.iter().map(|scale| scale * 1000.0).collect();
            embedding = (embedding + embedded(embedder, &guidance)?)?;
        }
        embedding + self.text_embedder.forward(pooled, None, adapters)?
    }
}
