//! The embeddings of the time, the text and the picture.

use candle_core::{DType, Result, Tensor};

use super::WanTransformer3DConfig;
use crate::{
    device::Precision,
    kernels::Kernels,
    models::{
        adapters::RowAdapters,
        layers::{LayerNorm, Linear},
        text_projection::PixArtAlphaTextProjection,
        time_embedding::{Sinusoids, TimestepEmbedding},
    },
    weights::Weights,
};

/// diffusers' `WanTimeTextImageEmbedding`.
#[derive(Debug)]
pub(super) struct ConditionEmbedder {
    sinusoids: Sinusoids,
    time_embedder: TimestepEmbedding,
    time_proj: Linear,
    text_embedder: PixArtAlphaTextProjection,
    image_embedder: Option<ImageEmbedding>,
    kernels: Kernels,
}

/// The conditions of a batch in the width of the transformer. G is the number of times.
pub(super) struct Embedded {
    /// (G, 1, D) in float32
    pub time: Tensor,
    /// The modulation of all blocks, (G, 6, D) in float32.
    pub modulation: Tensor,
    /// (B, L, D)
    pub text: Tensor,
    /// (B, M, D)
    pub picture: Option<Tensor>,
}

impl ConditionEmbedder {
    pub fn new(weights: &Weights, config: &WanTransformer3DConfig) -> Self {
        let width = config.width();
        // diffusers keeps the embedder of the time in float32, too.
        let time_embedder = weights.in_precision(Precision::F32).pp("time_embedder");
        let image_embedder =
            config.image_dim.map(|channels| ImageEmbedding::new(&weights.pp("image_embedder"), channels, width));
        Self {
            sinusoids: Sinusoids { width: config.freq_dim, flip_sin_to_cos: true, freq_shift: 0.0 },
            time_embedder: TimestepEmbedding::new(&time_embedder, config.freq_dim, None, width),
            time_proj: Linear::new(&weights.pp("time_proj"), width, 6 * width),
            text_embedder: PixArtAlphaTextProjection::new(&weights.pp("text_embedder"), config.text_dim, width),
            image_embedder,
            kernels: weights.kernels(),
        }
    }

    /// t (G), text (B, L, T), picture (B, M, P)
    pub fn forward(&self, t: &[f32], text: &Tensor, picture: Option<&Tensor>) -> Result<Embedded> {
        let sinusoids = self.sinusoids.forward(t, t.len(), text.device())?;
        let time = self.time_embedder.forward(&sinusoids, None, RowAdapters::NONE)?.to_dtype(text.dtype())?; // (G, D)
        let modulation = self.time_proj.forward(&self.kernels.silu(&time)?)?.to_dtype(DType::F32)?;
        let picture = match (&self.image_embedder, picture) {
            (Some(embedder), Some(picture)) => Some(embedder.forward(picture)?),
            _ => None,
        };
        Ok(Embedded {
            modulation: modulation.reshape((t.len(), 6, ()))?,
            time: time.to_dtype(DType::F32)?.unsqueeze(1)?,
            text: self.text_embedder.forward(text)?,
            picture,
        })
    }
}

/// diffusers' `WanImageEmbedding`: the states of the picture's tokens in the width of the transformer.
#[derive(Debug)]
struct ImageEmbedding {
    norm1: LayerNorm,
    ff_in: Linear,
    ff_out: Linear,
    norm2: LayerNorm,
}

impl ImageEmbedding {
    fn new(weights: &Weights, channels: usize, width: usize) -> Self {
        let ff = weights.pp("ff.net");
        Self {
            norm1: LayerNorm::new(&weights.pp("norm1"), channels, 1e-5),
            ff_in: Linear::new(&ff.pp("0.proj"), channels, channels),
            ff_out: Linear::new(&ff.pp("2"), channels, width),
            norm2: LayerNorm::new(&weights.pp("norm2"), width, 1e-5),
        }
    }

    /// (B, M, P) → (B, M, D)
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let inner = self.ff_in.forward(&self.norm1.forward(x)?)?.gelu_erf()?;
        self.norm2.forward(&self.ff_out.forward(&inner)?)
    }
}
