//! One layer of Qwen3.

use candle_core::{DType, Result, Tensor};

use super::Qwen3Config;
use crate::{
    kernels::{Kernels, attention::Mask, rotary::Pairs},
    models::{
        attention::repeated,
        layers::{Linear, RmsNorm},
    },
    weights::Weights,
};

/// transformers' `Qwen3DecoderLayer`: attention with fewer heads of keys and values than of queries, and a feed-forward
/// part with a SiLU gate.
#[derive(Debug)]
pub(in crate::models) struct Layer {
    input_layernorm: RmsNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    heads: usize,
    /// Queries per head of keys and values.
    group: usize,
    kernels: Kernels,
}

impl Layer {
    pub fn new(weights: &Weights, config: &Qwen3Config) -> Self {
        let (width, inner, d) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let (queries, keys) = (config.num_attention_heads * d, config.num_key_value_heads * d);
        let (attn, mlp) = (weights.pp("self_attn"), weights.pp("mlp"));
        let norm = |weights: &Weights, name: &str, width| RmsNorm::new(&weights.pp(name), width, config.rms_norm_eps);
        let linear =
            |weights: &Weights, name: &str, inputs, outputs| Linear::without_bias(&weights.pp(name), inputs, outputs);
        Self {
            input_layernorm: norm(weights, "input_layernorm", width),
            q_proj: linear(&attn, "q_proj", width, queries),
            k_proj: linear(&attn, "k_proj", width, keys),
            v_proj: linear(&attn, "v_proj", width, keys),
            o_proj: linear(&attn, "o_proj", queries, width),
            q_norm: norm(&attn, "q_norm", d),
            k_norm: norm(&attn, "k_norm", d),
            post_attention_layernorm: norm(weights, "post_attention_layernorm", width),
            gate_proj: linear(&mlp, "gate_proj", width, inner),
            up_proj: linear(&mlp, "up_proj", width, inner),
            down_proj: linear(&mlp, "down_proj", inner, width),
            heads: config.num_attention_heads,
            group: config.num_attention_heads / config.num_key_value_heads,
            kernels: weights.kernels(),
        }
    }

    /// x (1, L, D) with `length` tokens and then padding → (1, L, D). `angles` are cosines and sines (1, L, d/2). The
    /// states are float32: with 16 bits, they can exceed the largest number of float16.
    pub async fn forward(&self, x: &Tensor, angles: (&Tensor, &Tensor), length: usize) -> Result<Tensor> {
        let normed = self.input_layernorm.forward(x)?;
        let q = self.q_norm.forward_heads(&self.q_proj.forward(&normed)?)?;
        let k = self.k_norm.forward_heads(&self.k_proj.forward(&normed)?)?;
        let v = self.v_proj.forward(&normed)?;
        let (cos, sin) = angles;
        let q = self.kernels.rotary(&q, cos, sin, Pairs::Halves)?;
        let k = self.kernels.rotary(&k, cos, sin, Pairs::Halves)?;
        let [k, v] = [k, v].map(|of| repeated(&of, self.heads / self.group, self.group));
        let attended = self.attention(&q, &k?, &v?, length)?;
        let x = (x + self.o_proj.forward(&attended)?.to_dtype(DType::F32)?)?;
        let normed = self.post_attention_layernorm.forward(&x)?;
        let inner = self.kernels.gated_silu(&self.gate_proj.forward(&normed)?, &self.up_proj.forward(&normed)?)?;
        x + self.down_proj.forward(&inner)?.to_dtype(DType::F32)?
    }

    /// q, k, v (1, L, H·d) → (1, L, H·d). The keys of padding are hidden from all queries.
    fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor, length: usize) -> Result<Tensor> {
        let part = |x: &Tensor, first, count| x.narrow(1, first, count)?.contiguous();
        let (keys, values) = (part(k, 0, length)?, part(v, 0, length)?);
        let prompt = self.kernels.attention(&part(q, 0, length)?, &keys, &values, self.heads, Mask::Causal)?;
        let padding = q.dim(1)? - length;
        if padding == 0 {
            return Ok(prompt);
        }
        let rest = self.kernels.attention(&part(q, length, padding)?, &keys, &values, self.heads, Mask::None)?;
        Tensor::cat(&[prompt, rest], 1)
    }
}
