//! The blocks of the transformer.

use candle_core::{DType, Result, Tensor};

use super::{Angles, Flux2Transformer2DConfig};
use crate::{
    kernels::{
        Kernels,
        maps::{after, beside},
        rotary::Pairs,
    },
    models::{
        adapters::RowAdapters,
        attention::attention,
        layers::{Linear, ModulatedNorm, RmsNorm},
        pause::pause,
    },
    weights::Weights,
};

/// Shift, scale and gate, (B, 1, D) each.
pub(super) type Modulation = [Tensor; 3];

/// The modules that several layers share.
const QKV_MLP: &str = "to_qkv_mlp_proj";
const LINEAR_IN: &str = "linear_in";

/// The numbers of outputs of the layers that share a module; `None` for modules that are one layer.
pub(super) fn shared(config: &Flux2Transformer2DConfig, module: &str) -> Option<Vec<usize>> {
    let (d, inner) = (config.width(), config.inner());
    match module.rsplit('.').next()? {
        QKV_MLP => Some(vec![d, d, d, inner, inner]),
        LINEAR_IN => Some(vec![inner; 2]),
        _ => None,
    }
}

/// diffusers' `Flux2TransformerBlock`: picture and text have weights of their own and attend to each other.
#[derive(Debug)]
pub(super) struct DoubleBlock {
    picture: Stream,
    text: Stream,
    heads: usize,
    kernels: Kernels,
}

/// The layers of one of the two streams.
#[derive(Debug)]
struct Stream {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm_q: RmsNorm,
    norm_k: RmsNorm,
    linear_in: [Linear; 2],
    linear_out: Linear,
    norm: ModulatedNorm,
    kernels: Kernels,
}

/// diffusers' `Flux2SingleTransformerBlock`: attention and feed-forward side by side, for all tokens.
#[derive(Debug)]
pub(super) struct SingleBlock {
    /// Queries, keys, values, and the two halves of the feed-forward part.
    qkv_mlp: Vec<Linear>,
    to_out: Linear,
    norm_q: RmsNorm,
    norm_k: RmsNorm,
    norm: ModulatedNorm,
    heads: usize,
    kernels: Kernels,
}

impl DoubleBlock {
    pub fn new(weights: &Weights, config: &Flux2Transformer2DConfig) -> Self {
        let picture = ["to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k"];
        let text = ["add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm_added_q", "norm_added_k"];
        Self {
            picture: Stream::new(weights, config, picture, "ff"),
            text: Stream::new(weights, config, text, "ff_context"),
            heads: config.num_attention_heads,
            kernels: weights.kernels(),
        }
    }

    /// Picture (B, N, D), text (B, L, D), angles of the text and then of the picture → picture and text. Each stream
    /// has two modulations: of attention and of the feed-forward part.
    pub async fn forward(
        &self,
        (picture, text): (Tensor, Tensor),
        angles: &Angles,
        [of_picture, of_text]: [&[Modulation; 2]; 2],
        adapters: &RowAdapters,
    ) -> Result<(Tensor, Tensor)> {
        let length = text.dim(1)?;
        let [of_text_q, of_text_k, of_text_v] = self.text.projections(&text, &of_text[0], adapters)?;
        let [q, k, v] = self.picture.projections(&picture, &of_picture[0], adapters)?;
        let (cos, sin) = angles;
        let q = self.kernels.rotary(&after(&of_text_q, &q)?, cos, sin, Pairs::Neighbors)?;
        let k = self.kernels.rotary(&after(&of_text_k, &k)?, cos, sin, Pairs::Neighbors)?;
        let v = after(&of_text_v, &v)?;
        let attended = attention(self.kernels, &q, &k, &v, self.heads).await?;
        let part = |first, count| attended.narrow(1, first, count)?.contiguous();
        let places = picture.dim(1)?;
        let picture = self.picture.rest(picture, &part(length, places)?, of_picture, adapters).await?;
        let text = self.text.rest(text, &part(0, length)?, of_text, adapters).await?;
        Ok((picture, text))
    }
}

impl Stream {
    fn new(weights: &Weights, config: &Flux2Transformer2DConfig, names: [&str; 6], feed: &str) -> Self {
        let (d, inner, attn, feed) = (config.width(), config.inner(), weights.pp("attn"), weights.pp(feed));
        let [q, k, v, out, norm_q, norm_k] = names;
        let square = |name| Linear::without_bias(&attn.pp(name), d, d);
        let norm = |name| RmsNorm::new(&attn.pp(name), config.attention_head_dim, config.eps);
        Self {
            q: square(q),
            k: square(k),
            v: square(v),
            out: square(out),
            norm_q: norm(norm_q),
            norm_k: norm(norm_k),
            linear_in: Linear::split(&feed.pp(LINEAR_IN), d, [inner; 2]),
            linear_out: Linear::without_bias(&feed.pp("linear_out"), inner, d),
            norm: ModulatedNorm::new(weights, config.eps),
            kernels: weights.kernels(),
        }
    }

    /// Queries, keys and values.
    fn projections(&self, x: &Tensor, [shift, scale, _]: &Modulation, adapters: &RowAdapters) -> Result<[Tensor; 3]> {
        let normed = self.norm.forward(x, shift, scale)?;
        let q = self.norm_q.forward_heads(&self.q.adapted(&normed, adapters)?)?;
        let k = self.norm_k.forward_heads(&self.k.adapted(&normed, adapters)?)?;
        Ok([q, k, self.v.adapted(&normed, adapters)?])
    }

    /// Adds the result of the attention, and then the feed-forward part.
    async fn rest(
        &self,
        x: Tensor,
        attended: &Tensor,
        [of_attention, of_feed]: &[Modulation; 2],
        adapters: &RowAdapters,
    ) -> Result<Tensor> {
        let out = self.out.adapted(attended, adapters)?.to_dtype(DType::F32)?;
        let x = self.kernels.gated_sum(&x, &out, &of_attention[2])?;
        pause().await;
        let [shift, scale, gate] = of_feed;
        let normed = self.norm.forward(&x, shift, scale)?;
        let [first, second] = &self.linear_in;
        let (gates, values) = (first.adapted(&normed, adapters)?, second.adapted(&normed, adapters)?);
        let inner = self.kernels.gated_silu(&gates, &values)?;
        drop((gates, values));
        self.kernels.gated_sum(&x, &self.linear_out.adapted(&inner, adapters)?.to_dtype(DType::F32)?, gate)
    }
}

impl SingleBlock {
    pub fn new(weights: &Weights, config: &Flux2Transformer2DConfig) -> Self {
        let (d, inner, attn) = (config.width(), config.inner(), weights.pp("attn"));
        let norm = |name| RmsNorm::new(&attn.pp(name), config.attention_head_dim, config.eps);
        Self {
            qkv_mlp: Vec::from(Linear::split(&attn.pp(QKV_MLP), d, [d, d, d, inner, inner])),
            to_out: Linear::without_bias(&attn.pp("to_out"), d + inner, d),
            norm_q: norm("norm_q"),
            norm_k: norm("norm_k"),
            norm: ModulatedNorm::new(weights, config.eps),
            heads: config.num_attention_heads,
            kernels: weights.kernels(),
        }
    }

    /// x (B, N, D) → (B, N, D)
    pub async fn forward(
        &self,
        x: &Tensor,
        (cos, sin): &Angles,
        [shift, scale, gate]: &Modulation,
        adapters: &RowAdapters,
    ) -> Result<Tensor> {
        let normed = self.norm.forward(x, shift, scale)?;
        let [q, k, v, first, second] = &self.qkv_mlp[..] else { candle_core::bail!("a block without its layers") };
        let rotated = |x: Tensor| self.kernels.rotary(&x, cos, sin, Pairs::Neighbors);
        let q = rotated(self.norm_q.forward_heads(&q.adapted(&normed, adapters)?)?)?;
        let k = rotated(self.norm_k.forward_heads(&k.adapted(&normed, adapters)?)?)?;
        let attended = attention(self.kernels, &q, &k, &v.adapted(&normed, adapters)?, self.heads).await?;
        pause().await;
        let (gates, values) = (first.adapted(&normed, adapters)?, second.adapted(&normed, adapters)?);
        let inner = self.kernels.gated_silu(&gates, &values)?;
        drop((gates, values));
        let out = self.to_out.adapted(&beside(&attended, &inner)?, adapters)?.to_dtype(DType::F32)?;
        self.kernels.gated_sum(x, &out, gate)
    }
}
