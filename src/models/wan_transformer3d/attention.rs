//! The attention of Wan: queries and keys are normalized over all heads together.

use candle_core::{Result, Tensor};

use super::{WanTransformer3DConfig, embeddings::Embedded, positions::Rotary};
use crate::{
    kernels::Kernels,
    models::{
        attention::attention,
        layers::{Linear, RmsNorm},
    },
    weights::Weights,
};

/// The layers of diffusers' `WanAttention`, without the last projection.
#[derive(Debug)]
pub(super) struct Attention {
    to_q: Linear,
    norm_q: RmsNorm,
    context: Context,
    /// For the tokens of a picture.
    added: Option<Context>,
    heads: usize,
    kernels: Kernels,
}

/// The projections to keys and values.
#[derive(Debug)]
struct Context {
    to_k: Linear,
    to_v: Linear,
    norm_k: RmsNorm,
}

impl Context {
    /// `names` are the names of the layers of keys and values, and of the norm of keys.
    fn new(weights: &Weights, config: &WanTransformer3DConfig, inputs: usize, names: [&str; 3]) -> Self {
        let ([k, v, norm], width) = (names.map(|name| weights.pp(name)), config.width());
        Self {
            to_k: Linear::new(&k, inputs, width),
            to_v: Linear::new(&v, inputs, width),
            norm_k: RmsNorm::new(&norm, width, config.eps),
        }
    }

    /// x (B, M, in) → keys and values, each (B, M, D)
    fn forward(&self, x: &Tensor) -> Result<[Tensor; 2]> {
        Ok([self.norm_k.forward(&self.to_k.forward(x)?)?, self.to_v.forward(x)?])
    }
}

impl Attention {
    /// The attention of all patches to each other.
    pub fn to_itself(weights: &Weights, config: &WanTransformer3DConfig) -> Self {
        let width = config.width();
        Self {
            to_q: Linear::new(&weights.pp("to_q"), width, width),
            norm_q: RmsNorm::new(&weights.pp("norm_q"), width, config.eps),
            context: Context::new(weights, config, width, ["to_k", "to_v", "norm_k"]),
            added: None,
            heads: config.num_attention_heads,
            kernels: weights.kernels(),
        }
    }

    /// The attention of the patches to the text and, if the network has layers for it, to a picture.
    pub fn to_conditions(weights: &Weights, config: &WanTransformer3DConfig) -> Self {
        // Some files have a norm of the queries, which diffusers does not use either.
        weights.leave("norm_added_q.");
        let names = ["add_k_proj", "add_v_proj", "norm_added_k"];
        let added = config.added_kv_proj_dim.map(|inputs| Context::new(weights, config, inputs, names));
        Self { added, ..Self::to_itself(weights, config) }
    }

    /// x (B, N, D) → (B, N, D)
    pub async fn attend(&self, x: &Tensor, rotary: &Rotary) -> Result<Tensor> {
        let q = rotary.rotated(self.kernels, &self.norm_q.forward(&self.to_q.forward(x)?)?)?;
        let [k, v] = self.context.forward(x)?;
        let k = rotary.rotated(self.kernels, &k)?;
        attention(self.kernels, &q, &k, &v, self.heads).await
    }

    /// x (B, N, D) → (B, N, D)
    pub async fn attend_to(&self, x: &Tensor, conditions: &Embedded) -> Result<Tensor> {
        let q = self.norm_q.forward(&self.to_q.forward(x)?)?;
        let [k, v] = self.context.forward(&conditions.text)?;
        let to_text = attention(self.kernels, &q, &k, &v, self.heads).await?;
        match (&self.added, &conditions.picture) {
            (Some(added), Some(picture)) => {
                let [k, v] = added.forward(picture)?;
                to_text + attention(self.kernels, &q, &k, &v, self.heads).await?
            }
            _ => Ok(to_text),
        }
    }
}
