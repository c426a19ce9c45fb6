//! The transformer of Wan 2.1 and 2.2 (diffusers' `WanTransformer3DModel`; Wan Team 2025, arXiv:2503.20314): all
//! patches of a film attend to each other, to the text and, in some models, to a picture.

mod attention;
mod block;
mod configuration;
mod embeddings;
mod patches;
mod positions;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use block::Block;
pub use configuration::WanTransformer3DConfig;
use embeddings::ConditionEmbedder;
pub use patches::PATCH;
use patches::PatchEmbedding;
use positions::Rotary;

use super::{
    layers::{Linear, ModulatedNorm},
    pause::pause,
};
use crate::{device::Precision, weights::Weights};

/// Predicts the velocity of the noisy latents of films.
#[derive(Debug)]
pub struct WanTransformer3DModel {
    patch_embedding: PatchEmbedding,
    condition_embedder: ConditionEmbedder,
    blocks: Vec<Block>,
    norm_out: ModulatedNorm,
    /// Added to the embedding of the time, for the shift and the scale of `norm_out`: (1, 2, D).
    scale_shift_table: Tensor,
    proj_out: Linear,
    config: WanTransformer3DConfig,
}

/// The conditions of the B rows of a batch.
#[derive(Clone, Copy, Debug)]
pub struct WanConditions<'a> {
    /// Times from 0 (film) to 1000 (noise): one for each row, (B), or one for each latent frame of each row, (B · F).
    pub t: &'a [f32],
    /// The states of the text encoder, (B, L, T). Zeros after the tokens of the prompt have an effect, too.
    pub text: &'a Tensor,
    /// The states of a picture's tokens, (B, M, P), for networks with `image_dim` and `added_kv_proj_dim`.
    pub picture: Option<&'a Tensor>,
}

impl WanTransformer3DModel {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &WanTransformer3DConfig, weights: &Weights) -> Self {
        let (width, blocks) = (config.width(), weights.pp("blocks"));
        let outputs = config.out_channels * PATCH * PATCH;
        Self {
            patch_embedding: PatchEmbedding::new(&weights.pp("patch_embedding"), config.in_channels, width),
            condition_embedder: ConditionEmbedder::new(&weights.pp("condition_embedder"), config),
            blocks: (0..config.num_layers).into_par_iter().map(|i| Block::new(&blocks.pp(i), config)).collect(),
            norm_out: ModulatedNorm::new(weights, config.eps),
            scale_shift_table: weights.in_precision(Precision::F32).tensor("scale_shift_table", &[1, 2, width]),
            proj_out: Linear::new(&weights.pp("proj_out"), width, outputs),
            config: config.clone(),
        }
    }

    /// x (B, C, F, h, w), where h and w are even → (B, C_out, F, h, w)
    pub async fn forward(&self, x: &Tensor, conditions: WanConditions<'_>) -> Result<Tensor> {
        let WanConditions { t, text, picture } = conditions;
        let (b, _, f, h, w) = x.dims5()?;
        let has_times = t.len() == b || t.len() == b * f;
        if !has_times || text.dim(0)? != b || picture.is_some() != self.config.image_dim.is_some() {
            candle_core::bail!("{:?} latents, {} times, {:?} texts", x.shape(), t.len(), text.shape());
        }
        let grid = [f, h / PATCH, w / PATCH];
        let rotary = Rotary::new(grid, self.config.attention_head_dim, x.device())?;
        let mut x = self.patch_embedding.forward(x)?;
        let embedded = self.condition_embedder.forward(t, text, picture)?;
        for block in &self.blocks {
            x = block.forward(x, &embedded, &rotary).await?;
        }
        pause().await;
        let modulation = embedded.time.broadcast_add(&self.scale_shift_table)?; // (G, 2, D)
        let [shift, scale] = [0, 1].map(|i| modulation.narrow(1, i, 1).and_then(|part| part.contiguous()));
        // One line of modulations for all patches that share a time.
        let (_, n, width) = x.dims3()?;
        let x = x.reshape((t.len(), b * n / t.len().max(1), width))?;
        let x = self.proj_out.forward(&self.norm_out.forward(&x, &shift?, &scale?)?)?;
        patches::joined(&x.reshape((b, n, ()))?, grid)
    }
}
