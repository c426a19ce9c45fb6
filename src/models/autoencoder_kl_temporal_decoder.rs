//! The autoencoder of Stable Video Diffusion (diffusers' `AutoencoderKLTemporalDecoder`; Blattmann et al. 2023,
//! arXiv:2311.15127): the encoder of pictures, and a decoder that sees several frames of a clip.

mod configuration;
mod decoder;
mod work;

use std::ops::Range;

use candle_core::{DType, Result, Tensor};

pub use configuration::AutoencoderKlTemporalDecoderConfig;

use super::{
    autoencoder_kl::{Encoder, Stage, stages},
    layers::{Linear, channels_first, channels_last},
};
use crate::weights::Weights;
use decoder::TemporalDecoder;

/// The autoencoder, without the scaling that the pipeline applies between it and the U-Net.
#[derive(Debug)]
pub struct AutoencoderKlTemporalDecoder {
    encoder: Encoder,
    quant_conv: Linear,
    decoder: TemporalDecoder,
    latent_channels: usize,
}

impl AutoencoderKlTemporalDecoder {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &AutoencoderKlTemporalDecoderConfig, weights: &Weights) -> Self {
        let moments = 2 * config.pictures.latent_channels;
        Self {
            encoder: Encoder::new(&weights.pp("encoder"), &config.pictures, moments),
            quant_conv: Linear::pointwise(&weights.pp("quant_conv"), moments, moments),
            decoder: TemporalDecoder::new(&weights.pp("decoder"), config),
            latent_channels: config.pictures.latent_channels,
        }
    }

    /// pixels (B, 3, H, W) in [-1, 1] → the most likely latents (B, C, h, w)
    pub async fn encode(&self, pixels: &Tensor) -> Result<Tensor> {
        let x = self.quant_conv.forward(&self.encoder.forward(&channels_last(pixels)?).await?)?;
        channels_first(&x.to_dtype(DType::F32)?)?.narrow(1, 0, self.latent_channels)?.contiguous()
    }

    /// Runs some layers of the decoder on clips of `frames` frames. The first layer takes latents (B · F, C, h, w), the
    /// last returns pixels (B · F, H, W, 3), roughly in [-1, 1]; between two layers, the activation is (B · F, height,
    /// width, channels).
    pub async fn decode_layers(&self, layers: Range<usize>, mut x: Tensor, frames: usize) -> Result<Tensor> {
        if layers.start == 0 {
            x = channels_last(&x)?;
        }
        self.decoder.forward(layers, x, frames).await
    }
}

impl AutoencoderKlTemporalDecoderConfig {
    /// Groups the layers of the decoder into stages of at most `quantum` multiplications for one clip of `frames`
    /// frames of (h, w) latent pixels; a layer with more multiplications is a stage of its own.
    pub fn decode_stages(&self, frames: usize, size: [usize; 2], quantum: f64) -> Vec<Stage> {
        stages(&self.decode_layers(frames, size), quantum)
    }
}
