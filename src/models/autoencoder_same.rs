//! The decoder of Stable Audio 3's autoencoder SAME, the semantically aligned music encoder (diffusers'
//! `AutoencoderSAME`; arXiv:2605.17991).

mod band;
mod configuration;
mod layer;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

pub use configuration::AutoencoderSameConfig;
use configuration::Level;
use layer::Layer;

use super::{conv1d::Conv1d, layers::Linear, partial_rotary::PartialRotary, pause::pause};
use crate::weights::Weights;

/// Turns latents into samples.
#[derive(Debug)]
pub struct AutoencoderSame {
    /// The factor of latents, (1).
    running_std: Tensor,
    proj: Linear,
    blocks: Vec<ResamplingBlock>,
    config: AutoencoderSameConfig,
}

impl AutoencoderSame {
    /// Builds the decoder. The caller then calls [`Weights::finish`].
    pub fn new(config: &AutoencoderSameConfig, weights: &Weights) -> Self {
        let decoder = weights.pp("decoder");
        let blocks = decoder.pp("blocks");
        // Only the encoder uses these tensors.
        ["encoder.", "bottleneck.scale", "bottleneck.bias"].iter().for_each(|name| weights.leave(name));
        let block = |(i, level): (usize, Level)| ResamplingBlock::new(&blocks.pp(i), config, &level);
        Self {
            running_std: weights.tensor("bottleneck.running_std", &[1]),
            proj: Linear::new(&decoder.pp("proj"), config.latent_dim, config.widest()),
            blocks: config.decoder_levels().into_par_iter().enumerate().map(block).collect(),
            config: config.clone(),
        }
    }

    /// Whether the decoder leaves a tensor of this name in the file.
    pub fn leaves(name: &str) -> bool {
        name.starts_with("encoder.")
    }

    /// Latents (B, C, T) → samples (B, T · [`AutoencoderSameConfig::samples_per_latent`], channels)
    pub async fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        pause().await;
        let x = latents.transpose(1, 2)?.contiguous()?.broadcast_mul(&self.running_std)?;
        let mut x = self.proj.forward(&x)?;
        for block in &self.blocks {
            x = block.forward(&x).await?;
        }
        // A token has the samples of the first channel, then the samples of the second channel.
        let (b, tokens, _) = x.dims3()?;
        let (channels, patch) = (self.config.audio_channels, self.config.patch_size);
        let samples = x.reshape((b, tokens, channels, patch))?.transpose(2, 3)?.contiguous()?;
        samples.reshape((b, tokens * patch, channels))
    }
}

/// diffusers' `SAMETransformerResamplingBlock`, which makes a sequence `stride` times as long: each token becomes a
/// segment of the token itself and `stride` equal new tokens. After the layers, only the new tokens remain.
#[derive(Debug)]
struct ResamplingBlock {
    /// (1, 1, D)
    new_tokens: Tensor,
    transformers: Vec<Layer>,
    mapping: Option<Conv1d>,
    rotary_frequencies: Vec<f32>,
    /// Channels of a head.
    head: usize,
    stride: usize,
}

impl ResamplingBlock {
    fn new(weights: &Weights, config: &AutoencoderSameConfig, level: &Level) -> Self {
        let Level { inputs, outputs, stride, depth, .. } = *level;
        let (transformers, head) = (weights.pp("transformers"), config.head(inputs));
        let mapping = || Conv1d::new(&weights.pp("mapping"), inputs, outputs, 1, 1);
        Self {
            new_tokens: weights.tensor("new_tokens", &[1, 1, inputs]),
            transformers: (0..depth).map(|i| Layer::new(&transformers.pp(i), config, level, i)).collect(),
            mapping: (inputs != outputs).then(mapping),
            rotary_frequencies: PartialRotary::frequencies(head),
            head,
            stride,
        }
    }

    /// (B, T, D) → (B, T · stride, D')
    async fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let ((b, tokens, width), stride) = (x.dims3()?, self.stride);
        let new = self.new_tokens.unsqueeze(0)?.broadcast_as((b, tokens, stride, width))?.contiguous()?;
        let x = Tensor::cat(&[x.unsqueeze(2)?, new], 2)?;
        let mut x = x.reshape((b, tokens * (stride + 1), width))?;
        let rotary = PartialRotary::new(&self.rotary_frequencies, tokens * (stride + 1), self.head, x.device())?;
        for layer in &self.transformers {
            x = layer.forward(&x, &rotary).await?;
        }
        pause().await;
        let x = x.reshape((b, tokens, stride + 1, width))?.narrow(2, 1, stride)?.contiguous()?;
        let x = x.reshape((b, tokens * stride, width))?;
        self.mapping.as_ref().map_or(Ok(x.clone()), |mapping| mapping.forward(&x))
    }
}
