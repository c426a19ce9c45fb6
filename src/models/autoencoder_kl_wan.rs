//! The autoencoder of films of Wan 2.1 and 2.2 (diffusers' `AutoencoderKLWan`; Team Wan 2025, arXiv:2503.20314).
//!
//! The first frame of a film becomes one latent frame, and every four later frames become one latent frame. The film
//! passes through the network in pieces. Each convolution over frames keeps only the last two frames that it has seen
//! for the next piece, so the memory does not grow with the length of the film.

mod attention;
mod causal_conv;
mod configuration;
mod downsampler;
mod film_state;
mod fold;
mod layer;
mod layer_plan;
mod residual_block;
mod rms_norm;
mod shortcut;
mod upsampler;
mod work;

use std::ops::Range;

use candle_core::Result;
use rayon::prelude::*;

pub use configuration::AutoencoderKlWanConfig;
pub use film_state::FilmState;
pub use work::STAGE_WORK;

use super::{
    autoencoder_kl::{Stage, stages},
    pause::pause,
};
use crate::{
    kernels::conv2d::{Conv2d, Geometry},
    weights::Weights,
};
use layer::Layer;

/// The autoencoder, with the normalization of latents that diffusers' pipelines apply outside of it. Both networks take
/// and return maps of frames, with channels last.
#[derive(Debug)]
pub struct AutoencoderKlWan {
    encoder: Vec<Layer>,
    decoder: Vec<Layer>,
}

impl AutoencoderKlWan {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &AutoencoderKlWanConfig, weights: &Weights) -> Self {
        let layer = |plan| Layer::new(&plan, config, weights);
        let [encoder, decoder] =
            [config.encoder(), config.decoder()].map(|plan| plan.into_par_iter().map(layer).collect());
        Self { encoder, decoder }
    }

    /// Runs some layers of the encoder on the next piece of a film. The first layer takes pixels (F, H, W, 3) in [-1,
    /// 1]; the last one returns the most likely latents (f, h, w, C), normalized per channel. The first piece of a film
    /// has one frame, and f is 1. Each later piece has a multiple of four frames, and f is a quarter of their number.
    ///
    /// # Errors
    /// There are no such layers, or the state does not fit them.
    pub async fn encode_layers(&self, layers: Range<usize>, state: FilmState) -> Result<FilmState> {
        run(&self.encoder, layers, state).await
    }

    /// Runs some layers of the decoder on the next piece of a film. The first layer takes normalized latents (f, h, w,
    /// C); the last one returns pixels (F, H, W, 3) in [-1, 1]. The first piece of a film has one latent frame, which
    /// becomes one frame. Each later latent frame becomes four frames.
    ///
    /// # Errors
    /// As for [`AutoencoderKlWan::encode_layers`].
    pub async fn decode_layers(&self, layers: Range<usize>, state: FilmState) -> Result<FilmState> {
        run(&self.decoder, layers, state).await
    }
}

/// A convolution of one frame and one place.
fn pointwise(weights: &Weights, inputs: usize, outputs: usize) -> Conv2d {
    let (weight, bias) = (weights.conv3d("weight", outputs, inputs, [1, 1, 1]), weights.tensor("bias", &[outputs]));
    let conv = Conv2d::new(&weight, &bias, Geometry::square(1, 1, 0), weights.kernels().exact());
    conv.expect("the weights have the requested shapes")
}

async fn run(all: &[Layer], layers: Range<usize>, mut state: FilmState) -> Result<FilmState> {
    let Some(chosen) = all.get(layers.clone()) else {
        candle_core::bail!("layers {layers:?} of a network of {}", all.len())
    };
    for (layer, i) in chosen.iter().zip(layers) {
        pause().await;
        layer.forward(&mut state, i).await?;
    }
    Ok(state)
}

impl AutoencoderKlWanConfig {
    /// The stages of decoding the next piece of a film: `frames` latent frames of (h, w) pixels, of the first piece or
    /// a later one. A stage has at most [`STAGE_WORK`] multiplications, or one layer.
    pub fn decode_stages(&self, frames: usize, size: [usize; 2], is_first: bool) -> Vec<Stage> {
        stages(&self.decode_layers(frames, size, is_first), STAGE_WORK)
    }

    /// As [`AutoencoderKlWanConfig::decode_stages`], for encoding `frames` frames of (H, W) pixels.
    pub fn encode_stages(&self, frames: usize, size: [usize; 2], is_first: bool) -> Vec<Stage> {
        stages(&self.encode_layers(frames, size, is_first), STAGE_WORK)
    }
}
