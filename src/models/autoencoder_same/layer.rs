//! One transformer layer of a resampling block.

use std::f64::consts::PI;

use candle_core::{Result, Tensor};

use super::{AutoencoderSameConfig, Level, band::band_attention};
use crate::{
    kernels::{
        Kernels,
        geglu::{Gate, Geglu},
    },
    models::{
        differential_attention::{Projections, difference},
        dynamic_tanh::DynamicTanh,
        layers::{Linear, geglu},
        partial_rotary::PartialRotary,
        pause::pause,
    },
    weights::Weights,
};

/// diffusers' `TransformerBlock` of SAME: attention to the neighbors and a gated feed-forward part.
#[derive(Debug)]
pub(super) struct Layer {
    norm_attn: DynamicTanh,
    projections: Projections,
    q_norm: DynamicTanh,
    k_norm: DynamicTanh,
    to_out: Linear,
    norm_ff: DynamicTanh,
    ff_proj_in: GatedLayer,
    ff_proj_out: Linear,
    heads: usize,
    /// The largest distance at which a token attends to another token.
    window: usize,
    kernels: Kernels,
}

impl Layer {
    /// Layer `i` of the block of `level`.
    pub fn new(weights: &Weights, config: &AutoencoderSameConfig, level: &Level, i: usize) -> Self {
        let (width, head) = (level.inputs, config.head(level.inputs));
        let (attn, ff, inner) = (weights.pp("attn"), weights.pp("ff"), config.ff_mult * width);
        Self {
            norm_attn: DynamicTanh::new(&weights.pp("norm_attn"), width),
            projections: Projections::joined(&attn.pp("to_qkv"), width, config.use_differential_attention),
            q_norm: DynamicTanh::new(&attn.pp("q_norm"), head),
            k_norm: DynamicTanh::new(&attn.pp("k_norm"), head),
            to_out: Linear::without_bias(&attn.pp("to_out"), width, width),
            norm_ff: DynamicTanh::new(&weights.pp("norm_ff"), width),
            ff_proj_in: GatedLayer::new(&ff.pp("proj_in"), width, inner, level.is_sinusoidal(i)),
            ff_proj_out: Linear::new(&ff.pp("proj_out"), inner, width),
            heads: width / head,
            window: config.sliding_window * (level.stride + 1),
            kernels: weights.kernels(),
        }
    }

    /// (B, N, D) → (B, N, D)
    pub async fn forward(&self, x: &Tensor, rotary: &PartialRotary) -> Result<Tensor> {
        pause().await;
        let x = (x + self.attention(&self.norm_attn.forward(x)?, rotary).await?)?;
        pause().await;
        let inner = self.ff_proj_in.forward(&self.norm_ff.forward(&x)?)?;
        x + self.ff_proj_out.forward(&inner)?
    }

    async fn attention(&self, x: &Tensor, rotary: &PartialRotary) -> Result<Tensor> {
        let q = self.projections.queries(x, |q| rotary.rotate(&self.q_norm.forward_heads(&q)?, self.kernels))?;
        let k = self.projections.keys(x, |k| rotary.rotate(&self.k_norm.forward_heads(&k)?, self.kernels))?;
        let v = self.projections.values(x)?;
        let mut maps = Vec::with_capacity(q.len());
        for (q, k) in q.iter().zip(&k) {
            maps.push(band_attention(self.kernels, [q, k, &v], self.heads, self.window).await?);
        }
        self.to_out.forward(&difference(&maps)?)
    }
}

/// A linear layer of values and gates: value · gate's function.
#[derive(Debug)]
enum GatedLayer {
    Silu(Geglu),
    /// The function of the gate is sin(π · gate).
    Sine(Linear),
}

impl GatedLayer {
    fn new(weights: &Weights, width: usize, inner: usize, is_sinusoidal: bool) -> Self {
        if is_sinusoidal {
            return Self::Sine(Linear::new(weights, width, 2 * inner));
        }
        Self::Silu(geglu(weights, width, inner, Gate::Silu))
    }

    /// (B, N, D) → (B, N, inner)
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Silu(geglu) => geglu.times(x),
            Self::Sine(linear) => {
                let both = linear.forward(x)?;
                let inner = both.dim(2)? / 2;
                both.narrow(2, 0, inner)? * (both.narrow(2, inner, inner)? * PI)?.sin()?
            }
        }
    }
}
