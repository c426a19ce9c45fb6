//! The transformer of Z-Image (Cai et al. 2025, arXiv:2511.22699; diffusers' `ZImageTransformer2DModel`): the tokens of
//! the picture and of the caption are one sequence.

mod block;
mod configuration;

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use block::Block;
pub use configuration::ZImageTransformer2DConfig;

use super::{
    adapters::RowAdapters,
    layers::{Linear, RmsNorm, channels_first, channels_last},
    pause::pause,
    time_embedding::Sinusoids,
};
use crate::{
    kernels::{Kernels, maps::after},
    weights::Weights,
};

/// Picture and caption are each padded with learned tokens to a multiple of this number of tokens.
pub const MULTIPLE: usize = 32;
/// Number of sines and cosines of a time, and the largest width of its embedding.
const TIME_WIDTH: usize = 256;
/// Width between the two layers of the embedding of the time.
const TIME_MIDDLE: usize = 1024;

/// Cosines and sines of rotary angles, (1, N, d/2) each.
type Angles = (Tensor, Tensor);

/// Predicts the velocity of a flow from noise at time 0 to the picture at time 1.
#[derive(Debug)]
pub struct ZImageTransformer2DModel {
    x_embedder: Linear,
    final_linear: Linear,
    final_modulation: Linear,
    noise_refiner: Vec<Block>,
    context_refiner: Vec<Block>,
    t_embedder: [Linear; 2],
    cap_norm: RmsNorm,
    cap_linear: Linear,
    /// (1, D) each.
    x_pad_token: Tensor,
    cap_pad_token: Tensor,
    layers: Vec<Block>,
    kernels: Kernels,
    config: ZImageTransformer2DConfig,
}

impl ZImageTransformer2DModel {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &ZImageTransformer2DConfig, weights: &Weights) -> Self {
        let (d, time, patch) = (config.dim, config.time(), 4 * config.in_channels);
        let blocks = |name: &str, count: usize, is_modulated: bool| -> Vec<Block> {
            let blocks = weights.pp(name);
            (0..count).into_par_iter().map(|i| Block::new(&blocks.pp(i), config, is_modulated)).collect()
        };
        let last = weights.pp("all_final_layer.2-1");
        Self {
            x_embedder: Linear::new(&weights.pp("all_x_embedder.2-1"), patch, d),
            final_linear: Linear::new(&last.pp("linear"), d, patch),
            final_modulation: Linear::new(&last.pp("adaLN_modulation.1"), time, d),
            noise_refiner: blocks("noise_refiner", config.n_refiner_layers, true),
            context_refiner: blocks("context_refiner", config.n_refiner_layers, false),
            t_embedder: [
                Linear::new(&weights.pp("t_embedder.mlp.0"), TIME_WIDTH, TIME_MIDDLE),
                Linear::new(&weights.pp("t_embedder.mlp.2"), TIME_MIDDLE, time),
            ],
            cap_norm: RmsNorm::new(&weights.pp("cap_embedder.0"), config.cap_feat_dim, config.norm_eps),
            cap_linear: Linear::new(&weights.pp("cap_embedder.1"), config.cap_feat_dim, d),
            x_pad_token: weights.tensor("x_pad_token", &[1, d]),
            cap_pad_token: weights.tensor("cap_pad_token", &[1, d]),
            layers: blocks("layers", config.n_layers, true),
            kernels: weights.kernels(),
            config: config.clone(),
        }
    }

    /// States of the text encoder (1, L, F) → the caption (1, L', D), where L' is L rounded up to a multiple of
    /// [`MULTIPLE`]. The caption depends neither on the time nor on the picture, so it is computed once per prompt.
    pub async fn caption(&self, states: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        let x = self.cap_linear.adapted(&self.cap_norm.forward(states)?, adapters)?.to_dtype(DType::F32)?;
        let mut x = padded(&x, &self.cap_pad_token)?;
        let positions: Vec<[usize; 3]> = (0..x.dim(1)?).map(|i| [1 + i, 0, 0]).collect();
        let angles = self.angles(&positions, x.device())?;
        for block in &self.context_refiner {
            pause().await;
            x = block.forward(&x, &angles, None, adapters).await?;
        }
        Ok(x)
    }

    /// Latents (B, C, h, w) with even h and w, times (B) in [0, 1], captions (B, L, D) of [`caption`](Self::caption) →
    /// velocity towards the picture, (B, C, h, w).
    pub async fn forward(
        &self,
        latents: &Tensor,
        times: &[f32],
        captions: &Tensor,
        adapters: &RowAdapters,
    ) -> Result<Tensor> {
        let (b, c, h, w) = latents.dims4()?;
        let (rows, length, _) = captions.dims3()?;
        if times.len() != b || rows != b || h % 2 != 0 || w % 2 != 0 || c != self.config.in_channels {
            candle_core::bail!("{:?} latents, {} times, {:?} captions", latents.shape(), times.len(), captions.shape());
        }
        pause().await;
        let device = latents.device();
        let time = self.time(times, device, adapters)?;
        let x = self.x_embedder.adapted(&patches(latents)?, adapters)?.to_dtype(DType::F32)?;
        let tokens = x.dim(1)?;
        let mut x = padded(&x, &self.x_pad_token)?;
        let mut positions: Vec<[usize; 3]> = (0..tokens).map(|i| [length + 1, i / (w / 2), i % (w / 2)]).collect();
        positions.resize(x.dim(1)?, [0, 0, 0]);
        let angles = self.angles(&positions, device)?;
        for block in &self.noise_refiner {
            pause().await;
            x = block.forward(&x, &angles, Some(&time), adapters).await?;
        }
        positions.extend((0..length).map(|i| [1 + i, 0, 0]));
        let angles = self.angles(&positions, device)?;
        let mut x = after(&x, captions)?;
        for block in &self.layers {
            pause().await;
            x = block.forward(&x, &angles, Some(&time), adapters).await?;
        }
        let x = x.narrow(1, 0, tokens)?.contiguous()?;
        let scale = self.final_modulation.adapted(&self.kernels.silu(&time)?, adapters)?;
        let scale = scale.to_dtype(DType::F32)?.unsqueeze(1)?;
        let normed = self.kernels.modulated_norm(&x, &scale.zeros_like()?, &scale, 1e-6)?;
        pictures(&self.final_linear.adapted(&normed, adapters)?.to_dtype(DType::F32)?, [c, h, w])
    }

    /// The embedding of the times (B), (B, E).
    fn time(&self, times: &[f32], device: &Device, adapters: &RowAdapters) -> Result<Tensor> {
        let times: Vec<f32> = times.iter().map(|t| t * self.config.t_scale as f32).collect();
        let sinusoids = Sinusoids { width: TIME_WIDTH, flip_sin_to_cos: true, freq_shift: 0.0 };
        let [first, second] = &self.t_embedder;
        let middle = first.adapted(&sinusoids.forward(&times, times.len(), device)?, adapters)?;
        second.adapted(&self.kernels.silu(&middle)?, adapters)?.to_dtype(DType::F32)
    }

    /// The rotary angles of tokens at these positions.
    fn angles(&self, positions: &[[usize; 3]], device: &Device) -> Result<Angles> {
        let frequency = |axis: usize, i: usize| {
            let d = self.config.axes_dims[axis] as f64;
            1.0 / libm::pow(self.config.rope_theta, 2.0 * i as f64 / d)
        };
        let frequencies: Vec<(usize, f64)> = (0..3)
            .flat_map(|axis| (0..self.config.axes_dims[axis] / 2).map(move |i| (axis, i)))
            .map(|(axis, i)| (axis, frequency(axis, i)))
            .collect();
        let angles: Vec<f32> = positions
            .iter()
            .flat_map(|position| frequencies.iter().map(move |(axis, f)| (position[*axis] as f64 * f) as f32))
            .collect();
        let table = |of: fn(f32) -> f32| {
            let values = angles.iter().map(|angle| of(*angle)).collect();
            Tensor::from_vec(values, (1, positions.len(), frequencies.len()), device)
        };
        Ok((table(libm::cosf)?, table(libm::sinf)?))
    }
}

/// x (B, N, D) followed by copies of `token` (1, D) up to a multiple of [`MULTIPLE`] tokens.
fn padded(x: &Tensor, token: &Tensor) -> Result<Tensor> {
    let (b, n, d) = x.dims3()?;
    let missing = n.next_multiple_of(MULTIPLE) - n;
    if missing == 0 {
        return Ok(x.clone());
    }
    let token = token.to_dtype(x.dtype())?.contiguous()?.reshape((1, 1, d))?;
    Tensor::cat(&[x, &token.broadcast_as((b, missing, d))?.contiguous()?], 1)
}

/// (B, C, h, w) → patches of 2 × 2 latent pixels, (B, h/2 · w/2, 2 · 2 · C)
fn patches(latents: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = latents.dims4()?;
    let x = channels_last(latents)?.reshape(&[b, h / 2, 2, w / 2, 2, c][..])?.permute([0, 1, 3, 2, 4, 5])?;
    x.contiguous()?.reshape((b, h / 2 * (w / 2), 4 * c))
}

/// The inverse of [`patches`].
fn pictures(patches: &Tensor, [c, h, w]: [usize; 3]) -> Result<Tensor> {
    let b = patches.dim(0)?;
    let x = patches.reshape(&[b, h / 2, w / 2, 2, 2, c][..])?.permute([0, 1, 3, 2, 4, 5])?;
    channels_first(&x.contiguous()?.reshape((b, h, w, c))?)
}
