//! The text encoders of Stable Diffusion (transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`; Radford
//! et al. 2021, arXiv:2103.00020).

mod configuration;

use candle_core::{DType, Result, Tensor};

pub use super::clip_layer::HiddenAct;
pub use configuration::ClipTextConfig;

use super::{
    adapters::RowAdapters,
    clip_layer::{ClipLayer, ClipLayerSizes},
    embedding::Embedding,
    layers::{LayerNorm, Linear},
    pause::pause,
};
use crate::{kernels::attention::Mask, weights::Weights};

/// Turns token ids into hidden states. Each token attends to itself and to the tokens before it; padding is not masked.
#[derive(Debug)]
pub struct ClipTextModel {
    token_embedding: Embedding,
    /// (positions, D)
    position_embedding: Tensor,
    layers: Vec<ClipLayer>,
    final_layer_norm: LayerNorm,
    /// Projects the hidden state that represents the whole prompt.
    text_projection: Option<Linear>,
    eos_token_id: u32,
}

/// One prompt of L ids.
#[derive(Clone, Copy, Debug)]
pub struct TextRow<'a> {
    pub ids: &'a [u32],
    /// Vectors of D values for the ids beyond the vocabulary. The first vector belongs to the id that equals the size
    /// of the vocabulary, the second vector to the next id, and so on.
    pub learned: &'a [Vec<f32>],
}

impl ClipTextModel {
    /// Builds the network. The names of the layers' tensors may begin with `text_model.`, as in published files, or
    /// lack this prefix. The caller then calls [`Weights::finish`].
    pub fn new(config: &ClipTextConfig, weights: &Weights) -> Self {
        let width = config.hidden_size;
        let text_projection =
            config.projection().map(|outputs| Linear::without_bias(&weights.pp("text_projection"), width, outputs));
        let weights = if weights.has_any("text_model.") { weights.pp("text_model") } else { weights.clone() };
        let (embeddings, layers) = (weights.pp("embeddings"), weights.pp("encoder.layers"));
        let sizes = ClipLayerSizes {
            width,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            eps: config.layer_norm_eps,
            act: config.hidden_act,
        };
        Self {
            token_embedding: Embedding::new(&embeddings, "token_embedding.weight", config.vocab_size, width),
            position_embedding: embeddings
                .tensor("position_embedding.weight", &[config.max_position_embeddings, width]),
            layers: (0..config.num_hidden_layers).map(|i| ClipLayer::new(&layers.pp(i), sizes)).collect(),
            final_layer_norm: LayerNorm::new(&weights.pp("final_layer_norm"), width, config.layer_norm_eps),
            text_projection,
            eos_token_id: config.eos_token_id,
        }
    }

    /// B rows of L ids → (B, L, D): the output of all layers except the last `clip_skip`, after the final norm.
    ///
    /// If `clip_skip` is 0, this is transformers' `last_hidden_state`. Otherwise it is transformers'
    /// `hidden_states[-(clip_skip+1)]` after the final norm, as diffusers computes it for its `clip_skip` in Stable
    /// Diffusion 1 and 2. L is at most `max_position_embeddings`.
    pub async fn forward(&self, rows: &[TextRow<'_>], clip_skip: usize, adapters: &RowAdapters) -> Result<Tensor> {
        let mut x = self.embed(rows)?;
        for layer in self.all_but(clip_skip)? {
            pause().await;
            x = layer.forward(x, Mask::Causal, adapters)?;
        }
        self.final_layer_norm.forward(&x)
    }

    /// B rows of L ids → (B, L, D): the output of all layers except the last `1 + clip_skip`, without the final norm.
    /// If the network has a projection, this also returns the vector of each whole prompt, (B, P). SDXL uses the
    /// outputs of its encoders in this form.
    pub async fn forward_pooled(
        &self,
        rows: &[TextRow<'_>],
        clip_skip: usize,
        adapters: &RowAdapters,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let kept = self.all_but(1 + clip_skip)?.len();
        let mut x = self.embed(rows)?;
        for layer in &self.layers[..kept] {
            pause().await;
            x = layer.forward(x, Mask::Causal, adapters)?;
        }
        let hidden = x.clone();
        let Some(text_projection) = &self.text_projection else { return Ok((hidden, None)) };
        for layer in &self.layers[kept..] {
            pause().await;
            x = layer.forward(x, Mask::Causal, adapters)?;
        }
        let normed = self.final_layer_norm.forward(&x)?;
        Ok((hidden, Some(text_projection.adapted(&self.ends(&normed, rows)?, adapters)?)))
    }

    /// B rows of L ids → (B, D): the hidden state of the last layer that represents each whole prompt, after the final
    /// norm and without a projection (transformers' `pooler_output`).
    pub async fn pooled(&self, rows: &[TextRow<'_>], adapters: &RowAdapters) -> Result<Tensor> {
        let states = self.forward(rows, 0, adapters).await?;
        self.ends(&states, rows)
    }

    /// The states that represent the whole prompts: x (B, L, D) → (B, D)
    fn ends(&self, x: &Tensor, rows: &[TextRow<'_>]) -> Result<Tensor> {
        let ends = rows.iter().enumerate().map(|(i, row)| x.get(i)?.get(self.end(row.ids)));
        Tensor::stack(&ends.collect::<Result<Vec<_>>>()?, 0)
    }

    /// The number of ids for which the network has a vector.
    pub fn vocabulary(&self) -> usize {
        self.token_embedding.shape().0
    }

    fn all_but(&self, skipped: usize) -> Result<&[ClipLayer]> {
        match self.layers.len().checked_sub(skipped) {
            Some(layers) => Ok(&self.layers[..layers]),
            None => candle_core::bail!("{skipped} of {} layers cannot be skipped", self.layers.len()),
        }
    }

    /// Token embeddings plus position embeddings, (B, L, D), in float32.
    fn embed(&self, rows: &[TextRow<'_>]) -> Result<Tensor> {
        let length = rows.first().map_or(0, |row| row.ids.len());
        let (vocabulary, width) = self.token_embedding.shape();
        let known = |id: &u32| if (*id as usize) < vocabulary { *id } else { 0 };
        let ids: Vec<u32> = rows.iter().flat_map(|row| row.ids.iter().map(known)).collect();
        let mut embedded = self.token_embedding.forward(&ids)?;
        if rows.iter().any(|row| row.ids.iter().any(|id| *id as usize >= vocabulary)) {
            let mut values = embedded.to_vec2::<f32>()?;
            let places = rows.iter().flat_map(|row| row.ids.iter().map(move |id| (row, *id as usize)));
            for (place, (row, id)) in values.iter_mut().zip(places).filter(|(_, (_, id))| *id >= vocabulary) {
                match row.learned.get(id - vocabulary) {
                    Some(vector) if vector.len() == width => place.clone_from(vector),
                    _ => candle_core::bail!("token {id} of {vocabulary} has no vector of {width} values"),
                }
            }
            embedded = Tensor::from_vec(values.concat(), (rows.len() * length, width), embedded.device())?;
        }
        let embedded = embedded.reshape((rows.len(), length, width))?;
        embedded.broadcast_add(&self.position_embedding.narrow(0, 0, length)?.to_dtype(DType::F32)?)
    }

    /// The position of the token that represents the whole prompt: the first end token. If `eos_token_id` is 2, as in
    /// files of early versions of transformers, the end token is the token with the largest id.
    fn end(&self, ids: &[u32]) -> usize {
        let largest = ids.iter().max().copied().unwrap_or(0);
        let wanted = if self.eos_token_id == 2 { largest } else { self.eos_token_id };
        ids.iter().position(|id| *id == wanted).unwrap_or(0)
    }
}
