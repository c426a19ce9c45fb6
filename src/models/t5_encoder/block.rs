//! One block of T5's encoder: attention and a feed-forward layer.

use candle_core::{DType, Result, Tensor};

use super::{FeedForward, T5Config};
use crate::{
    device::Precision,
    kernels::{Kernels, attention::Scores, geglu::Gate},
    models::{
        layers::{GatedLinear, Linear, RmsNorm},
        pause::pause,
    },
    weights::Weights,
};

/// transformers' `T5Block` of an encoder. The states between the layers are float32, because the states of T5 XXL
/// exceed float16.
#[derive(Debug)]
pub(super) struct Block {
    self_attention: SelfAttention,
    feed_forward: FeedForwardLayer,
}

impl Block {
    pub fn new(weights: &Weights, config: &T5Config) -> Self {
        Self {
            self_attention: SelfAttention::new(&weights.pp("layer.0"), config),
            feed_forward: FeedForwardLayer::new(&weights.pp("layer.1"), config),
        }
    }

    /// x (B, L, D), bias (H, L, L) → (B, L, D); `tokens` is as for [`super::T5EncoderModel::forward`].
    pub async fn forward(&self, x: Tensor, bias: Option<&Tensor>, tokens: Option<&[usize]>) -> Result<Tensor> {
        pause().await;
        let x = self.self_attention.forward(&x, bias, tokens)?;
        pause().await;
        self.feed_forward.forward(&x)
    }
}

#[derive(Debug)]
struct SelfAttention {
    layer_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    heads: usize,
    kernels: Kernels,
}

impl SelfAttention {
    fn new(weights: &Weights, config: &T5Config) -> Self {
        let (width, inner, attention) = (config.d_model, config.inner(), weights.pp("SelfAttention"));
        Self {
            layer_norm: RmsNorm::new(&weights.pp("layer_norm"), width, config.layer_norm_epsilon),
            q: Linear::without_bias(&attention.pp("q"), width, inner),
            k: Linear::without_bias(&attention.pp("k"), width, inner),
            v: Linear::without_bias(&attention.pp("v"), width, inner),
            o: Linear::without_bias(&attention.pp("o"), inner, width),
            heads: config.num_heads,
            kernels: weights.kernels(),
        }
    }

    fn forward(&self, x: &Tensor, bias: Option<&Tensor>, tokens: Option<&[usize]>) -> Result<Tensor> {
        let normed = self.layer_norm.forward(x)?;
        let (q, k, v) = (self.q.forward(&normed)?, self.k.forward(&normed)?, self.v.forward(&normed)?);
        // The scores are not divided by √d.
        let scores = Scores { scale: Some(1.0), bias, keys: tokens, ..Scores::default() };
        sum(self.kernels, x, &self.kernels.scored_attention(&q, &k, &v, self.heads, scores)?, &self.o)
    }
}

#[derive(Debug)]
struct FeedForwardLayer {
    layer_norm: RmsNorm,
    wi: Inner,
    wo: Linear,
    kernels: Kernels,
}

#[derive(Debug)]
enum Inner {
    Relu(Linear),
    Gated(GatedLinear),
}

impl FeedForwardLayer {
    fn new(weights: &Weights, config: &T5Config) -> Self {
        let (width, inner, dense) = (config.d_model, config.d_ff, weights.pp("DenseReluDense"));
        let wi = match config.feed_forward_proj {
            FeedForward::Relu => Inner::Relu(Linear::without_bias(&dense.pp("wi"), width, inner)),
            FeedForward::GatedGelu => {
                Inner::Gated(GatedLinear::new(Gate::GeluTanh, [dense.pp("wi_0"), dense.pp("wi_1")], width, inner))
            }
        };
        // The products of this matrix exceed float16. transformers keeps it in float32, too.
        let wo = match weights.precision() {
            Precision::F16 => dense.in_precision(Precision::F32).pp("wo"),
            Precision::F32 | Precision::Bf16 => dense.pp("wo"),
        };
        Self {
            layer_norm: RmsNorm::new(&weights.pp("layer_norm"), width, config.layer_norm_epsilon),
            wi,
            wo: Linear::without_bias(&wo, inner, width),
            kernels: weights.kernels(),
        }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let normed = self.layer_norm.forward(x)?;
        let inner = match &self.wi {
            Inner::Relu(wi) => wi.forward(&normed)?.relu()?,
            Inner::Gated(gated) => gated.forward(&normed)?,
        };
        sum(self.kernels, x, &inner, &self.wo)
    }
}

/// x + the layer's output for y, in float32.
fn sum(kernels: Kernels, x: &Tensor, y: &Tensor, layer: &Linear) -> Result<Tensor> {
    match kernels {
        Kernels::Packed(_) => layer.forward_with(y, x),
        Kernels::Reference(_) => x + layer.forward(y)?.to_dtype(DType::F32)?,
    }
}
