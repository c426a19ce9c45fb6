//! The attention of a joint block: of the picture to the picture and the prompt, or to the picture alone.

use candle_core::{Result, Tensor};

use super::{EPS, Sd3Transformer2DConfig};
use crate::{
    kernels::{Kernels, maps::after},
    models::{
        adapters::RowAdapters,
        attention::attention,
        layers::{Linear, RmsNorm},
    },
    weights::Weights,
};

/// Queries, keys and values of one stream, with norms of the heads in Stable Diffusion 3.5.
#[derive(Debug)]
struct Projections {
    q: Linear,
    k: Linear,
    v: Linear,
    norm_q: Option<RmsNorm>,
    norm_k: Option<RmsNorm>,
}

impl Projections {
    /// `names` are the names of the layers of queries, keys and values, and of the norms of queries and keys.
    fn new(weights: &Weights, config: &Sd3Transformer2DConfig, names: [&str; 5]) -> Self {
        let width = config.width();
        let [q, k, v] = [names[0], names[1], names[2]].map(|name| Linear::new(&weights.pp(name), width, width));
        let norm = |name: &str| RmsNorm::new(&weights.pp(name), config.attention_head_dim, EPS);
        let [norm_q, norm_k] = [names[3], names[4]].map(|name| config.qk_norm.map(|_| norm(name)));
        Self { q, k, v, norm_q, norm_k }
    }

    fn of_picture(weights: &Weights, config: &Sd3Transformer2DConfig) -> Self {
        Self::new(weights, config, ["to_q", "to_k", "to_v", "norm_q", "norm_k"])
    }

    fn of_prompt(weights: &Weights, config: &Sd3Transformer2DConfig) -> Self {
        let names = ["add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"];
        Self::new(weights, config, names)
    }

    fn queries(&self, x: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        normed(self.norm_q.as_ref(), self.q.adapted(x, adapters)?)
    }

    fn keys(&self, x: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        normed(self.norm_k.as_ref(), self.k.adapted(x, adapters)?)
    }

    fn values(&self, x: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        self.v.adapted(x, adapters)
    }
}

/// x (B, N, H·d), with each head normalized if there is a norm.
fn normed(norm: Option<&RmsNorm>, x: Tensor) -> Result<Tensor> {
    norm.map_or(Ok(x.clone()), |norm| norm.forward_heads(&x))
}

/// diffusers' `Attention` with `JointAttnProcessor2_0`: picture and prompt attend to both.
#[derive(Debug)]
pub(super) struct JointAttention {
    picture: Projections,
    prompt: Projections,
    to_out: Linear,
    /// Absent in the last block, because no later layer reads the prompt's tokens.
    to_add_out: Option<Linear>,
    heads: usize,
    kernels: Kernels,
}

impl JointAttention {
    pub fn new(weights: &Weights, config: &Sd3Transformer2DConfig, is_last: bool) -> Self {
        let out = |name| Linear::new(&weights.pp(name), config.width(), config.width());
        Self {
            picture: Projections::of_picture(weights, config),
            prompt: Projections::of_prompt(weights, config),
            to_out: out("to_out.0"),
            to_add_out: (!is_last).then(|| out("to_add_out")),
            heads: config.num_attention_heads,
            kernels: weights.kernels(),
        }
    }

    /// x (B, N, D), context (B, L, D) → (B, N, D) and, except in the last block, (B, L, D)
    pub async fn forward(
        &self,
        x: &Tensor,
        context: &Tensor,
        adapters: &RowAdapters,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let k = after(&self.picture.keys(x, adapters)?, &self.prompt.keys(context, adapters)?)?;
        let v = after(&self.picture.values(x, adapters)?, &self.prompt.values(context, adapters)?)?;
        let q = self.picture.queries(x, adapters)?;
        let Some(to_add_out) = &self.to_add_out else {
            let attended = attention(self.kernels, &q, &k, &v, self.heads).await?;
            return Ok((self.to_out.adapted(&attended, adapters)?, None));
        };
        let q = after(&q, &self.prompt.queries(context, adapters)?)?;
        let attended = attention(self.kernels, &q, &k, &v, self.heads).await?;
        let (n, l) = (x.dim(1)?, context.dim(1)?);
        let (x, context) = (attended.narrow(1, 0, n)?.contiguous()?, attended.narrow(1, n, l)?.contiguous()?);
        Ok((self.to_out.adapted(&x, adapters)?, Some(to_add_out.adapted(&context, adapters)?)))
    }
}

/// The second attention of a block with dual attention: the picture attends to itself.
#[derive(Debug)]
pub(super) struct PictureAttention {
    picture: Projections,
    to_out: Linear,
    heads: usize,
    kernels: Kernels,
}

impl PictureAttention {
    pub fn new(weights: &Weights, config: &Sd3Transformer2DConfig) -> Self {
        Self {
            picture: Projections::of_picture(weights, config),
            to_out: Linear::new(&weights.pp("to_out.0"), config.width(), config.width()),
            heads: config.num_attention_heads,
            kernels: weights.kernels(),
        }
    }

    /// (B, N, D) → (B, N, D)
    pub async fn forward(&self, x: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        let of = &self.picture;
        let (q, k, v) = (of.queries(x, adapters)?, of.keys(x, adapters)?, of.values(x, adapters)?);
        self.to_out.adapted(&attention(self.kernels, &q, &k, &v, self.heads).await?, adapters)
    }
}
