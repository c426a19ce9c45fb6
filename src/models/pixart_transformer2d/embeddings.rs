//! The embeddings of the time and of the size of a picture.

use candle_core::{Device, Result, Tensor};

use super::PixArtTransformer2DConfig;
use crate::{
    kernels::Kernels,
    models::{
        adapters::RowAdapters,
        layers::Linear,
        time_embedding::{Sinusoids, TimestepEmbedding},
    },
    weights::Weights,
};

/// The sines and cosines of a timestep or of a size.
pub(super) const SINUSOIDS: Sinusoids = Sinusoids { width: 256, flip_sin_to_cos: true, freq_shift: 0.0 };

/// diffusers' `AdaLayerNormSingle`: one modulation for all blocks.
#[derive(Debug)]
pub(super) struct AdaLayerNormSingle {
    timestep_embedder: TimestepEmbedding,
    size: Option<SizeEmbedding>,
    linear: Linear,
    kernels: Kernels,
}

/// The embeddings of height and width, and of their ratio.
#[derive(Debug)]
struct SizeEmbedding {
    resolution_embedder: TimestepEmbedding,
    aspect_ratio_embedder: TimestepEmbedding,
}

impl AdaLayerNormSingle {
    pub fn new(weights: &Weights, config: &PixArtTransformer2DConfig) -> Self {
        let (width, emb) = (config.width(), weights.pp("emb"));
        let embedder = |name: &str, width| TimestepEmbedding::new(&emb.pp(name), SINUSOIDS.width, None, width);
        Self {
            timestep_embedder: embedder("timestep_embedder", width),
            size: config.use_additional_conditions().then(|| SizeEmbedding {
                resolution_embedder: embedder("resolution_embedder", width / 3),
                aspect_ratio_embedder: embedder("aspect_ratio_embedder", width / 3),
            }),
            linear: Linear::new(&weights.pp("linear"), width, 6 * width),
            kernels: weights.kernels(),
        }
    }

    /// t (B), (H, W) in pixels → the modulation (B, 6, D) of the blocks, and the embedding (B, D).
    pub fn forward(&self, t: &[f32], [height, width]: [usize; 2], device: &Device) -> Result<(Tensor, Tensor)> {
        let b = t.len();
        let embed = |embedder: &TimestepEmbedding, values: &[f32]| {
            embedder.forward(&SINUSOIDS.forward(values, values.len(), device)?, None, RowAdapters::NONE)
        };
        let mut embedding = embed(&self.timestep_embedder, t)?;
        if let Some(SizeEmbedding { resolution_embedder, aspect_ratio_embedder }) = &self.size {
            // All rows have the same size, so they have the same embedding.
            let resolution = embed(resolution_embedder, &[height as f32, width as f32])?.flatten_all()?;
            let aspect_ratio = embed(aspect_ratio_embedder, &[(height as f64 / width as f64) as f32])?.flatten_all()?;
            embedding = embedding.broadcast_add(&Tensor::cat(&[resolution, aspect_ratio], 0)?)?;
        }
        let modulation = self.linear.forward(&self.kernels.silu(&embedding)?)?;
        Ok((modulation.reshape((b, 6, ()))?, embedding))
    }
}
