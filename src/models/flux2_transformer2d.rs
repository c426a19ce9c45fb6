//! The transformer of FLUX.2 (diffusers' `Flux2Transformer2DModel`), without an embedding of guidance: the tokens of
//! the picture, of reference pictures and of the prompt attend to each other.

mod block;
mod configuration;

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use block::{DoubleBlock, SingleBlock, shared};
pub use configuration::Flux2Transformer2DConfig;

use super::{
    adapters::RowAdapters,
    layers::{Linear, ModulatedNorm, channels_first, channels_last, modulations},
    pause::pause,
    time_embedding::Sinusoids,
};
use crate::{
    kernels::{Kernels, maps::after},
    weights::{Weights, lora::Lora},
};

/// Cosines and sines of rotary angles, (1, N, d/2) or (B, N, d/2) each.
type Angles = (Tensor, Tensor);

/// The four coordinates of a token's position: the number of its picture, its row, its column, and its index in the
/// text.
pub type Position = [u32; 4];

/// Predicts the velocity, which points from the picture to the noise.
#[derive(Debug)]
pub struct Flux2Transformer2DModel {
    time: [Linear; 2],
    double_stream_modulation_img: Linear,
    double_stream_modulation_txt: Linear,
    single_stream_modulation: Linear,
    x_embedder: Linear,
    context_embedder: Linear,
    transformer_blocks: Vec<DoubleBlock>,
    single_transformer_blocks: Vec<SingleBlock>,
    norm_out_linear: Linear,
    norm_out: ModulatedNorm,
    proj_out: Linear,
    kernels: Kernels,
    config: Flux2Transformer2DConfig,
}

/// The tokens of reference pictures, for each row of a batch.
#[derive(Clone, Debug)]
pub struct References {
    /// (B, R, C)
    pub tokens: Tensor,
    /// B lists of R positions.
    pub positions: Vec<Vec<Position>>,
}

impl Flux2Transformer2DModel {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &Flux2Transformer2DConfig, weights: &Weights) -> Self {
        let (d, channels) = (config.width(), config.in_channels);
        let linear = |name: &str, inputs, outputs| Linear::without_bias(&weights.pp(name), inputs, outputs);
        let time = "time_guidance_embed.timestep_embedder";
        let (double, single) = (weights.pp("transformer_blocks"), weights.pp("single_transformer_blocks"));
        Self {
            time: [
                linear(&format!("{time}.linear_1"), config.timestep_guidance_channels, d),
                linear(&format!("{time}.linear_2"), d, d),
            ],
            double_stream_modulation_img: linear("double_stream_modulation_img.linear", d, 6 * d),
            double_stream_modulation_txt: linear("double_stream_modulation_txt.linear", d, 6 * d),
            single_stream_modulation: linear("single_stream_modulation.linear", d, 3 * d),
            x_embedder: linear("x_embedder", channels, d),
            context_embedder: linear("context_embedder", config.joint_attention_dim, d),
            transformer_blocks: (0..config.num_layers)
                .into_par_iter()
                .map(|i| DoubleBlock::new(&double.pp(i), config))
                .collect(),
            single_transformer_blocks: (0..config.num_single_layers)
                .into_par_iter()
                .map(|i| SingleBlock::new(&single.pp(i), config))
                .collect(),
            norm_out_linear: linear("norm_out.linear", d, 2 * d),
            norm_out: ModulatedNorm::new(weights, config.eps),
            proj_out: linear("proj_out", d, channels),
            kernels: weights.kernels(),
            config: config.clone(),
        }
    }

    /// Divides the changes of modules that several layers share. The name of a layer is the name of the module followed
    /// by the number of the layer in the module.
    pub fn divide(config: &Flux2Transformer2DConfig, lora: Lora) -> Lora {
        lora.divided(|site| shared(config, site))
    }

    /// States of the text encoder (1, L, F) → (1, L, D). They depend neither on the time nor on the picture, so they
    /// are computed once per prompt.
    pub fn text(&self, states: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        self.context_embedder.adapted(states, adapters)?.to_dtype(DType::F32)
    }

    /// Latents (B, C, h, w), times (B) in training timesteps, texts (B, L, D) of [`text`](Self::text) → velocity,
    /// (B, C, h, w).
    pub async fn forward(
        &self,
        latents: &Tensor,
        t: &[f32],
        texts: &Tensor,
        references: Option<&References>,
        adapters: &RowAdapters,
    ) -> Result<Tensor> {
        let (b, c, h, w) = latents.dims4()?;
        let (rows, length, _) = texts.dims3()?;
        let fits = references.is_none_or(|of| of.positions.len() == b && of.tokens.dims().first() == Some(&b));
        if t.len() != b || rows != b || c != self.config.in_channels || !fits {
            candle_core::bail!("{:?} latents, {} times, {:?} texts", latents.shape(), t.len(), texts.shape());
        }
        pause().await;
        let device = latents.device();
        let time = self.time(t, device, adapters)?;
        let of_double = |linear: &Linear| -> Result<[[Tensor; 3]; 2]> {
            let parts: [Tensor; 6] = modulations(&linear.adapted(&time, adapters)?.to_dtype(DType::F32)?)?;
            let [a, b, c, d, e, f] = parts;
            Ok([[a, b, c], [d, e, f]])
        };
        let of_picture = of_double(&self.double_stream_modulation_img)?;
        let of_text = of_double(&self.double_stream_modulation_txt)?;
        let of_single = modulations(&self.single_stream_modulation.adapted(&time, adapters)?.to_dtype(DType::F32)?)?;
        let angles = self.angles([h, w], length, references, device)?;

        let noisy = channels_last(latents)?.reshape((b, h * w, c))?;
        let tokens = match references {
            Some(references) => after(&noisy, &references.tokens)?,
            None => noisy,
        };
        let mut streams = (self.x_embedder.adapted(&tokens, adapters)?.to_dtype(DType::F32)?, texts.clone());
        for block in &self.transformer_blocks {
            pause().await;
            streams = block.forward(streams, &angles, [&of_picture, &of_text], adapters).await?;
        }
        let (picture, text) = streams;
        let mut x = after(&text, &picture)?;
        for block in &self.single_transformer_blocks {
            pause().await;
            x = block.forward(&x, &angles, &of_single, adapters).await?;
        }
        pause().await;
        let x = x.narrow(1, length, h * w)?.contiguous()?;
        let [scale, shift] = modulations(&self.norm_out_linear.adapted(&time, adapters)?.to_dtype(DType::F32)?)?;
        let x = self.proj_out.adapted(&self.norm_out.forward(&x, &shift, &scale)?, adapters)?.to_dtype(DType::F32)?;
        channels_first(&x.reshape((b, h, w, c))?)
    }

    /// SiLU of the embedding of the times (B): (B, D).
    fn time(&self, t: &[f32], device: &Device, adapters: &RowAdapters) -> Result<Tensor> {
        // diffusers divides the timesteps by 1000 and multiplies them again.
        let t: Vec<f32> = t.iter().map(|t| t / 1000.0 * 1000.0).collect();
        let width = self.config.timestep_guidance_channels;
        let sinusoids = Sinusoids { width, flip_sin_to_cos: true, freq_shift: 0.0 };
        let [first, second] = &self.time;
        let middle = first.adapted(&sinusoids.forward(&t, t.len(), device)?, adapters)?;
        self.kernels.silu(&second.adapted(&self.kernels.silu(&middle)?, adapters)?.to_dtype(DType::F32)?)
    }

    /// The rotary angles of the text, of the picture and of reference pictures.
    fn angles(
        &self,
        [h, w]: [usize; 2],
        length: usize,
        references: Option<&References>,
        device: &Device,
    ) -> Result<Angles> {
        let text = (0..length as u32).map(|l| [0, 0, 0, l]);
        let picture = (0..h as u32).flat_map(|row| (0..w as u32).map(move |column| [0, row, column, 0]));
        let own: Vec<Position> = text.chain(picture).collect();
        let rows: Vec<Vec<Position>> = match references {
            None => vec![own],
            Some(references) => references.positions.iter().map(|of_row| [&own[..], of_row].concat()).collect(),
        };
        let tokens = rows.first().map_or(0, Vec::len);
        let angles: Vec<f64> = rows.iter().flatten().flat_map(|position| self.rotations(*position)).collect();
        let half = self.config.attention_head_dim / 2;
        let table = |of: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|angle| of(*angle) as f32).collect();
            Tensor::from_vec(values, (rows.len(), tokens, half), device)
        };
        Ok((table(libm::cos)?, table(libm::sin)?))
    }

    /// The angles of the pairs of channels of a head.
    fn rotations(&self, position: Position) -> impl Iterator<Item = f64> {
        let theta = self.config.rope_theta;
        let axes = position.into_iter().zip(self.config.axes_dims_rope);
        axes.flat_map(move |(position, d)| {
            (0..d / 2).map(move |i| f64::from(position) / libm::pow(theta, 2.0 * i as f64 / d as f64))
        })
    }
}
