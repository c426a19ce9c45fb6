//! One block of the transformer.

use candle_core::{Result, Tensor};

use super::{
    EPS, Sd3Transformer2DConfig,
    attention::{JointAttention, PictureAttention},
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

/// diffusers' `JointTransformerBlock`: attention between picture and prompt, and a feed-forward layer for each, all
/// modulated and gated by the embedding of time and prompt (adaLN-Zero).
#[derive(Debug)]
pub(super) struct JointBlock {
    norm1: Linear,
    norm1_context: Linear,
    attn: JointAttention,
    attn2: Option<PictureAttention>,
    ff: FeedForward,
    /// Absent in the last block.
    ff_context: Option<FeedForward>,
    norm: ModulatedNorm,
    kernels: Kernels,
}

impl JointBlock {
    pub fn new(weights: &Weights, config: &Sd3Transformer2DConfig, index: usize) -> Self {
        let width = config.width();
        let (is_last, is_dual) = (index + 1 == config.num_layers, config.dual_attention_layers.contains(&index));
        let modulation = |name, parts| Linear::new(&weights.pp(name), width, parts * width);
        Self {
            norm1: modulation("norm1.linear", if is_dual { 9 } else { 6 }),
            norm1_context: modulation("norm1_context.linear", if is_last { 2 } else { 6 }),
            attn: JointAttention::new(&weights.pp("attn"), config, is_last),
            attn2: is_dual.then(|| PictureAttention::new(&weights.pp("attn2"), config)),
            ff: FeedForward::new(&weights.pp("ff"), width),
            ff_context: (!is_last).then(|| FeedForward::new(&weights.pp("ff_context"), width)),
            norm: ModulatedNorm::new(weights, EPS),
            kernels: weights.kernels(),
        }
    }

    /// x (B, N, D), context (B, L, D), and the embedding of time and prompt after SiLU, (B, D) → x and context. The
    /// last block returns its context unchanged.
    pub async fn forward(
        &self,
        x: Tensor,
        context: Tensor,
        embedded: &Tensor,
        adapters: &RowAdapters,
    ) -> Result<(Tensor, Tensor)> {
        let modulation = self.norm1.adapted(embedded, adapters)?;
        let (of_attention, of_second) = match &self.attn2 {
            Some(attn2) => {
                let width = x.dim(2)?;
                let of_second = modulations::<3>(&modulation.narrow(1, 6 * width, 3 * width)?)?;
                (modulation.narrow(1, 0, 6 * width)?, Some((attn2, of_second)))
            }
            None => (modulation, None),
        };
        let [shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp] = modulations(&of_attention)?;
        let of_context = ContextModulation::of(&self.norm1_context.adapted(embedded, adapters)?, x.dim(2)?)?;

        let normed = self.norm.forward(&x, &shift_msa, &scale_msa)?;
        let normed_context = self.norm.forward(&context, &of_context.shift, &of_context.scale)?;
        let (attended, attended_context) = self.attn.forward(&normed, &normed_context, adapters).await?;
        let before = x;
        let mut x = self.kernels.gated_sum(&before, &attended, &gate_msa)?;
        if let Some((attn2, [shift, scale, gate])) = of_second {
            let attended = attn2.forward(&self.norm.forward(&before, &shift, &scale)?, adapters).await?;
            x = self.kernels.gated_sum(&x, &attended, &gate)?;
        }
        pause().await;
        let normed = self.norm.forward(&x, &shift_mlp, &scale_mlp)?;
        let x = self.kernels.gated_sum(&x, &self.ff.forward(&normed, adapters)?, &gate_mlp)?;

        let (Some(attended), Some(ff), Some([gate, shift_mlp, scale_mlp, gate_mlp])) =
            (attended_context, &self.ff_context, of_context.rest)
        else {
            return Ok((x, context));
        };
        let context = self.kernels.gated_sum(&context, &attended, &gate)?;
        let normed = self.norm.forward(&context, &shift_mlp, &scale_mlp)?;
        let context = self.kernels.gated_sum(&context, &ff.forward(&normed, adapters)?, &gate_mlp)?;
        Ok((x, context))
    }
}

/// The modulation of the prompt's tokens. Each part is (B, 1, D).
struct ContextModulation {
    shift: Tensor,
    scale: Tensor,
    /// Gate of the attention; shift, scale and gate of the feed-forward layer. Absent in the last block.
    rest: Option<[Tensor; 4]>,
}

impl ContextModulation {
    /// Splits (B, 2·D), whose order is scale and shift, or (B, 6·D), whose order is shift, scale and the rest.
    fn of(modulation: &Tensor, width: usize) -> Result<ContextModulation> {
        if modulation.dim(1)? == 2 * width {
            let [scale, shift] = modulations(modulation)?;
            return Ok(ContextModulation { shift, scale, rest: None });
        }
        let [shift, scale, gate, shift_mlp, scale_mlp, gate_mlp] = modulations(modulation)?;
        Ok(ContextModulation { shift, scale, rest: Some([gate, shift_mlp, scale_mlp, gate_mlp]) })
    }
}

/// diffusers' `FeedForward` with the activation `gelu-approximate`.
#[derive(Debug)]
struct FeedForward {
    proj: Linear,
    out: Linear,
    kernels: Kernels,
}

impl FeedForward {
    fn new(weights: &Weights, width: usize) -> Self {
        let (proj, out) = (weights.pp("net.0.proj"), weights.pp("net.2"));
        Self {
            proj: Linear::new(&proj, width, 4 * width),
            out: Linear::new(&out, 4 * width, width),
            kernels: weights.kernels(),
        }
    }

    /// (B, N, D) → (B, N, D)
    fn forward(&self, x: &Tensor, adapters: &RowAdapters) -> Result<Tensor> {
        self.out.adapted(&self.proj.adapted_gelu(x, adapters, self.kernels)?, adapters)
    }
}
