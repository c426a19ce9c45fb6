//! A small, fast autoencoder (diffusers' `AutoencoderTiny`, the architecture of the TAESD models).

mod configuration;
mod encoder;

use candle_core::{Result, Tensor};

pub use configuration::AutoencoderTinyConfig;

use encoder::EncoderTiny;

use super::{
    layers::{channels_first, channels_last, conv2d, inner_conv2d, inner_conv2d_without_bias},
    pause::pause,
};
use crate::{
    kernels::{Kernels, conv2d::Conv2d, finish::Epilogue},
    weights::Weights,
};

/// The decoder and perhaps the encoder, without the scaling that the pipeline applies between them and the denoiser.
#[derive(Debug)]
pub struct AutoencoderTiny {
    encoder: Option<EncoderTiny>,
    decoder: DecoderTiny,
}

/// diffusers' `DecoderTiny`. The index of a layer in `layers` is its number in the names of the checkpoint's tensors.
#[derive(Debug)]
struct DecoderTiny {
    layers: Vec<Layer>,
    kernels: Kernels,
}

#[derive(Debug)]
enum Layer {
    Conv(Conv2d),
    Relu,
    Block(Box<AutoencoderTinyBlock>),
    /// Nearest-neighbor upsampling by this factor.
    Upsample(usize),
}

/// diffusers' `AutoencoderTinyBlock` with equal numbers of inputs and outputs, so that its `skip` is the identity.
#[derive(Debug)]
struct AutoencoderTinyBlock {
    conv: [Conv2d; 3],
    kernels: Kernels,
}

impl AutoencoderTiny {
    /// Builds the decoder alone; the tensors of the encoder are not read. The caller then calls [`Weights::finish`].
    pub fn new(config: &AutoencoderTinyConfig, weights: &Weights) -> Self {
        weights.leave("encoder.");
        Self { encoder: None, decoder: DecoderTiny::new(&weights.pp("decoder.layers"), config) }
    }

    /// Builds the encoder and the decoder. The caller then calls [`Weights::finish`].
    pub fn with_encoder(config: &AutoencoderTinyConfig, weights: &Weights) -> Self {
        let encoder = Some(EncoderTiny::new(&weights.pp("encoder.layers"), config));
        Self { encoder, decoder: DecoderTiny::new(&weights.pp("decoder.layers"), config) }
    }

    /// pixels (B, 3, H, W) in [-1, 1] → latents (B, C, h, w)
    ///
    /// # Errors
    /// The network was built without its encoder.
    pub async fn encode(&self, pixels: &Tensor) -> Result<Tensor> {
        let Some(encoder) = &self.encoder else { candle_core::bail!("an autoencoder without its encoder") };
        let latents = encoder.forward(&channels_last(pixels)?.affine(0.5, 0.5)?).await?; // its own range is [0, 1]
        channels_first(&latents)
    }

    /// latents (B, C, h, w) → pixels (B, 3, H, W), roughly in [-1, 1]
    pub async fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let pixels = self.decoder.forward(&channels_last(latents)?).await?;
        channels_first(&pixels.affine(2.0, -1.0)?) // the network's own range is [0, 1]
    }
}

impl DecoderTiny {
    fn new(weights: &Weights, config: &AutoencoderTinyConfig) -> Self {
        let width = config.width();
        let last = config.num_decoder_blocks.len() - 1;
        let mut layers = vec![Layer::Conv(conv2d(&weights.pp(0), config.latent_channels, width, 3, 1, 1)), Layer::Relu];
        for (i, blocks) in config.num_decoder_blocks.iter().enumerate() {
            for _ in 0..*blocks {
                layers.push(Layer::Block(Box::new(AutoencoderTinyBlock::new(&weights.pp(layers.len()), width))));
            }
            if i < last {
                layers.push(Layer::Upsample(config.upsampling_scaling_factor));
                layers.push(Layer::Conv(inner_conv2d_without_bias(&weights.pp(layers.len()), width)));
            } else {
                layers.push(Layer::Conv(conv2d(&weights.pp(layers.len()), width, config.out_channels, 3, 1, 1)));
            }
        }
        Self { layers, kernels: weights.kernels() }
    }

    /// (B, h, w, C) → (B, H, W, 3)
    async fn forward(&self, latents: &Tensor) -> Result<Tensor> {
        let mut x = self.kernels.soft_clamp(latents, 3.0)?;
        for layer in &self.layers {
            pause().await;
            x = match layer {
                Layer::Conv(conv) => conv.forward(&x)?,
                Layer::Relu => self.kernels.relu(x)?,
                Layer::Block(block) => block.forward(&x).await?,
                Layer::Upsample(factor) => self.kernels.nearest(&x, factor * x.dim(1)?, factor * x.dim(2)?)?,
            };
        }
        Ok(x)
    }
}

impl AutoencoderTinyBlock {
    fn new(weights: &Weights, width: usize) -> Self {
        let conv = weights.pp("conv");
        Self { conv: [0, 2, 4].map(|place| inner_conv2d(&conv.pp(place), width, width)), kernels: weights.kernels() }
    }

    /// (B, h, w, C) → (B, h, w, C)
    async fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = self.kernels.relu(self.conv[0].forward(x)?)?;
        pause().await;
        let hidden = self.kernels.relu(self.conv[1].forward(&hidden)?)?;
        pause().await;
        self.kernels.relu(self.conv[2].forward_with(&hidden, Epilogue::residual(x))?)
    }
}
