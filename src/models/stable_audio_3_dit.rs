//! The diffusion transformer of Stable Audio 3 (diffusers' `StableAudio3DiTModel`; arXiv:2605.17991).

mod block;
mod configuration;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use block::Block;
pub use configuration::StableAudio3DiTConfig;

use super::{
    conv1d::Conv1d,
    fourier_features::{fourier_features, frequencies},
    layers::Linear,
    partial_rotary::PartialRotary,
    pause::pause,
};
use crate::{kernels::Kernels, weights::Weights};

/// Predicts the velocity from noisy latents, a time, a text and the length of the sound.
#[derive(Debug)]
pub struct StableAudio3DiTModel {
    time_frequencies: Vec<f32>,
    to_timestep_embed: Mlp,
    to_cond_embed: Mlp,
    to_global_embed: Mlp,
    global_cond_embedder: Mlp,
    prompt_padding_embedding: Tensor,
    preprocess_conv: Conv1d,
    postprocess_conv: Conv1d,
    proj_in: Linear,
    proj_out: Linear,
    memory_tokens: Option<Tensor>,
    rotary_frequencies: Vec<f32>,
    transformer_blocks: Vec<Block>,
    config: StableAudio3DiTConfig,
}

/// The conditions of a batch of B rows.
#[derive(Clone, Copy, Debug)]
pub struct StableAudio3Conditions<'a> {
    /// Noise levels in [0, 1], (B).
    pub t: &'a [f32],
    /// The states of the text's tokens and of the length of the sound, (B, L, cond_token_dim). Padding has the states
    /// of [`StableAudio3DiTModel::padding`].
    pub context: &'a Tensor,
    /// The embedding of the length of the sound, (B, global_cond_dim).
    pub global: &'a Tensor,
}

/// The least and the largest frequency of the features of the time.
const TIME_FREQUENCIES: (f64, f64) = (0.5, 10_000.0);

impl StableAudio3DiTModel {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &StableAudio3DiTConfig, weights: &Weights) -> Self {
        let (width, channels) = (config.embed_dim, config.io_channels);
        let ((least, largest), half) = (TIME_FREQUENCIES, config.timestep_features_dim / 2);
        let blocks = weights.pp("transformer_blocks");
        let frequencies_of_rotary = weights.tensor("rotary_pos_emb.inv_freq", &[config.head() / 4]);
        let memory = config.num_memory_tokens;
        let bare = |name, inputs, outputs| Linear::without_bias(&weights.pp(name), inputs, outputs);
        let conv = |name| Conv1d::pointwise_without_bias(&weights.pp(name), channels, channels);
        let mlp = |name, inputs, outputs, has_bias| Mlp::new(&weights.pp(name), [inputs, width, outputs], has_bias);
        Self {
            time_frequencies: frequencies(half, least, largest),
            to_timestep_embed: mlp("to_timestep_embed", config.timestep_features_dim, width, true),
            to_cond_embed: mlp("to_cond_embed", config.cond_token_dim, width, false),
            to_global_embed: mlp("to_global_embed", config.global_cond_dim, width, false),
            global_cond_embedder: mlp("global_cond_embedder", width, 6 * width, true),
            prompt_padding_embedding: weights.tensor("prompt_padding_embedding", &[config.cond_token_dim]),
            preprocess_conv: conv("preprocess_conv"),
            postprocess_conv: conv("postprocess_conv"),
            proj_in: bare("proj_in", channels, width),
            proj_out: bare("proj_out", width, channels),
            memory_tokens: (memory > 0).then(|| weights.tensor("memory_tokens", &[memory, width])),
            rotary_frequencies: frequencies_of_rotary.to_vec1().expect("the tensor has one dimension of floats"),
            transformer_blocks: (0..config.depth).into_par_iter().map(|i| Block::new(&blocks.pp(i), config)).collect(),
            config: config.clone(),
        }
    }

    /// The learned state of padding, (cond_token_dim), which takes the place of the text encoder's states. All tokens
    /// attend to padding.
    pub fn padding(&self) -> &Tensor {
        &self.prompt_padding_embedding
    }

    /// sample (B, C, T) → velocity (B, C, T)
    pub async fn forward(&self, sample: &Tensor, conditions: &StableAudio3Conditions<'_>) -> Result<Tensor> {
        let StableAudio3Conditions { t, context, global } = *conditions;
        let (b, _, length) = sample.dims3()?;
        if t.len() != b || context.dim(0)? != b || global.dim(0)? != b {
            candle_core::bail!("{:?} latents, {} times, {:?} texts", sample.shape(), t.len(), context.shape());
        }
        pause().await;
        let context = self.to_cond_embed.forward(context)?;
        let modulation = self.modulation(t, global)?;

        let x = sample.transpose(1, 2)?.contiguous()?; // (B, T, C)
        let x = self.preprocess_conv.forward_with(&x, Some(&x))?;
        let mut x = self.proj_in.forward(&x)?; // (B, T, D)
        if let Some(memory) = &self.memory_tokens {
            let (tokens, width) = memory.dims2()?;
            let memory = memory.unsqueeze(0)?.broadcast_as((b, tokens, width))?.contiguous()?;
            x = Tensor::cat(&[memory, x], 1)?;
        }
        let rotary = PartialRotary::new(&self.rotary_frequencies, x.dim(1)?, self.config.head(), x.device())?;
        for block in &self.transformer_blocks {
            x = block.forward(&x, &context, &modulation, &rotary).await?;
        }
        pause().await;
        let x = x.narrow(1, self.config.num_memory_tokens, length)?.contiguous()?;
        let x = self.proj_out.forward(&x)?;
        self.postprocess_conv.forward_with(&x, Some(&x))?.transpose(1, 2)?.contiguous()
    }

    /// Times (B) and embeddings (B, G) of lengths → what all blocks add to their own modulations, (B, 6·D)
    fn modulation(&self, t: &[f32], global: &Tensor) -> Result<Tensor> {
        let features = t.iter().flat_map(|t| fourier_features(*t, &self.time_frequencies)).collect();
        let features = Tensor::from_vec(features, (t.len(), self.config.timestep_features_dim), global.device())?;
        let time = self.to_timestep_embed.forward(&features)?;
        self.global_cond_embedder.forward(&(self.to_global_embed.forward(global)? + time)?)
    }
}

/// Two linear layers with SiLU between them.
#[derive(Debug)]
struct Mlp {
    layers: [Linear; 2],
    kernels: Kernels,
}

impl Mlp {
    fn new(weights: &Weights, [inputs, inner, outputs]: [usize; 3], has_bias: bool) -> Self {
        let layer = |i: usize, inputs, outputs| match has_bias {
            true => Linear::new(&weights.pp(i), inputs, outputs),
            false => Linear::without_bias(&weights.pp(i), inputs, outputs),
        };
        Self { layers: [layer(0, inputs, inner), layer(2, inner, outputs)], kernels: weights.kernels() }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [first, second] = &self.layers;
        second.forward(&self.kernels.silu(&first.forward(x)?)?)
    }
}
