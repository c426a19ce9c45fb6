//! The encoder of a tiny autoencoder.

use candle_core::{Result, Tensor};

use super::{AutoencoderTinyBlock, AutoencoderTinyConfig};
use crate::{
    kernels::conv2d::Conv2d,
    models::{
        layers::{conv2d, halving_conv2d_without_bias},
        pause::pause,
    },
    weights::Weights,
};

/// diffusers' `EncoderTiny`. The index of a layer in `layers` is its number in the names of the checkpoint's tensors.
#[derive(Debug)]
pub(super) struct EncoderTiny {
    layers: Vec<Layer>,
}

#[derive(Debug)]
enum Layer {
    Conv(Conv2d),
    Block(Box<AutoencoderTinyBlock>),
}

impl EncoderTiny {
    pub fn new(weights: &Weights, config: &AutoencoderTinyConfig) -> Self {
        let width = config.encoder_width();
        let mut layers = Vec::new();
        for (i, blocks) in config.num_encoder_blocks.iter().enumerate() {
            let weights_of_conv = weights.pp(layers.len());
            layers.push(Layer::Conv(match i {
                0 => conv2d(&weights_of_conv, config.in_channels, width, 3, 1, 1),
                _ => halving_conv2d_without_bias(&weights_of_conv, width),
            }));
            for _ in 0..*blocks {
                layers.push(Layer::Block(Box::new(AutoencoderTinyBlock::new(&weights.pp(layers.len()), width))));
            }
        }
        layers.push(Layer::Conv(conv2d(&weights.pp(layers.len()), width, config.latent_channels, 3, 1, 1)));
        Self { layers }
    }

    /// pixels (B, H, W, 3) in [0, 1] → latents (B, h, w, C)
    pub async fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let mut x = pixels.clone();
        for layer in &self.layers {
            pause().await;
            x = match layer {
                Layer::Conv(conv) => conv.forward(&x)?,
                Layer::Block(block) => block.forward(&x).await?,
            };
        }
        Ok(x)
    }
}
