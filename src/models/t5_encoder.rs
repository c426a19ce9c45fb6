//! The text encoder of Stable Diffusion 3, FLUX.1 and PixArt (transformers' `T5EncoderModel`; Raffel et al. 2020,
//! arXiv:1910.10683; version 1.1: Shazeer 2020, arXiv:2002.05202), and the text encoder of Wan (`UMT5EncoderModel`;
//! Chung et al. 2023, arXiv:2304.09151).

mod block;
mod configuration;
mod positions;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use block::Block;
pub use configuration::{FeedForward, T5Config, T5Kind};
use positions::Positions;

use super::{embedding::Embedding, layers::RmsNorm};
use crate::weights::Weights;

/// Turns token ids into hidden states. Each token attends to all tokens, with a bias that depends on the distance.
#[derive(Debug)]
pub struct T5EncoderModel {
    shared: Embedding,
    /// The biases of all blocks, which are stored in block 0. In UMT5, each block stores biases of its own.
    relative_attention_bias: Vec<Positions>,
    block: Vec<Block>,
    final_layer_norm: RmsNorm,
}

impl T5EncoderModel {
    /// Builds the network. The token embeddings are `shared.weight`, or `encoder.embed_tokens.weight` in files without
    /// `shared.weight`. Tensors of a decoder are ignored. The caller then calls [`Weights::finish`].
    ///
    /// # Errors
    /// The device fails.
    pub fn new(config: &T5Config, weights: &Weights) -> Result<Self> {
        let (encoder, ids, width) = (weights.pp("encoder"), config.vocab_size, config.d_model);
        weights.leave("decoder.");
        let shared = if weights.has_any("shared.weight") {
            weights.leave("encoder.embed_tokens.");
            Embedding::new(weights, "shared.weight", ids, width)
        } else {
            Embedding::new(&encoder, "embed_tokens.weight", ids, width)
        };
        let blocks = encoder.pp("block");
        let biased = match config.model_type {
            T5Kind::T5 => 1,
            T5Kind::Umt5 => config.num_layers,
        };
        let biases = |i: usize| Positions::new(&blocks.pp(i).pp("layer.0.SelfAttention"), config);
        Ok(Self {
            shared,
            relative_attention_bias: (0..biased).map(biases).collect::<Result<_>>()?,
            block: (0..config.num_layers).into_par_iter().map(|i| Block::new(&blocks.pp(i), config)).collect(),
            final_layer_norm: RmsNorm::new(&encoder.pp("final_layer_norm"), config.d_model, config.layer_norm_epsilon),
        })
    }

    /// B rows of L ids → (B, L, D) in float32: transformers' `last_hidden_state`.
    ///
    /// `tokens` is the attention mask: for each row, the number of ids that are not padding, at least 1. With a mask,
    /// the states of padding have no meaning, and the bits of the other states of a row do not depend on the padding.
    /// Without a mask, tokens attend to padding too.
    pub async fn forward(&self, rows: &[&[u32]], tokens: Option<&[usize]>) -> Result<Tensor> {
        let length = rows.first().map_or(0, |row| row.len());
        let ids: Vec<u32> = rows.iter().flat_map(|row| row.iter().copied()).collect();
        if ids.len() != rows.len() * length {
            candle_core::bail!("rows of different lengths");
        }
        let mut x = self.shared.forward(&ids)?.reshape((rows.len(), length, ()))?;
        let mut bias = None;
        for (i, block) in self.block.iter().enumerate() {
            if let Some(positions) = self.relative_attention_bias.get(i) {
                // The biases of the previous block are dropped, so that they take no memory during the next blocks.
                drop(bias.take());
                bias = Some(positions.of(length)?);
            }
            x = block.forward(x, bias.as_ref(), tokens).await?;
        }
        self.final_layer_norm.forward(&x)
    }
}
