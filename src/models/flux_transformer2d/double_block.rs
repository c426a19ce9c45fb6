//! A block with two streams: the patches of the picture and the tokens of the text meet only in the attention.

use candle_core::{Result, Tensor};

use super::{
    FluxTransformer2DConfig,
    attention::{Projected, Projections},
    positions::Rotary,
};
use crate::{
    kernels::Kernels,
    models::{
        adapters::RowAdapters,
        layers::{Linear, ModulatedNorm, modulations},
        pause::pause,
    },
    weights::Weights,
};

/// diffusers' `FluxTransformerBlock`.
#[derive(Debug)]
pub(super) struct DoubleBlock {
    picture: Stream,
    text: Stream,
    heads: usize,
    kernels: Kernels,
}

/// The layers of one stream, each modulated and gated by the embedding of time and prompt (adaLN-Zero of Peebles and
/// Xie 2023, arXiv:2212.09748).
#[derive(Debug)]
struct Stream {
    norm1: ModulatedNorm,
    modulation: Linear,
    projections: Projections,
    to_out: Linear,
    norm2: ModulatedNorm,
    ff_in: Linear,
    ff_out: Linear,
    kernels: Kernels,
}

/// The names of a stream's parts in the block.
struct Names {
    norm1: &'static str,
    projections: [&'static str; 5],
    to_out: &'static str,
    ff: &'static str,
}

const PICTURE: Names = Names {
    norm1: "norm1.linear",
    projections: ["to_q", "to_k", "to_v", "norm_q", "norm_k"],
    to_out: "to_out.0",
    ff: "ff.net",
};

const TEXT: Names = Names {
    norm1: "norm1_context.linear",
    projections: ["add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"],
    to_out: "to_add_out",
    ff: "ff_context.net",
};

impl DoubleBlock {
    pub fn new(weights: &Weights, config: &FluxTransformer2DConfig) -> Self {
        Self {
            picture: Stream::new(weights, config, &PICTURE),
            text: Stream::new(weights, config, &TEXT),
            heads: config.num_attention_heads,
            kernels: weights.kernels(),
        }
    }

    /// x (B, N, D), text (B, L, D), embedding (B, D) after SiLU → x and text
    pub async fn forward(
        &self,
        x: Tensor,
        text: Tensor,
        embedding: &Tensor,
        rotary: &Rotary,
        adapters: &RowAdapters,
    ) -> Result<(Tensor, Tensor)> {
        pause().await;
        let (n, tokens) = (x.dim(1)?, text.dim(1)?);
        let [for_picture, for_text] =
            [self.picture.modulations(embedding, adapters)?, self.text.modulations(embedding, adapters)?];
        let of_picture = self.picture.projected(&x, &for_picture, adapters)?;
        let joint = self.text.projected(&text, &for_text, adapters)?.then(&of_picture)?;
        drop(of_picture);
        let attended = joint.attended(self.kernels, self.heads, rotary).await?;
        let part = |first, count| attended.narrow(1, first, count)?.contiguous();
        pause().await;
        let x = self.picture.finished(x, &part(tokens, n)?, &for_picture, adapters)?;
        pause().await;
        let text = self.text.finished(text, &part(0, tokens)?, &for_text, adapters)?;
        Ok((x, text))
    }
}

/// The shift, the scale and the gate of attention and of the feed-forward layer, each (B, 1, D).
type Modulations = [Tensor; 6];

impl Stream {
    fn new(weights: &Weights, config: &FluxTransformer2DConfig, names: &Names) -> Self {
        let width = config.width();
        let (attn, ff) = (weights.pp("attn"), weights.pp(names.ff));
        Self {
            norm1: ModulatedNorm::new(weights, 1e-6),
            modulation: Linear::new(&weights.pp(names.norm1), width, 6 * width),
            projections: Projections::new(&attn, config, names.projections),
            to_out: Linear::new(&attn.pp(names.to_out), width, width),
            norm2: ModulatedNorm::new(weights, 1e-6),
            ff_in: Linear::new(&ff.pp("0.proj"), width, 4 * width),
            ff_out: Linear::new(&ff.pp("2"), 4 * width, width),
            kernels: weights.kernels(),
        }
    }

    fn modulations(&self, embedding: &Tensor, adapters: &RowAdapters) -> Result<Modulations> {
        modulations(&self.modulation.adapted(embedding, adapters)?)
    }

    fn projected(&self, x: &Tensor, by: &Modulations, adapters: &RowAdapters) -> Result<Projected> {
        let [shift_msa, scale_msa, ..] = by;
        self.projections.forward(&self.norm1.forward(x, shift_msa, scale_msa)?, adapters)
    }

    /// Adds the result of the attention and the feed-forward layer to the stream x (B, N, D).
    fn finished(&self, x: Tensor, attended: &Tensor, by: &Modulations, adapters: &RowAdapters) -> Result<Tensor> {
        let [_, _, gate_msa, shift_mlp, scale_mlp, gate_mlp] = by;
        let x = self.to_out.adapted_gated(attended, [&x, gate_msa], adapters, self.kernels)?;
        let normed = self.norm2.forward(&x, shift_mlp, scale_mlp)?;
        let inner = self.ff_in.adapted_gelu(&normed, adapters, self.kernels)?;
        self.ff_out.adapted_gated(&inner, [&x, gate_mlp], adapters, self.kernels)
    }
}
