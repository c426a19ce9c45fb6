//! The text encoder of Z-Image and FLUX.2 Klein: the language model Qwen3 (Yang et al. 2025, arXiv:2505.09388;
//! transformers' `Qwen3Model`). Only states of its inner layers are used.

mod configuration;
mod layer;

use candle_core::{Device, Result, Tensor};

pub use configuration::{Qwen3Config, RopeParameters};
pub(super) use layer::Layer;

use super::{embedding::Embedding, pause::pause};
use crate::weights::Weights;

/// Turns token ids into hidden states of inner layers. Layers above the last wanted one are not loaded.
#[derive(Debug)]
pub struct Qwen3Encoder {
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    config: Qwen3Config,
}

/// One prompt.
#[derive(Clone, Copy, Debug)]
pub struct Qwen3Row<'a> {
    /// The ids of the prompt, then padding.
    pub ids: &'a [u32],
    /// How many of the ids belong to the prompt, at least 1.
    pub length: usize,
}

impl Qwen3Encoder {
    /// Builds the first `depth` layers. The names of all tensors may begin with `model.`, or lack this prefix. The
    /// caller then calls [`Weights::finish`].
    pub fn new(config: &Qwen3Config, weights: &Weights, depth: usize) -> Self {
        // This layer has the weights of the embeddings, and is used only to predict the next token.
        weights.leave("lm_head.");
        let weights = if weights.has_any("model.") { weights.pp("model") } else { weights.clone() };
        let layers = weights.pp("layers");
        (depth..config.num_hidden_layers).for_each(|unused| layers.leave(&format!("{unused}.")));
        weights.leave("norm.");
        Self {
            embed_tokens: Embedding::new(&weights, "embed_tokens.weight", config.vocab_size, config.hidden_size),
            layers: (0..depth).map(|i| Layer::new(&layers.pp(i), config)).collect(),
            config: config.clone(),
        }
    }

    /// Whether the encoder with `depth` layers leaves a tensor of this name in the file.
    pub fn leaves(name: &str, depth: usize) -> bool {
        let name = name.strip_prefix("model.").unwrap_or(name);
        let layer = name.strip_prefix("layers.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        name.starts_with("lm_head.") || name.starts_with("norm.") || layer.is_some_and(|layer| layer >= depth)
    }

    /// The states of a prompt of L ids after each of the numbers of layers in `after` (0 gives the embeddings), without
    /// the final norm: transformers' `hidden_states[k]`. Each is (1, L, D), in float32.
    ///
    /// A token attends to itself and to the tokens before it, but not to padding. Padding attends to the whole prompt.
    ///
    /// # Errors
    /// An id is not in the vocabulary, or a layer is not loaded.
    pub async fn forward(&self, row: Qwen3Row<'_>, after: &[usize]) -> Result<Vec<Tensor>> {
        let Qwen3Row { ids, length } = row;
        if length == 0 || length > ids.len() {
            candle_core::bail!("{length} of {} ids", ids.len());
        }
        let last = after.iter().max().copied().unwrap_or(0);
        let Some(layers) = self.layers.get(..last) else {
            candle_core::bail!("state {last} of {} layers", self.layers.len())
        };
        let mut x = self.embed_tokens.forward(ids)?.unsqueeze(0)?;
        let (cos, sin) =
            rotary_angles((self.config.theta(), self.config.head_dim), ids.len(), |token, _| token, x.device())?;
        let mut states = vec![x.clone()];
        for layer in layers {
            pause().await;
            x = layer.forward(&x, (&cos, &sin), length).await?;
            states.push(x.clone());
        }
        Ok(after.iter().map(|k| states[*k].clone()).collect())
    }
}

/// Cosines and sines of the rotary angles of L tokens with the base θ and d channels per head, (1, L, d/2) each.
/// `position` gives the position of a token for each of the d/2 frequencies.
pub(super) fn rotary_angles(
    (theta, d): (f64, usize),
    length: usize,
    position: impl Fn(usize, usize) -> usize,
    device: &Device,
) -> Result<(Tensor, Tensor)> {
    let half = d / 2;
    let frequency = |i: usize| (1.0 / libm::pow(theta, 2.0 * i as f64 / d as f64)) as f32;
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    let of_token = |token| frequencies.iter().enumerate().map(move |(i, frequency)| (token, i, frequency));
    let angles = (0..length).flat_map(of_token).map(|(token, i, frequency)| position(token, i) as f32 * frequency);
    let angles: Vec<f32> = angles.collect();
    let table = |of: fn(f32) -> f32| {
        Tensor::from_vec(angles.iter().map(|angle| of(*angle)).collect(), (1, length, half), device)
    };
    Ok((table(libm::cosf)?, table(libm::sinf)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_layers_the_last_norm_and_the_head_stay_in_the_file() {
        let left = ["lm_head.weight", "norm.weight", "layers.2.mlp.up_proj.weight", "layers.10.input_layernorm.weight"];
        let used = ["embed_tokens.weight", "layers.0.self_attn.q_norm.weight", "layers.1.mlp.up_proj.weight"];
        for prefix in ["", "model."] {
            assert!(left.iter().all(|name| Qwen3Encoder::leaves(&format!("{prefix}{name}"), 2)));
            assert!(!used.iter().any(|name| Qwen3Encoder::leaves(&format!("{prefix}{name}"), 2)));
        }
    }
}
