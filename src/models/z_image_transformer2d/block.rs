//! One block of the transformer.

use candle_core::{DType, Result, Tensor};

use super::{Angles, ZImageTransformer2DConfig};
use crate::{
    kernels::{Kernels, rotary::Pairs},
    models::{
        adapters::RowAdapters,
        attention::attention,
        layers::{Linear, RmsNorm, modulations},
        pause::pause,
    },
    weights::Weights,
};

/// diffusers' `ZImageTransformerBlock`: attention and feed-forward, each between two norms. Blocks that see the picture
/// are scaled and gated by the embedding of the time.
#[derive(Debug)]
pub(super) struct Block {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    norm_q: RmsNorm,
    norm_k: RmsNorm,
    w1: Linear,
    w2: Linear,
    w3: Linear,
    attention_norm1: RmsNorm,
    ffn_norm1: RmsNorm,
    attention_norm2: RmsNorm,
    ffn_norm2: RmsNorm,
    modulation: Option<Linear>,
    heads: usize,
    kernels: Kernels,
}

impl Block {
    /// `is_modulated`: whether the block depends on the time.
    pub fn new(weights: &Weights, config: &ZImageTransformer2DConfig, is_modulated: bool) -> Self {
        let (d, inner, head) = (config.dim, config.inner(), config.dim / config.n_heads);
        let (attn, ff) = (weights.pp("attention"), weights.pp("feed_forward"));
        let square = |name| Linear::without_bias(&attn.pp(name), d, d);
        let norm = |name| RmsNorm::new(&weights.pp(name), d, config.norm_eps);
        Self {
            to_q: square("to_q"),
            to_k: square("to_k"),
            to_v: square("to_v"),
            to_out: square("to_out.0"),
            norm_q: RmsNorm::new(&attn.pp("norm_q"), head, 1e-5),
            norm_k: RmsNorm::new(&attn.pp("norm_k"), head, 1e-5),
            w1: Linear::without_bias(&ff.pp("w1"), d, inner),
            w2: Linear::without_bias(&ff.pp("w2"), inner, d),
            w3: Linear::without_bias(&ff.pp("w3"), d, inner),
            attention_norm1: norm("attention_norm1"),
            ffn_norm1: norm("ffn_norm1"),
            attention_norm2: norm("attention_norm2"),
            ffn_norm2: norm("ffn_norm2"),
            modulation: is_modulated.then(|| Linear::new(&weights.pp("adaLN_modulation.0"), config.time(), 4 * d)),
            heads: config.n_heads,
            kernels: weights.kernels(),
        }
    }

    /// x (B, N, D), angles (1, N, d/2), embedding of the time (B, E) → (B, N, D). A block that does not depend on the
    /// time ignores `time`.
    pub async fn forward(
        &self,
        x: &Tensor,
        angles: &Angles,
        time: Option<&Tensor>,
        adapters: &RowAdapters,
    ) -> Result<Tensor> {
        let [scale_msa, gate_msa, scale_mlp, gate_mlp] = match (&self.modulation, time) {
            (Some(modulation), Some(time)) => {
                let parts: [Tensor; 4] = modulations(&modulation.adapted(time, adapters)?.to_dtype(DType::F32)?)?;
                let [scale_msa, gate_msa, scale_mlp, gate_mlp] = parts;
                [Some(scale_msa), Some(gate_msa.tanh()?), Some(scale_mlp), Some(gate_mlp.tanh()?)]
            }
            (Some(_), None) => candle_core::bail!("a block without the time that it depends on"),
            (None, _) => [None, None, None, None],
        };
        let normed = scaled(self.attention_norm1.forward(x)?, scale_msa.as_ref())?;
        let attended = self.attention(&normed, angles, adapters).await?.to_dtype(DType::F32)?;
        let x = self.sum(x, &self.attention_norm2.forward(&attended)?, gate_msa.as_ref())?;
        pause().await;
        let normed = scaled(self.ffn_norm1.forward(&x)?, scale_mlp.as_ref())?;
        let (gates, values) = (self.w1.adapted(&normed, adapters)?, self.w3.adapted(&normed, adapters)?);
        let inner = self.kernels.gated_silu(&gates, &values)?;
        drop((gates, values));
        let fed = self.w2.adapted(&inner, adapters)?.to_dtype(DType::F32)?;
        self.sum(&x, &self.ffn_norm2.forward(&fed)?, gate_mlp.as_ref())
    }

    async fn attention(&self, x: &Tensor, (cos, sin): &Angles, adapters: &RowAdapters) -> Result<Tensor> {
        let rotated = |x: Tensor| self.kernels.rotary(&x, cos, sin, Pairs::Neighbors);
        let q = rotated(self.norm_q.forward_heads(&self.to_q.adapted(x, adapters)?)?)?;
        let k = rotated(self.norm_k.forward_heads(&self.to_k.adapted(x, adapters)?)?)?;
        let v = self.to_v.adapted(x, adapters)?;
        self.to_out.adapted(&attention(self.kernels, &q, &k, &v, self.heads).await?, adapters)
    }

    /// x + gate · y
    fn sum(&self, x: &Tensor, y: &Tensor, gate: Option<&Tensor>) -> Result<Tensor> {
        match gate {
            Some(gate) => self.kernels.gated_sum(x, y, gate),
            None => x + y,
        }
    }
}

/// x · (1 + scale)
fn scaled(x: Tensor, scale: Option<&Tensor>) -> Result<Tensor> {
    match scale {
        Some(scale) => x.broadcast_mul(&(scale + 1.0)?),
        None => Ok(x),
    }
}
