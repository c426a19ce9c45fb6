//! The text encoder of Stable Audio 3: the encoder of T5Gemma (Zhang et al. 2025, arXiv:2504.06225; transformers'
//! `T5GemmaEncoderModel`).

mod configuration;
mod layer;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

pub use configuration::T5GemmaConfig;
use layer::Layer;

use super::{embedding::Embedding, layers::RmsNorm, pause::pause, qwen3_encoder::rotary_angles};
use crate::weights::Weights;

/// Turns token ids into hidden states.
#[derive(Debug)]
pub struct T5GemmaEncoder {
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    config: T5GemmaConfig,
}

impl T5GemmaEncoder {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &T5GemmaConfig, weights: &Weights) -> Self {
        let (weights, width) = (weights.pp("encoder"), config.hidden_size);
        let layers = weights.pp("layers");
        let layer = |i| Layer::new(&layers.pp(i), config, config.window(i));
        Self {
            embed_tokens: Embedding::new(&weights, "embed_tokens.weight", config.vocab_size, width),
            layers: (0..config.num_hidden_layers).into_par_iter().map(layer).collect(),
            norm: RmsNorm::around_one(&weights.pp("norm"), width, config.rms_norm_eps),
            config: config.clone(),
        }
    }

    /// The ids of one text of L tokens, at least 1, without padding → `last_hidden_state` (L, D) in float32.
    ///
    /// transformers pads texts on the left. Padding is hidden from all tokens, and only the distance of two tokens
    /// matters to the rotary embedding, so the states are the same without padding.
    ///
    /// # Errors
    /// An id is not in the vocabulary.
    pub async fn forward(&self, ids: &[u32]) -> Result<Tensor> {
        if ids.is_empty() {
            candle_core::bail!("a text without tokens");
        }
        let scale = (self.config.hidden_size as f64).sqrt();
        let mut x = (self.embed_tokens.forward(ids)?.unsqueeze(0)? * scale)?;
        let of = (self.config.theta(), self.config.head_dim);
        let (cos, sin) = rotary_angles(of, ids.len(), |token, _| token, x.device())?;
        for layer in &self.layers {
            pause().await;
            x = layer.forward(&x, (&cos, &sin))?;
        }
        self.norm.forward(&x)?.squeeze(0)
    }
}
