//! The autoencoder between pictures and latents (diffusers' `AutoencoderKL`; Rombach et al. 2022, arXiv:2112.10752).

mod configuration;
mod decoder;
mod encoder;
mod mid_block;
mod tiles;
mod work;

use std::ops::Range;

use candle_core::{DType, Result, Tensor};

pub use configuration::{AutoencoderKlConfig, DecoderBlockType, EncoderBlockType};
pub(super) use decoder::Decoder;
pub(super) use encoder::Encoder;
pub use tiles::{Tile, Tiles};
pub use work::Stage;
pub(super) use work::stages;

use super::layers::{Linear, channels_first, channels_last};
use crate::weights::Weights;

/// The autoencoder, without the scaling that the pipeline applies between it and the U-Net.
#[derive(Debug)]
pub struct AutoencoderKl {
    encoder: Encoder,
    quant_conv: Option<Linear>,
    post_quant_conv: Option<Linear>,
    decoder: Decoder,
    latent_channels: usize,
}

/// A diagonal Gaussian over latents. Mean and logarithm of the variance are (B, C, h, w) each.
#[derive(Debug)]
pub struct Moments {
    pub mean: Tensor,
    /// The logarithm of the variance, in [-30, 20].
    pub logvar: Tensor,
}

impl AutoencoderKl {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &AutoencoderKlConfig, weights: &Weights) -> Self {
        let c = config.latent_channels;
        let conv = |name: &str, wanted, channels| {
            let wanted: bool = wanted;
            wanted.then(|| Linear::pointwise(&weights.pp(name), channels, channels))
        };
        Self {
            encoder: Encoder::new(&weights.pp("encoder"), config, 2 * c),
            quant_conv: conv("quant_conv", config.use_quant_conv, 2 * c),
            post_quant_conv: conv("post_quant_conv", config.use_post_quant_conv, c),
            decoder: Decoder::new(&weights.pp("decoder"), config),
            latent_channels: c,
        }
    }

    /// pixels (B, 3, H, W) in [-1, 1] → moments of latents (B, C, h, w)
    pub async fn encode(&self, pixels: &Tensor) -> Result<Moments> {
        let mut x = self.encoder.forward(&channels_last(pixels)?).await?;
        if let Some(conv) = &self.quant_conv {
            x = conv.forward(&x)?;
        }
        let x = channels_first(&x.to_dtype(DType::F32)?)?;
        let half = |i| x.narrow(1, i * self.latent_channels, self.latent_channels)?.contiguous();
        Ok(Moments { mean: half(0)?, logvar: half(1)?.clamp(-30f32, 20f32)? })
    }

    /// latents (B, C, h, w) → pixels (B, 3, H, W), roughly in [-1, 1]
    pub async fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        channels_first(&self.decode_layers(0..self.decoder.depth(), latents.clone()).await?)
    }

    /// Runs some layers of the decoder. The first layer takes latents (B, C, h, w), the last returns pixels
    /// (B, H, W, 3); between two layers, the activation is (B, height, width, channels).
    pub async fn decode_layers(&self, layers: Range<usize>, mut x: Tensor) -> Result<Tensor> {
        if layers.start == 0 {
            x = channels_last(&x)?;
            if let Some(conv) = &self.post_quant_conv {
                x = conv.forward(&x)?;
            }
        }
        self.decoder.forward(layers, x).await
    }

    /// Groups the layers of the decoder into stages of at most `quantum` multiplications for one row of (h, w) latent
    /// pixels; a layer with more multiplications is a stage of its own. Each stage is one call.
    pub fn decode_stages(&self, h: usize, w: usize, quantum: f64) -> Vec<Stage> {
        work::stages(&self.decoder.demands(h, w), quantum)
    }
}

/// Maps the stored name and shape of an autoencoder's tensor to the current name and shape.
///
/// Files of 2022 name the layers of the attention `query`, `key`, `value` and `proj_attn`. Some files store these
/// layers as 1 × 1 convolutions, (C, C, 1, 1).
pub fn current_name(name: &str, shape: &[usize]) -> (String, Vec<usize>) {
    for (old, new) in [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")] {
        for (part, kept) in [("weight", 2), ("bias", 1)] {
            for layer in [old, new] {
                let Some(attention) = name.strip_suffix(&format!(".{layer}.{part}")) else {
                    continue;
                };
                let rest = shape.get(kept..).filter(|rest| rest.iter().all(|n| *n == 1));
                let shape = if rest.is_some() { &shape[..kept] } else { shape };
                return (format!("{attention}.{new}.{part}"), shape.to_vec());
            }
        }
    }
    (name.to_owned(), shape.to_vec())
}
