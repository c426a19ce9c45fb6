//! The text encoder of Stable Diffusion 1 and 2 (transformers' `CLIPTextModel`; Radford et al. 2021, arXiv:2103.00020).

mod configuration;

use candle_core::{Result, Tensor};

pub use configuration::{ClipTextConfig, HiddenAct};

use super::layers::{LayerNorm, Linear};
use crate::{
    kernels::{
        activation::{gelu_erf, quick_gelu},
        attention::{Mask, attention},
    },
    weights::Weights,
};

/// Token ids to hidden states, every token seeing those before it; padding is seen like any other token.
#[derive(Debug)]
pub struct ClipTextModel {
    /// (vocabulary, D)
    token_embedding: Tensor,
    /// (positions, D)
    position_embedding: Tensor,
    layers: Vec<EncoderLayer>,
    final_layer_norm: LayerNorm,
}

impl ClipTextModel {
    /// Builds the network on weights that are finished by the caller, named as published (`text_model.…`) or flattened.
    pub fn new(config: &ClipTextConfig, weights: &Weights) -> Self {
        let weights = if weights.has_any("text_model.") { weights.pp("text_model") } else { weights.clone() };
        let width = config.hidden_size;
        let (embeddings, layers) = (weights.pp("embeddings"), weights.pp("encoder.layers"));
        Self {
            token_embedding: embeddings.tensor("token_embedding.weight", &[config.vocab_size, width]),
            position_embedding: embeddings
                .tensor("position_embedding.weight", &[config.max_position_embeddings, width]),
            layers: (0..config.num_hidden_layers).map(|i| EncoderLayer::new(&layers.pp(i), config)).collect(),
            final_layer_norm: LayerNorm::new(&weights.pp("final_layer_norm"), width, config.layer_norm_eps),
        }
    }

    /// ids (B, L) of u32 → (B, L, D): the output of all layers but the last `clip_skip`, through the final norm.
    ///
    /// That is transformers' `last_hidden_state` for 0, and `hidden_states[-(clip_skip + 1)]` normed for more, as diffusers'
    /// `clip_skip` has it. L may be anything up to `max_position_embeddings`.
    pub fn forward(&self, ids: &Tensor, clip_skip: usize) -> Result<Tensor> {
        let (batch, length) = ids.dims2()?;
        let Some(layers) = self.layers.len().checked_sub(clip_skip) else {
            candle_core::bail!("clip_skip = {clip_skip} of {} layers", self.layers.len())
        };
        let embedded = self.token_embedding.index_select(&ids.flatten_all()?, 0)?.reshape((batch, length, ()))?;
        let mut x = embedded.broadcast_add(&self.position_embedding.narrow(0, 0, length)?)?;
        for layer in &self.layers[..layers] {
            x = layer.forward(x)?;
        }
        self.final_layer_norm.forward(&x)
    }
}

/// transformers' `CLIPEncoderLayer`.
#[derive(Debug)]
struct EncoderLayer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    act: HiddenAct,
}

impl EncoderLayer {
    fn new(weights: &Weights, config: &ClipTextConfig) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let norm = |name| LayerNorm::new(&weights.pp(name), width, config.layer_norm_eps);
        let project = |name| Linear::new(&weights.pp("self_attn").pp(name), width, width);
        Self {
            layer_norm1: norm("layer_norm1"),
            q_proj: project("q_proj"),
            k_proj: project("k_proj"),
            v_proj: project("v_proj"),
            out_proj: project("out_proj"),
            layer_norm2: norm("layer_norm2"),
            fc1: Linear::new(&weights.pp("mlp.fc1"), width, inner),
            fc2: Linear::new(&weights.pp("mlp.fc2"), inner, width),
            heads: config.num_attention_heads,
            act: config.hidden_act,
        }
    }

    /// (B, L, D) → (B, L, D)
    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let normed = self.layer_norm1.forward(&x)?;
        let (q, k, v) = (self.q_proj.forward(&normed)?, self.k_proj.forward(&normed)?, self.v_proj.forward(&normed)?);
        let x = self.out_proj.forward_onto(&attention(&q, &k, &v, self.heads, Mask::Causal)?, &x)?;
        let inner = self.fc1.forward(&self.layer_norm2.forward(&x)?)?;
        let inner = match self.act {
            HiddenAct::QuickGelu => quick_gelu(&inner)?,
            HiddenAct::Gelu => gelu_erf(&inner)?,
        };
        self.fc2.forward_onto(&inner, &x)
    }
}
