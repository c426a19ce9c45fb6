//! CLIP's encoder of pictures (transformers' `CLIPVisionModel`; Radford et al. 2021, arXiv:2103.00020).

mod configuration;

use candle_core::{DType, Device, Result, Tensor};

pub use configuration::ClipVisionConfig;

use super::{
    adapters::RowAdapters,
    clip_layer::{ClipLayer, ClipLayerSizes},
    clip_preparation::Preparation,
    layers::{LayerNorm, Linear, patch_conv2d},
    pause::pause,
};
use crate::{
    kernels::{attention::Mask, conv2d::Conv2d},
    weights::Weights,
};

/// Turns pictures into vectors. The first token stands for the whole picture, the others for its patches.
#[derive(Debug)]
pub struct ClipVisionModel {
    /// (D)
    class_embedding: Tensor,
    patch_embedding: Conv2d,
    /// (1 + patches, D)
    position_embedding: Tensor,
    /// The name is spelled as in the published files.
    pre_layrnorm: LayerNorm,
    layers: Vec<ClipLayer>,
    post_layernorm: LayerNorm,
}

impl ClipVisionModel {
    /// Builds the network. The names of the tensors may begin with `vision_model.`, as in published files, or lack this
    /// prefix. The caller then calls [`Weights::finish`].
    pub fn new(config: &ClipVisionConfig, weights: &Weights) -> Self {
        let weights = if weights.has_any("vision_model.") { weights.pp("vision_model") } else { weights.clone() };
        let (embeddings, layers) = (weights.pp("embeddings"), weights.pp("encoder.layers"));
        let norm = |name| LayerNorm::new(&weights.pp(name), config.hidden_size, config.layer_norm_eps);
        let sizes = ClipLayerSizes {
            width: config.hidden_size,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            eps: config.layer_norm_eps,
            act: config.hidden_act,
        };
        Self {
            class_embedding: embeddings.tensor("class_embedding", &[config.hidden_size]),
            patch_embedding: patch_conv2d(
                &embeddings.pp("patch_embedding"),
                config.num_channels,
                config.hidden_size,
                config.patch_size,
            ),
            position_embedding: embeddings
                .tensor("position_embedding.weight", &[1 + config.patches(), config.hidden_size]),
            pre_layrnorm: norm("pre_layrnorm"),
            layers: (0..config.num_hidden_layers).map(|i| ClipLayer::new(&layers.pp(i), sizes)).collect(),
            post_layernorm: norm("post_layernorm"),
        }
    }

    /// pixels (B, side, side, 3) → (B, D): the last state of the first token, after the last norm (transformers'
    /// `pooler_output`).
    pub async fn pooled(&self, pixels: &Tensor) -> Result<Tensor> {
        let x = self.states(pixels, self.layers.len()).await?;
        self.post_layernorm.forward(&x.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?)
    }

    /// pixels (B, side, side, 3) → (B, 1 + patches, D): the states of all tokens before the last layer, without the
    /// last norm (transformers' `hidden_states[-2]`).
    pub async fn penultimate(&self, pixels: &Tensor) -> Result<Tensor> {
        self.states(pixels, self.layers.len().saturating_sub(1)).await
    }

    /// The states of all tokens after this many layers.
    async fn states(&self, pixels: &Tensor, layers: usize) -> Result<Tensor> {
        pause().await;
        let patches = self.patch_embedding.forward(pixels)?; // (B, rows, columns, D)
        let (b, rows, columns, width) = patches.dims4()?;
        let patches = patches.reshape((b, rows * columns, width))?;
        let class = self.class_embedding.to_dtype(DType::F32)?.broadcast_as((b, 1, width))?.contiguous()?;
        let x = Tensor::cat(&[class, patches], 1)?; // (B, 1 + patches, D)
        let x = x.broadcast_add(&self.position_embedding.to_dtype(DType::F32)?)?;
        let mut x = self.pre_layrnorm.forward(&x)?;
        for layer in self.layers.iter().take(layers) {
            pause().await;
            x = layer.forward(x, Mask::None, RowAdapters::NONE)?;
        }
        Ok(x)
    }
}

/// CLIP's encoder of pictures with the projection to the vectors that texts have, too (transformers'
/// `CLIPVisionModelWithProjection`), and the preparation of its input.
#[derive(Debug)]
pub struct ClipImageEncoder {
    vision_model: ClipVisionModel,
    visual_projection: Linear,
    preparation: Preparation,
}

impl ClipImageEncoder {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &ClipVisionConfig, preparation: Preparation, weights: &Weights) -> Self {
        let project = weights.pp("visual_projection");
        Self {
            vision_model: ClipVisionModel::new(config, weights),
            visual_projection: Linear::without_bias(&project, config.hidden_size, config.projection_dim),
            preparation,
        }
    }

    /// Pixels of `count` pictures (3, side, side) in [0, 1] → vectors (count, P)
    pub async fn forward(&self, planes: &[f32], count: usize, device: &Device) -> Result<Tensor> {
        let pixels = self.preparation.normalized(planes, count)?.to_device(device)?;
        self.visual_projection.forward(&self.vision_model.pooled(&pixels).await?)
    }
}
