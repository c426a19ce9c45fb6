//! The vocoder of AudioLDM, which turns mel spectrograms into waveforms (transformers' `SpeechT5HifiGan`; Kong et al.
//! 2020, arXiv:2010.05646).

mod configuration;

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

pub use configuration::HifiGanConfig;

use super::{
    conv1d::{Conv1d, ConvTranspose1d},
    pause::pause,
};
use crate::{kernels::Kernels, weights::Weights};

/// Turns the frames of a spectrogram into samples.
#[derive(Debug)]
pub struct HifiGan {
    /// `mean` and `scale` of the frequencies, (M) each, if the network normalizes spectrograms.
    normalization: Option<[Tensor; 2]>,
    conv_pre: Conv1d,
    levels: Vec<Level>,
    conv_post: Conv1d,
    slope: f32,
    kernels: Kernels,
}

/// The slope before the last convolution: the default of PyTorch's `leaky_relu`, not the slope of the configuration.
const LAST_SLOPE: f32 = 0.01;

impl HifiGan {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &HifiGanConfig, weights: &Weights) -> Self {
        let (mel, first) = (config.model_in_dim, config.upsample_initial_channel);
        // The file has both tensors in any case.
        let normalization = ["mean", "scale"].map(|name| weights.tensor(name, &[mel]));
        let levels = 0..config.upsample_rates.len();
        Self {
            normalization: config.normalize_before.then_some(normalization),
            conv_pre: Conv1d::new(&weights.pp("conv_pre"), mel, first, 7, 1),
            levels: levels.clone().into_par_iter().map(|i| Level::new(weights, config, i)).collect(),
            conv_post: Conv1d::new(&weights.pp("conv_post"), config.channels(levels.len()), 1, 7, 1),
            slope: config.leaky_relu_slope as f32,
            kernels: weights.kernels(),
        }
    }

    /// Spectrograms (B, T, M) → waveforms of [`HifiGanConfig::samples`] numbers in [-1, 1], one for each row.
    pub async fn forward(&self, spectrograms: &Tensor) -> Result<Vec<Vec<f32>>> {
        let mut x = match &self.normalization {
            Some([mean, scale]) => spectrograms.broadcast_sub(mean)?.broadcast_div(scale)?,
            None => spectrograms.clone(),
        };
        pause().await;
        x = self.conv_pre.forward(&x)?;
        for level in &self.levels {
            x = level.forward(&self.kernels.leaky_relu(&x, self.slope)?, self.slope, self.kernels).await?;
        }
        pause().await;
        let last = self.conv_post.forward(&self.kernels.leaky_relu(&x, LAST_SLOPE)?)?; // (B, N, 1)
        let mut rows: Vec<Vec<f32>> = last.squeeze(2)?.to_dtype(DType::F32)?.to_vec2()?;
        rows.par_iter_mut().flatten().for_each(|sample| *sample = libm::tanhf(*sample));
        Ok(rows)
    }
}

/// A layer that makes the sequence longer, and the residual blocks after it, whose mean is the output.
#[derive(Debug)]
struct Level {
    upsampler: ConvTranspose1d,
    resblocks: Vec<ResidualBlock>,
}

impl Level {
    fn new(weights: &Weights, config: &HifiGanConfig, i: usize) -> Self {
        let (inputs, outputs) = (config.channels(i), config.channels(i + 1));
        let (kernel, rate) = (config.upsample_kernel_sizes[i], config.upsample_rates[i]);
        let blocks = config.resblock_kernel_sizes.len();
        let shapes = config.resblock_kernel_sizes.iter().zip(&config.resblock_dilation_sizes).enumerate();
        let block = |(j, (kernel, dilations)): (usize, (&usize, &Vec<usize>))| {
            ResidualBlock::new(&weights.pp("resblocks").pp(i * blocks + j), outputs, *kernel, dilations)
        };
        Self {
            upsampler: ConvTranspose1d::new(&weights.pp("upsampler").pp(i), inputs, outputs, kernel, rate),
            resblocks: shapes.map(block).collect(),
        }
    }

    /// (B, T, in) → (B, T', out)
    async fn forward(&self, x: &Tensor, slope: f32, kernels: Kernels) -> Result<Tensor> {
        pause().await;
        let x = self.upsampler.forward(x)?;
        let mut sum: Option<Tensor> = None;
        for block in &self.resblocks {
            let y = block.forward(&x, slope, kernels).await?;
            sum = Some(match sum {
                Some(sum) => (sum + y)?,
                None => y,
            });
        }
        match sum {
            Some(sum) => sum / self.resblocks.len() as f64,
            None => candle_core::bail!("a vocoder without residual blocks"),
        }
    }
}

/// transformers' `HifiGanResidualBlock`: pairs of a dilated convolution and one without dilation.
#[derive(Debug)]
struct ResidualBlock(Vec<[Conv1d; 2]>);

impl ResidualBlock {
    fn new(weights: &Weights, channels: usize, kernel: usize, dilations: &[usize]) -> Self {
        let conv = |name: &str, i, dilation| Conv1d::new(&weights.pp(name).pp(i), channels, channels, kernel, dilation);
        let pair = |(i, dilation): (usize, &usize)| [conv("convs1", i, *dilation), conv("convs2", i, 1)];
        Self(dilations.iter().enumerate().map(pair).collect())
    }

    /// (B, T, C) → (B, T, C)
    async fn forward(&self, x: &Tensor, slope: f32, kernels: Kernels) -> Result<Tensor> {
        let mut x = x.clone();
        for [conv1, conv2] in &self.0 {
            pause().await;
            let hidden = conv1.forward(&kernels.leaky_relu(&x, slope)?)?;
            pause().await;
            x = conv2.forward_with(&kernels.leaky_relu(&hidden, slope)?, Some(&x))?;
        }
        Ok(x)
    }
}
