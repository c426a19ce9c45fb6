//! The text encoder of DreamLite: the language model Qwen3-VL, which reads texts and pictures (Bai et al. 2025,
//! arXiv:2511.21631; transformers' `Qwen3VLModel`).

mod chat;
mod configuration;
mod merger;
mod picture;
mod processor;
mod vision;
mod vision_block;

use candle_core::{Result, Tensor};

pub use chat::{Chat, Qwen3VlTokenizer};
pub use configuration::{Qwen3VlConfig, VisionConfig};
pub use picture::{Picture, SIDE};
pub use vision::Seen;

use super::{
    embedding::Embedding,
    layers::RmsNorm,
    pause::pause,
    qwen3_encoder::{Layer, rotary_angles},
};
use crate::weights::Weights;
use vision::VisionModel;

/// Turns the ids of a chat, which may contain a picture, into the hidden states after the last layer. In models saved
/// by transformers 5 or later, these states are also normalized.
#[derive(Debug)]
pub struct Qwen3Vl {
    visual: VisionModel,
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    config: Qwen3VlConfig,
}

/// One chat.
#[derive(Clone, Copy, Debug)]
pub struct Qwen3VlRow<'a> {
    /// L ids, without padding.
    pub ids: &'a [u32],
    /// The picture that the network sees at the first image token ([`Qwen3VlConfig::image_token_id`]) and at the
    /// following image tokens.
    pub seen: Option<&'a Seen>,
}

impl Qwen3Vl {
    /// Builds the network. The caller then calls [`Weights::finish`].
    pub fn new(config: &Qwen3VlConfig, weights: &Weights) -> Self {
        // Tied to the embeddings, and only used for the next token.
        weights.leave("lm_head.");
        let (weights, text) = (weights.pp("model"), &config.text);
        let language = weights.pp("language_model");
        let layers = language.pp("layers");
        Self {
            visual: VisionModel::new(&config.vision, &weights.pp("visual")),
            embed_tokens: Embedding::new(&language, "embed_tokens.weight", text.vocab_size, text.hidden_size),
            layers: (0..text.num_hidden_layers).map(|i| Layer::new(&layers.pp(i), text)).collect(),
            norm: RmsNorm::new(&language.pp("norm"), text.hidden_size, text.rms_norm_eps),
            config: config.clone(),
        }
    }

    /// What the network sees in a picture.
    ///
    /// # Errors
    /// The sides of the picture are not multiples of [`VisionConfig::token_side`].
    pub async fn see(&self, picture: &Picture) -> Result<Seen> {
        self.visual.forward(picture).await
    }

    /// The states of the L ids, (1, L, D), in float32. A token attends to itself and to the tokens before it.
    ///
    /// # Errors
    /// There are no ids, an id is not in the vocabulary, or the ids have no place for what is seen.
    pub async fn forward(&self, row: Qwen3VlRow<'_>) -> Result<Tensor> {
        let Qwen3VlRow { ids, seen } = row;
        if ids.is_empty() {
            candle_core::bail!("a chat without tokens");
        }
        let (device, text) = (self.visual.device(), &self.config.text);
        let mut x = self.embed_tokens.forward(ids)?.unsqueeze(0)?.to_device(device)?;
        let place = seen.map(|seen| self.place(ids, seen)).transpose()?;
        if let Some(place) = &place {
            x = place.replaced(&x, &place.seen.features)?;
        }
        let position = |token: usize, frequency: usize| match &place {
            Some(place) => place.position(token, self.config.axis(frequency)),
            None => token,
        };
        let (cos, sin) = rotary_angles((text.theta(), text.head_dim), ids.len(), position, device)?;
        for (i, layer) in self.layers.iter().enumerate() {
            pause().await;
            x = layer.forward(&x, (&cos, &sin), ids.len()).await?;
            if let Some(place) = &place
                && let Some(features) = place.seen.deep.get(i)
            {
                let at_picture = x.narrow(1, place.first, place.count())?;
                x = place.replaced(&x, &(at_picture + features)?)?;
            }
        }
        if self.config.is_normed { self.norm.forward(&x) } else { Ok(x) }
    }

    /// The place of a picture in a chat.
    fn place<'a>(&self, ids: &[u32], seen: &'a Seen) -> Result<Place<'a>> {
        let is_image = |id: &u32| *id as usize == self.config.image_token_id;
        let first = ids.iter().position(is_image).unwrap_or(ids.len());
        let place = Place { first, seen };
        let found = ids[first..].iter().take_while(|id| is_image(id)).count();
        if found != place.count() {
            candle_core::bail!("{found} image tokens in a row for a picture of {} tokens", place.count());
        }
        Ok(place)
    }
}

/// Where a picture stands in a chat.
struct Place<'a> {
    /// The first of its tokens, which are rows of the picture, one after the other.
    first: usize,
    seen: &'a Seen,
}

impl Place<'_> {
    /// The number of tokens of the picture.
    fn count(&self) -> usize {
        self.seen.size.iter().product()
    }

    /// x (1, L, D) with `features` (1, count, D) in place of the picture's tokens.
    fn replaced(&self, x: &Tensor, features: &Tensor) -> Result<Tensor> {
        let end = self.first + self.count();
        Tensor::cat(&[&x.narrow(1, 0, self.first)?, features, &x.narrow(1, end, x.dim(1)? - end)?], 1)
    }

    /// The position of a token along an axis. The number of positions that the picture takes is the number of tokens of
    /// its longer side.
    fn position(&self, token: usize, axis: Axis) -> usize {
        let ([rows, columns], end) = (self.seen.size, self.first + self.count());
        match token {
            _ if token < self.first => token,
            _ if token >= end => token - end + self.first + rows.max(columns),
            _ => {
                let within = token - self.first;
                self.first
                    + match axis {
                        Axis::Time => 0,
                        Axis::Row => within / columns,
                        Axis::Column => within % columns,
                    }
            }
        }
    }
}

/// What a position counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    Time,
    Row,
    Column,
}
