//! The attention of FLUX: queries and keys are normalized and rotated by their positions.

use candle_core::{Result, Tensor};

use super::{FluxTransformer2DConfig, positions::Rotary};
use crate::{
    kernels::{Kernels, maps::after},
    models::{
        adapters::RowAdapters,
        attention::attention,
        layers::{Linear, RmsNorm},
    },
    weights::Weights,
};

/// The projections of one stream to queries, keys and values, with the norms of queries and keys.
#[derive(Debug)]
pub(super) struct Projections {
    q: Linear,
    k: Linear,
    v: Linear,
    norm_q: RmsNorm,
    norm_k: RmsNorm,
}

/// Queries, keys and values, each (B, N, D).
pub(super) struct Projected {
    q: Tensor,
    k: Tensor,
    v: Tensor,
}

impl Projections {
    /// `names` are the names of the layers of queries, keys and values, and of the norms of queries and keys.
    pub fn new(weights: &Weights, config: &FluxTransformer2DConfig, names: [&str; 5]) -> Self {
        let [q, k, v, norm_q, norm_k] = names;
        let width = config.width();
        let project = |name| Linear::new(&weights.pp(name), width, width);
        let norm = |name| RmsNorm::new(&weights.pp(name), config.attention_head_dim, 1e-6);
        Self { q: project(q), k: project(k), v: project(v), norm_q: norm(norm_q), norm_k: norm(norm_k) }
    }

    /// x (B, N, D) → three of (B, N, D)
    pub fn forward(&self, x: &Tensor, adapters: &RowAdapters) -> Result<Projected> {
        Ok(Projected {
            q: self.norm_q.forward_heads(&self.q.adapted(x, adapters)?)?,
            k: self.norm_k.forward_heads(&self.k.adapted(x, adapters)?)?,
            v: self.v.adapted(x, adapters)?,
        })
    }
}

impl Projected {
    /// The tokens of `self`, and then the tokens of `next`.
    pub fn then(self, next: &Projected) -> Result<Projected> {
        Ok(Projected { q: after(&self.q, &next.q)?, k: after(&self.k, &next.k)?, v: after(&self.v, &next.v)? })
    }

    /// Attention of all tokens to all tokens, (B, N, D).
    pub async fn attended(self, kernels: Kernels, heads: usize, rotary: &Rotary) -> Result<Tensor> {
        let (q, k) = (rotary.rotated(kernels, &self.q)?, rotary.rotated(kernels, &self.k)?);
        attention(kernels, &q, &k, &self.v, heads).await
    }
}
