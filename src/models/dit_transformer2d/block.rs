//! One block of the diffusion transformer.

use candle_core::{DType, Result, Tensor};

use super::DiTTransformer2DConfig;
use crate::{
    kernels::Kernels,
    models::{
        adapters::RowAdapters,
        attention::attention,
        layers::{Linear, ModulatedNorm, modulations},
        pause::pause,
        time_embedding::{Sinusoids, TimestepEmbedding},
    },
    weights::Weights,
};

/// Number of sines and cosines of a timestep.
pub(super) const TIME_WIDTH: usize = 256;

/// diffusers' `BasicTransformerBlock` with `norm_type = "ada_norm_zero"`: attention and feed-forward, each modulated
/// and gated by the embedding of time and class (adaLN-Zero).
#[derive(Debug)]
pub(super) struct Block {
    timestep_embedder: TimestepEmbedding,
    /// One vector for each of K classes, and one for no class: (K + 1, D).
    embedding_table: Tensor,
    linear: Linear,
    norm1: ModulatedNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    norm3: ModulatedNorm,
    ff_in: Linear,
    ff_out: Linear,
    heads: usize,
    kernels: Kernels,
}

impl Block {
    pub fn new(weights: &Weights, config: &DiTTransformer2DConfig) -> Result<Self> {
        let width = config.width();
        let (norm1, emb, attn) = (weights.pp("norm1"), weights.pp("norm1.emb"), weights.pp("attn1"));
        let project = if config.attention_bias { Linear::new } else { Linear::without_bias };
        Ok(Self {
            timestep_embedder: TimestepEmbedding::new(&emb.pp("timestep_embedder"), TIME_WIDTH, None, width),
            embedding_table: emb
                .pp("class_embedder.embedding_table")
                .tensor("weight", &[config.num_embeds_ada_norm + 1, width]),
            linear: Linear::new(&norm1.pp("linear"), width, 6 * width),
            norm1: ModulatedNorm::new(weights, 1e-6),
            to_q: project(&attn.pp("to_q"), width, width),
            to_k: project(&attn.pp("to_k"), width, width),
            to_v: project(&attn.pp("to_v"), width, width),
            to_out: Linear::new(&attn.pp("to_out.0"), width, width),
            norm3: ModulatedNorm::new(weights, config.norm_eps),
            ff_in: Linear::new(&weights.pp("ff.net.0.proj"), width, 4 * width),
            ff_out: Linear::new(&weights.pp("ff.net.2"), 4 * width, width),
            heads: config.num_attention_heads,
            kernels: weights.kernels(),
        })
    }

    /// x (B, N, D) → (B, N, D)
    pub async fn forward(&self, x: Tensor, t: &[f32], labels: &[u32]) -> Result<Tensor> {
        let kernels = self.kernels;
        let modulation = self.linear.forward(&kernels.silu(&self.embedding(t, labels)?)?)?;
        let [shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp] = modulations(&modulation)?;
        let normed = self.norm1.forward(&x, &shift_msa, &scale_msa)?;
        let (q, k, v) = (self.to_q.forward(&normed)?, self.to_k.forward(&normed)?, self.to_v.forward(&normed)?);
        let attended = self.to_out.forward(&attention(kernels, &q, &k, &v, self.heads).await?)?;
        let x = kernels.gated_sum(&x, &attended, &gate_msa)?;
        pause().await;
        let normed = self.norm3.forward(&x, &shift_mlp, &scale_mlp)?;
        let fed = self.ff_out.forward(&kernels.gelu_tanh(&self.ff_in.forward(&normed)?)?)?;
        kernels.gated_sum(&x, &fed, &gate_mlp)
    }

    /// The sum of the embeddings of time and class, (B, D).
    pub fn embedding(&self, t: &[f32], labels: &[u32]) -> Result<Tensor> {
        let device = self.embedding_table.device();
        let sinusoids = Sinusoids { width: TIME_WIDTH, flip_sin_to_cos: true, freq_shift: 1.0 };
        let times = sinusoids.forward(t, t.len(), device)?;
        let labels = Tensor::new(labels, device)?.to_dtype(DType::U32)?;
        self.timestep_embedder.forward(&times, None, RowAdapters::NONE)?
            + self.embedding_table.contiguous()?.index_select(&labels, 0)?
    }
}
