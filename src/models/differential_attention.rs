//! Attention as the difference of two maps: softmax(q₁·k₁ᵀ)·v − softmax(q₂·k₂ᵀ)·v (Ye et al. 2024, arXiv:2410.05258,
//! without the learned factor of the second map), or ordinary attention with one map.

use candle_core::{Result, Tensor};

use super::{attention::attention, layers::Linear};
use crate::{kernels::Kernels, weights::Weights};

/// The layers that make queries, keys and values.
#[derive(Debug)]
pub(super) struct Projections {
    /// One layer for each map.
    q: Vec<Linear>,
    k: Vec<Linear>,
    v: Linear,
}

/// The queries or the keys of each map, (B, N, H·d).
pub(super) type OfMaps = Vec<Tensor>;

impl Projections {
    /// All layers in one matrix, with the rows q₁, q₂, k₁, k₂, v, or q, k, v if `is_differential` is false.
    pub fn joined(weights: &Weights, width: usize, is_differential: bool) -> Self {
        if is_differential {
            let [q1, q2, k1, k2, v] = Linear::split(weights, width, [width; 5]);
            return Self { q: vec![q1, q2], k: vec![k1, k2], v };
        }
        let [q, k, v] = Linear::split(weights, width, [width; 3]);
        Self { q: vec![q], k: vec![k], v }
    }

    /// The queries in one matrix, keys and values in another.
    pub fn apart([to_q, to_kv]: [&Weights; 2], width: usize, context: usize, is_differential: bool) -> Self {
        if is_differential {
            let (q, [k1, k2, v]) = (Linear::split(to_q, width, [width; 2]), Linear::split(to_kv, context, [width; 3]));
            return Self { q: q.into(), k: vec![k1, k2], v };
        }
        let ([q], [k, v]) = (Linear::split(to_q, width, [width]), Linear::split(to_kv, context, [width; 2]));
        Self { q: vec![q], k: vec![k], v }
    }

    pub fn queries(&self, x: &Tensor, then: impl Fn(Tensor) -> Result<Tensor>) -> Result<OfMaps> {
        self.q.iter().map(|q| then(q.forward(x)?)).collect()
    }

    pub fn keys(&self, x: &Tensor, then: impl Fn(Tensor) -> Result<Tensor>) -> Result<OfMaps> {
        self.k.iter().map(|k| then(k.forward(x)?)).collect()
    }

    pub fn values(&self, x: &Tensor) -> Result<Tensor> {
        self.v.forward(x)
    }
}

/// q (B, N, H·d), k and v (B, M, H·d) → (B, N, H·d). Pauses as [`attention`].
pub(super) async fn differential_attention(
    kernels: Kernels,
    q: &OfMaps,
    k: &OfMaps,
    v: &Tensor,
    heads: usize,
) -> Result<Tensor> {
    let mut maps = Vec::with_capacity(q.len());
    for (q, k) in q.iter().zip(k) {
        maps.push(attention(kernels, q, k, v, heads).await?);
    }
    difference(&maps)
}

/// The first map without the second, or the only map.
pub(super) fn difference(maps: &[Tensor]) -> Result<Tensor> {
    match maps {
        [only] => Ok(only.clone()),
        [first, second] => first - second,
        others => candle_core::bail!("{} attention maps", others.len()),
    }
}
