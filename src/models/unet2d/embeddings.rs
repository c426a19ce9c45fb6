//! The embedding of times and classes.

use std::f32::consts::PI;

use candle_core::{Device, Result, Tensor};

use super::configuration::{ClassEmbedType, TimeEmbeddingType, UNet2DConfig};
use crate::{
    kernels::Kernels,
    models::{
        adapters::RowAdapters,
        time_embedding::{Sinusoids, TimestepEmbedding},
    },
    weights::Weights,
};

/// The layers that turn times and classes into one embedding.
#[derive(Debug)]
pub(super) struct Embeddings {
    time_proj: TimeProjection,
    time_embedding: TimestepEmbedding,
    class_embedding: Option<ClassEmbedding>,
    kernels: Kernels,
}

/// The features from which the time embedding is computed.
#[derive(Debug)]
enum TimeProjection {
    Positional(Sinusoids),
    /// diffusers' `GaussianFourierProjection`, with its frequencies (C).
    Fourier(Tensor),
    /// One vector for each timestep, (T, C).
    Learned(Tensor),
}

/// The embedding of classes.
#[derive(Debug)]
enum ClassEmbedding {
    /// One vector for each class, (K, E).
    Table(Tensor),
    Timestep(Box<TimestepEmbedding>),
}

impl Embeddings {
    pub fn new(weights: &Weights, config: &UNet2DConfig) -> Self {
        let (width, time_width) = (config.block_out_channels[0], config.time_width());
        let frequencies = || weights.tensor("time_proj.weight", &[width]);
        let time_proj = match config.time_embedding_type {
            TimeEmbeddingType::Positional => {
                let (flip_sin_to_cos, freq_shift) = (config.flip_sin_to_cos, config.freq_shift);
                TimeProjection::Positional(Sinusoids { width, flip_sin_to_cos, freq_shift })
            }
            TimeEmbeddingType::Fourier => TimeProjection::Fourier(frequencies()),
            TimeEmbeddingType::Learned => {
                let timesteps = config.num_train_timesteps.unwrap_or_default();
                TimeProjection::Learned(weights.tensor("time_proj.weight", &[timesteps, width]))
            }
        };
        let inputs = match time_proj {
            TimeProjection::Fourier(_) => 2 * width,
            TimeProjection::Positional(_) | TimeProjection::Learned(_) => width,
        };
        let embedding = |name| TimestepEmbedding::new(&weights.pp(name), inputs, None, time_width);
        let class_embedding = match (config.class_embed_type, config.num_class_embeds) {
            (Some(ClassEmbedType::Timestep), _) => {
                Some(ClassEmbedding::Timestep(Box::new(embedding("class_embedding"))))
            }
            (None, Some(classes)) => {
                Some(ClassEmbedding::Table(weights.tensor("class_embedding.weight", &[classes, time_width])))
            }
            (None, None) => None,
        };
        Self { time_proj, time_embedding: embedding("time_embedding"), class_embedding, kernels: weights.kernels() }
    }

    /// times (B), and classes (B) if the network has classes → SiLU of the embedding, (B, E), which every block takes
    pub fn forward(&self, t: &[f32], classes: Option<&[u32]>, device: &Device) -> Result<Tensor> {
        let times = self.time_proj.forward(t, device)?;
        let time = self.time_embedding.forward(&times, None, RowAdapters::NONE)?;
        let embedding = match (&self.class_embedding, classes) {
            (None, None) => time,
            (Some(embedding), Some(classes)) if classes.len() == t.len() => {
                (time + self.classes(embedding, classes, device)?)?
            }
            (wanted, given) => candle_core::bail!("classes are needed: {}, given: {given:?}", wanted.is_some()),
        };
        self.kernels.silu(&embedding)
    }

    fn classes(&self, embedding: &ClassEmbedding, classes: &[u32], device: &Device) -> Result<Tensor> {
        match embedding {
            ClassEmbedding::Table(table) => rows(table, classes, device),
            ClassEmbedding::Timestep(embedding) => {
                let numbers: Vec<f32> = classes.iter().map(|class| *class as f32).collect();
                embedding.forward(&self.time_proj.forward(&numbers, device)?, None, RowAdapters::NONE)
            }
        }
    }
}

impl TimeProjection {
    /// times (B) → features (B, width), twice as many for `Fourier`
    fn forward(&self, t: &[f32], device: &Device) -> Result<Tensor> {
        match self {
            Self::Positional(sinusoids) => sinusoids.forward(t, t.len(), device),
            Self::Fourier(frequencies) => {
                let frequencies = frequencies.to_vec1::<f32>()?;
                let features: Vec<f32> = t.iter().flat_map(|t| fourier(*t, &frequencies)).collect();
                Tensor::from_vec(features, (t.len(), 2 * frequencies.len()), device)
            }
            Self::Learned(table) => {
                let steps: Vec<u32> = t.iter().map(|t| *t as u32).collect();
                if steps.iter().zip(t).any(|(step, t)| *step as f32 != *t) {
                    candle_core::bail!("a learned time embedding takes whole timesteps from 0, not {t:?}");
                }
                rows(table, &steps, device)
            }
        }
    }
}

/// The rows of a table at these indices.
fn rows(table: &Tensor, indices: &[u32], device: &Device) -> Result<Tensor> {
    let known = table.dim(0)?;
    match indices.iter().find(|index| **index as usize >= known) {
        Some(index) => candle_core::bail!("a table of {known} rows has no row {index}"),
        None => table.index_select(&Tensor::new(indices, device)?, 0),
    }
}

/// The sines, then the cosines, of 2π·w·ln t for each frequency w, in float32 and in the order in which diffusers
/// multiplies. The arguments reach thousands of radians, so another order would change the result visibly.
fn fourier(t: f32, frequencies: &[f32]) -> Vec<f32> {
    // The logarithm is computed in float64 and rounded once.
    let logarithm = libm::log(f64::from(t)) as f32;
    let angles = || frequencies.iter().map(|frequency| logarithm * frequency * 2.0 * PI);
    angles().map(libm::sinf).chain(angles().map(libm::cosf)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Random;

    #[test]
    fn fourier_features_are_sines_then_cosines_of_the_logarithm() {
        assert_eq!(fourier(1.0, &[3.0, -16.0]), [0.0, 0.0, 1.0, 1.0]);
        let [sine, cosine] = fourier(std::f32::consts::E, &[0.125])[..] else { panic!("two features") };
        assert!((sine - 0.5f32.sqrt()).abs() < 1e-6 && (cosine - 0.5f32.sqrt()).abs() < 1e-6, "{sine} {cosine}");
    }

    #[test]
    fn a_row_that_the_table_lacks_is_an_error() {
        let table = Random::new(0).normal(&[2, 3], 0.0);
        let device = table.device().clone();
        let turned: Vec<Vec<f32>> = table.to_vec2::<f32>().unwrap().into_iter().rev().collect();
        assert_eq!(rows(&table, &[1, 0], &device).unwrap().to_vec2::<f32>().unwrap(), turned);
        assert!(rows(&table, &[2], &device).is_err());
        let learned = TimeProjection::Learned(table);
        assert!(learned.forward(&[0.5], &device).is_err() && learned.forward(&[-1.0], &device).is_err());
    }
}
