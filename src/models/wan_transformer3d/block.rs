//! One block of Wan's transformer.

use candle_core::{DType, Result, Tensor};

use super::{WanTransformer3DConfig, attention::Attention, embeddings::Embedded, positions::Rotary};
use crate::{
    device::Precision,
    kernels::Kernels,
    models::{
        adapters::RowAdapters,
        layers::{LayerNorm, Linear, ModulatedNorm},
        pause::pause,
    },
    weights::Weights,
};

/// diffusers' `WanTransformerBlock`: attention of the patches to each other, attention to the conditions, and a
/// feed-forward layer. The first and the last are modulated and gated by the time, in float32.
#[derive(Debug)]
pub(super) struct Block {
    /// Added to the modulation of all blocks: (1, 6, D).
    scale_shift_table: Tensor,
    norm: ModulatedNorm,
    attn1: Attention,
    attn1_out: Linear,
    norm2: Option<LayerNorm>,
    attn2: Attention,
    attn2_out: Linear,
    ff_in: Linear,
    ff_out: Linear,
    kernels: Kernels,
}

impl Block {
    pub fn new(weights: &Weights, config: &WanTransformer3DConfig) -> Self {
        let (width, inner) = (config.width(), config.ffn_dim);
        let (attn1, attn2, ffn) = (weights.pp("attn1"), weights.pp("attn2"), weights.pp("ffn.net"));
        let norm2 = || LayerNorm::new(&weights.in_precision(Precision::F32).pp("norm2"), width, config.eps);
        Self {
            scale_shift_table: weights.in_precision(Precision::F32).tensor("scale_shift_table", &[1, 6, width]),
            norm: ModulatedNorm::new(weights, config.eps),
            attn1: Attention::to_itself(&attn1, config),
            attn1_out: Linear::new(&attn1.pp("to_out.0"), width, width),
            norm2: config.cross_attn_norm.then(norm2),
            attn2: Attention::to_conditions(&attn2, config),
            attn2_out: Linear::new(&attn2.pp("to_out.0"), width, width),
            ff_in: Linear::new(&ffn.pp("0.proj"), width, inner),
            ff_out: Linear::new(&ffn.pp("2"), inner, width),
            kernels: weights.kernels(),
        }
    }

    /// x (B, N, D) → (B, N, D)
    pub async fn forward(&self, x: Tensor, conditions: &Embedded, rotary: &Rotary) -> Result<Tensor> {
        pause().await;
        let modulation = conditions.modulation.broadcast_add(&self.scale_shift_table)?; // (G, 6, D)
        let part = |i| modulation.narrow(1, i, 1)?.contiguous();
        let (shift_msa, scale_msa, gate_msa) = (part(0)?, part(1)?, part(2)?);
        let (shift_ff, scale_ff, gate_ff) = (part(3)?, part(4)?, part(5)?);

        let attended = self.attn1.attend(&self.normed(&x, &shift_msa, &scale_msa)?, rotary).await?;
        let x = self.gated(&self.attn1_out, &attended, &x, &gate_msa)?;
        drop(attended);

        let normed = self.norm2.as_ref().map_or_else(|| Ok(x.clone()), |norm2| norm2.forward(&x))?;
        let attended = self.attn2.attend_to(&normed, conditions).await?;
        drop(normed);
        let x = self.attn2_out.forward_with(&attended, &x)?;
        drop(attended);

        pause().await;
        let normed = self.normed(&x, &shift_ff, &scale_ff)?;
        let inner = self.ff_in.adapted_gelu(&normed, RowAdapters::NONE, self.kernels)?;
        drop(normed);
        pause().await;
        self.gated(&self.ff_out, &inner, &x, &gate_ff)
    }

    /// The modulated norm of x (B, N, D), for shift and scale (G, 1, D): each is for B · N / G neighboring patches.
    fn normed(&self, x: &Tensor, shift: &Tensor, scale: &Tensor) -> Result<Tensor> {
        let times = shift.dim(0)?;
        self.norm.forward(&by_times(x, times)?, shift, scale)?.reshape(x.shape())
    }

    /// x (B, N, D) + gate (G, 1, D) · the layer's output for y (B, N, in)
    fn gated(&self, layer: &Linear, y: &Tensor, x: &Tensor, gate: &Tensor) -> Result<Tensor> {
        let times = gate.dim(0)?;
        let (x_by, y_by) = (by_times(x, times)?, by_times(y, times)?);
        let sum = match self.kernels {
            Kernels::Packed(_) => layer.adapted_gated(&y_by, [&x_by, gate], RowAdapters::NONE, self.kernels)?,
            Kernels::Reference(_) => {
                let y = layer.forward(&y_by)?.to_dtype(DType::F32)?.broadcast_mul(gate)?;
                (x_by.to_dtype(DType::F32)? + y)?.to_dtype(x.dtype())?
            }
        };
        sum.reshape(x.shape())
    }
}

/// x (B, N, C) → (G, B · N / G, C)
fn by_times(x: &Tensor, times: usize) -> Result<Tensor> {
    let (b, n, c) = x.dims3()?;
    x.reshape((times, b * n / times.max(1), c))
}
