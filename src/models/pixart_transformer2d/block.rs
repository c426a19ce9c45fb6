//! One block of PixArt's transformer.

use candle_core::{Result, Tensor};

use super::{Captions, PixArtTransformer2DConfig};
use crate::{
    kernels::{Kernels, attention::Scores},
    models::{
        attention::{attention, scored_attention},
        layers::{Linear, ModulatedNorm},
        pause::pause,
    },
    weights::Weights,
};

/// diffusers' `BasicTransformerBlock` with `norm_type = "ada_norm_single"`: attention to the picture, attention to the
/// text, and feed-forward. The first and the last are modulated and gated by the time.
#[derive(Debug)]
pub(super) struct Block {
    /// Added to the modulation of all blocks: (6, D).
    scale_shift_table: Tensor,
    norm: ModulatedNorm,
    attn1: Attention,
    attn2: Attention,
    ff_in: Linear,
    ff_out: Linear,
    kernels: Kernels,
}

#[derive(Debug)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

impl Attention {
    fn new(weights: &Weights, config: &PixArtTransformer2DConfig) -> Self {
        let width = config.width();
        let project = if config.attention_bias { Linear::new } else { Linear::without_bias };
        Self {
            to_q: project(&weights.pp("to_q"), width, width),
            to_k: project(&weights.pp("to_k"), width, width),
            to_v: project(&weights.pp("to_v"), width, width),
            to_out: Linear::new(&weights.pp("to_out.0"), width, width),
            heads: config.num_attention_heads,
        }
    }

    /// q, k and v of queries x (B, N, D) and of keys and values y (B, M, D).
    fn projections(&self, x: &Tensor, y: &Tensor) -> Result<[Tensor; 3]> {
        Ok([self.to_q.forward(x)?, self.to_k.forward(y)?, self.to_v.forward(y)?])
    }
}

impl Block {
    pub fn new(weights: &Weights, config: &PixArtTransformer2DConfig) -> Self {
        let width = config.width();
        Self {
            scale_shift_table: weights.tensor("scale_shift_table", &[6, width]),
            norm: ModulatedNorm::new(weights, config.norm_eps),
            attn1: Attention::new(&weights.pp("attn1"), config),
            attn2: Attention::new(&weights.pp("attn2"), config),
            ff_in: Linear::new(&weights.pp("ff.net.0.proj"), width, 4 * width),
            ff_out: Linear::new(&weights.pp("ff.net.2"), 4 * width, width),
            kernels: weights.kernels(),
        }
    }

    /// x (B, N, D), modulation (B, 6, D), text (B, L, D) → (B, N, D)
    pub async fn forward(&self, x: Tensor, modulation: &Tensor, text: Captions<'_>) -> Result<Tensor> {
        let Self { kernels, attn1, attn2, .. } = self;
        let modulation = modulation.broadcast_add(&self.scale_shift_table.unsqueeze(0)?)?;
        let part = |i| modulation.narrow(1, i, 1)?.contiguous();
        let (shift_msa, scale_msa, gate_msa) = (part(0)?, part(1)?, part(2)?);
        let (shift_mlp, scale_mlp, gate_mlp) = (part(3)?, part(4)?, part(5)?);

        let normed = self.norm.forward(&x, &shift_msa, &scale_msa)?;
        let [q, k, v] = attn1.projections(&normed, &normed)?;
        let attended = attn1.to_out.forward(&attention(*kernels, &q, &k, &v, attn1.heads).await?)?;
        let x = kernels.gated_sum(&x, &attended, &gate_msa)?;

        // No norm comes before the attention to the text.
        let [q, k, v] = attn2.projections(&x, text.states)?;
        let scores = Scores { keys: Some(text.tokens), ..Scores::default() };
        let attended = scored_attention(*kernels, &q, &k, &v, attn2.heads, scores).await?;
        let x = attn2.to_out.forward_with(&attended, &x)?;

        pause().await;
        let normed = self.norm.forward(&x, &shift_mlp, &scale_mlp)?;
        let fed = self.ff_out.forward(&kernels.gelu_tanh(&self.ff_in.forward(&normed)?)?)?;
        kernels.gated_sum(&x, &fed, &gate_mlp)
    }
}
