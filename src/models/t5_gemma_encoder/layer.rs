//! One layer of T5Gemma's encoder.

use candle_core::{D, Result, Tensor};

use super::T5GemmaConfig;
use crate::{
    kernels::{Kernels, geglu::Gate, rotary::Pairs},
    models::{
        attention::repeated,
        layers::{GatedLinear, Linear, RmsNorm},
    },
    weights::Weights,
};

/// transformers' `T5GemmaEncoderLayer`: attention with soft-capped scores and a gated feed-forward part, each between
/// two norms.
#[derive(Debug)]
pub(super) struct Layer {
    pre_self_attn_layernorm: RmsNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    post_self_attn_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    gate_and_up_proj: GatedLinear,
    down_proj: Linear,
    post_feedforward_layernorm: RmsNorm,
    scores: CappedScores,
    heads: usize,
    /// Queries per head of keys and values.
    group: usize,
    kernels: Kernels,
}

/// How products of queries and keys become scores.
#[derive(Clone, Copy, Debug)]
struct CappedScores {
    scale: f64,
    /// The bound c of the scores s: c · tanh(s / c).
    cap: Option<f64>,
    /// The largest distance at which a token attends to another token; `None` if a token attends to all tokens.
    window: Option<usize>,
}

impl Layer {
    /// `window` is the largest distance at which a token attends to another token; `None` if a token attends to all
    /// tokens.
    pub fn new(weights: &Weights, config: &T5GemmaConfig, window: Option<usize>) -> Self {
        let (width, inner, d) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let (queries, keys) = (config.num_attention_heads * d, config.num_key_value_heads * d);
        let (attn, mlp) = (weights.pp("self_attn"), weights.pp("mlp"));
        let norm = |name| RmsNorm::around_one(&weights.pp(name), width, config.rms_norm_eps);
        Self {
            pre_self_attn_layernorm: norm("pre_self_attn_layernorm"),
            q_proj: Linear::without_bias(&attn.pp("q_proj"), width, queries),
            k_proj: Linear::without_bias(&attn.pp("k_proj"), width, keys),
            v_proj: Linear::without_bias(&attn.pp("v_proj"), width, keys),
            o_proj: Linear::without_bias(&attn.pp("o_proj"), queries, width),
            post_self_attn_layernorm: norm("post_self_attn_layernorm"),
            pre_feedforward_layernorm: norm("pre_feedforward_layernorm"),
            gate_and_up_proj: GatedLinear::new(Gate::GeluTanh, [mlp.pp("gate_proj"), mlp.pp("up_proj")], width, inner),
            down_proj: Linear::without_bias(&mlp.pp("down_proj"), inner, width),
            post_feedforward_layernorm: norm("post_feedforward_layernorm"),
            scores: CappedScores {
                scale: config.query_pre_attn_scalar.sqrt().recip(),
                cap: config.attn_logit_softcapping,
                window,
            },
            heads: config.num_attention_heads,
            group: config.num_attention_heads / config.num_key_value_heads,
            kernels: weights.kernels(),
        }
    }

    /// (1, L, D) → (1, L, D). `angles` are cosines and sines (1, L, d/2).
    pub fn forward(&self, x: &Tensor, (cos, sin): (&Tensor, &Tensor)) -> Result<Tensor> {
        let normed = self.pre_self_attn_layernorm.forward(x)?;
        let rotated = |of: &Linear| self.kernels.rotary(&of.forward(&normed)?, cos, sin, Pairs::Halves);
        let (q, k, v) = (rotated(&self.q_proj)?, rotated(&self.k_proj)?, self.v_proj.forward(&normed)?);
        let [k, v] = [k, v].map(|of| repeated(&of, self.heads / self.group, self.group));
        let attended = self.scores.attention([&q, &k?, &v?], self.heads)?;
        let x = (x + self.post_self_attn_layernorm.forward(&self.o_proj.forward(&attended)?)?)?;
        let inner = self.gate_and_up_proj.forward(&self.pre_feedforward_layernorm.forward(&x)?)?;
        x + self.post_feedforward_layernorm.forward(&self.down_proj.forward(&inner)?)?
    }
}

impl CappedScores {
    /// q, k, v (1, L, H·d) → (1, L, H·d). Texts are short, so all scores are in memory at the same time.
    fn attention(&self, [q, k, v]: [&Tensor; 3], heads: usize) -> Result<Tensor> {
        let (_, tokens, width) = q.dims3()?;
        let split = |x: &Tensor| x.reshape((tokens, heads, width / heads))?.transpose(0, 1)?.contiguous();
        let mut scores = (split(q)?.matmul(&split(k)?.t()?.contiguous()?)? * self.scale)?; // (H, L, L)
        if let Some(cap) = self.cap {
            scores = ((scores / cap)?.tanh()? * cap)?;
        }
        if let Some(window) = self.window.filter(|window| *window + 1 < tokens) {
            let hidden = |at: usize| (at / tokens).abs_diff(at % tokens) > window;
            let mask = (0..tokens * tokens).map(|at| if hidden(at) { f32::NEG_INFINITY } else { 0.0 }).collect();
            scores = scores.broadcast_add(&Tensor::from_vec(mask, (tokens, tokens), q.device())?)?;
        }
        let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let shares = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
        shares.matmul(&split(v)?)?.transpose(0, 1)?.contiguous()?.reshape((1, tokens, width))
    }
}
