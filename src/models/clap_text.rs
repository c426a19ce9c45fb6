//! The text encoder of AudioLDM: RoBERTa with a projection (transformers' `ClapTextModelWithProjection`; Wu et al.
//! 2023, arXiv:2211.06687; Liu et al. 2019, arXiv:1907.11692).

mod configuration;
mod layer;

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

pub use configuration::ClapTextConfig;
use layer::Layer;

use super::{
    embedding::Embedding,
    layers::{LayerNorm, Linear},
    pause::pause,
};
use crate::weights::Weights;

/// Turns token ids into one vector for the whole text.
#[derive(Debug)]
pub struct ClapTextModel {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    pooler: Linear,
    /// `text_projection` of the checkpoint, with a ReLU between the two layers.
    text_projection: [Linear; 2],
}

impl ClapTextModel {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &ClapTextConfig, weights: &Weights) -> Self {
        let (width, outputs) = (config.hidden_size, config.projection_dim);
        let (text, projection) = (weights.pp("text_model"), weights.pp("text_projection"));
        let layers = text.pp("encoder.layer");
        Self {
            embeddings: Embeddings::new(&text.pp("embeddings"), config),
            layers: (0..config.num_hidden_layers).into_par_iter().map(|i| Layer::new(&layers.pp(i), config)).collect(),
            pooler: Linear::new(&text.pp("pooler.dense"), width, width),
            text_projection: [
                Linear::new(&projection.pp("linear1"), width, outputs),
                Linear::new(&projection.pp("linear2"), outputs, outputs),
            ],
        }
    }

    /// Rows of ids of any lengths, at least 1, without padding → (B, P) in float32: transformers' `text_embeds`, scaled
    /// to length 1 as AudioLDM takes them. The bits of a row do not depend on the other rows.
    pub async fn forward(&self, rows: &[&[u32]]) -> Result<Tensor> {
        let first = self.states(rows).await?.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?; // (B, D)
        let pooled = mapped(&self.pooler.forward(&first)?, libm::tanhf)?;
        let [linear1, linear2] = &self.text_projection;
        let projected = linear2.forward(&linear1.forward(&pooled)?.relu()?)?.to_dtype(DType::F32)?;
        normalized(&projected)
    }

    /// Rows of ids as for [`ClapTextModel::forward`] → transformers' `last_hidden_state` (B, L, D), where L is the
    /// length of the longest row. The states after the end of a row have no meaning.
    pub async fn states(&self, rows: &[&[u32]]) -> Result<Tensor> {
        let lengths: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        if lengths.contains(&0) {
            candle_core::bail!("a text without tokens");
        }
        let mut x = self.embeddings.forward(rows)?;
        for layer in &self.layers {
            pause().await;
            x = layer.forward(&x, &lengths)?;
        }
        Ok(x)
    }
}

/// transformers' `ClapTextEmbeddings`.
#[derive(Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Embedding,
    layer_norm: LayerNorm,
    /// The id of padding, which is also the number of the position before the first token.
    pad: u32,
}

impl Embeddings {
    fn new(weights: &Weights, config: &ClapTextConfig) -> Self {
        let width = config.hidden_size;
        // Integers that follow from the configuration.
        weights.leave("token_type_ids");
        Self {
            word_embeddings: Embedding::new(weights, "word_embeddings.weight", config.vocab_size, width),
            position_embeddings: Embedding::new(
                weights,
                "position_embeddings.weight",
                config.max_position_embeddings,
                width,
            ),
            token_type_embeddings: Embedding::new(
                weights,
                "token_type_embeddings.weight",
                config.type_vocab_size,
                width,
            ),
            layer_norm: LayerNorm::new(&weights.pp("LayerNorm"), width, config.layer_norm_eps),
            pad: config.pad_token_id,
        }
    }

    /// Rows of ids → (B, L, D). Rows that are shorter than the longest one are padded.
    fn forward(&self, rows: &[&[u32]]) -> Result<Tensor> {
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let padded = |of: fn(u32, usize, u32) -> u32| -> Vec<u32> {
            let id = |row: &&[u32], i: usize| row.get(i).map_or(self.pad, |id| of(*id, i, self.pad));
            rows.iter().flat_map(|row| (0..longest).map(move |i| id(row, i))).collect()
        };
        let (ids, positions) = (padded(|id, _, _| id), padded(|_, i, pad| pad + 1 + i as u32));
        let words = self.word_embeddings.forward(&ids)?;
        let types = self.token_type_embeddings.forward(&[0])?;
        let sum = (words.broadcast_add(&types)? + self.position_embeddings.forward(&positions)?)?;
        self.layer_norm.forward(&sum.reshape((rows.len(), longest, ()))?)
    }
}

/// Applies a function of the Rust library `libm` to each number.
fn mapped(x: &Tensor, function: fn(f32) -> f32) -> Result<Tensor> {
    let values: Vec<f32> = x.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    let values = values.into_iter().map(function).collect();
    Tensor::from_vec(values, x.shape(), x.device())
}

/// Scales each row of (B, P) to length 1, as `torch.nn.functional.normalize` does.
fn normalized(x: &Tensor) -> Result<Tensor> {
    let mut rows = x.to_vec2::<f32>()?;
    for row in &mut rows {
        let length = libm::sqrt(row.iter().map(|value| f64::from(*value) * f64::from(*value)).sum()).max(1e-12);
        row.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
    Tensor::from_vec(rows.concat(), x.shape(), x.device())
}
