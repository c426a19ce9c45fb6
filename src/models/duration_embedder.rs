//! Turns the length of a sound into a vector (diffusers' `StableAudio3DurationEmbedder`).

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    configuration::{Fixed, WIDEST, between, divides, read, within},
    fourier_features::fourier_features,
    layers::Linear,
};
use crate::weights::{LoadError, Weights};

/// The keys of `duration_embedder/config.json`, with diffusers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct DurationEmbedderConfig {
    pub output_dim: usize,
    pub fourier_dim: usize,
    /// Shorter sounds count as sounds of this many seconds.
    pub min_val: f64,
    /// Longer sounds count as sounds of this many seconds.
    pub max_val: f64,
}

impl Default for DurationEmbedderConfig {
    fn default() -> Self {
        Self { output_dim: 768, fourier_dim: 256, min_val: 0.0, max_val: 384.0 }
    }
}

/// The frequencies are a tensor of the file.
const FIXED: &[Fixed] = &[("min_freq", &[]), ("max_freq", &[])];

impl DurationEmbedderConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> std::result::Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        within(path, "output_dim", config.output_dim, WIDEST)?;
        within(path, "fourier_dim", config.fourier_dim, WIDEST)?;
        divides(path, "fourier_dim", 2, config.fourier_dim)?;
        between(path, "min_val", config.min_val, 0.0, 1e6)?;
        between(path, "max_val", config.max_val, config.min_val + 1e-3, 1e7)?;
        Ok(config)
    }
}

/// Embeds numbers of seconds.
#[derive(Debug)]
pub struct DurationEmbedder {
    frequencies: Vec<f32>,
    linear: Linear,
    config: DurationEmbedderConfig,
}

impl DurationEmbedder {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &DurationEmbedderConfig, weights: &Weights) -> Self {
        let (features, half) = (config.fourier_dim, config.fourier_dim / 2);
        Self {
            frequencies: weights.tensor("freqs", &[half]).to_vec1().expect("the tensor has one dimension of floats"),
            linear: Linear::new(&weights.pp("linear"), features, config.output_dim),
            config: config.clone(),
        }
    }

    /// Seconds of B sounds → (B, E)
    pub fn forward(&self, seconds: &[f32], device: &candle_core::Device) -> Result<Tensor> {
        let (least, largest) = (self.config.min_val as f32, self.config.max_val as f32);
        let share = |seconds: &f32| (seconds.clamp(least, largest) - least) / (largest - least);
        let features = seconds.iter().flat_map(|seconds| fourier_features(share(seconds), &self.frequencies)).collect();
        self.linear.forward(&Tensor::from_vec(features, (seconds.len(), self.config.fourier_dim), device)?)
    }
}
