//! The configuration of an `SD3Transformer2DModel`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::TIME_WIDTH;
use crate::{
    models::{
        configuration::{LARGEST_SAMPLE, WIDEST, divides, read, within},
        demand::{Demand, bytes},
    },
    weights::LoadError,
};

/// The keys of `transformer/config.json` that the network supports, with diffusers' names and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sd3Transformer2DConfig {
    /// Side of the latents that the network was trained on.
    pub sample_size: usize,
    pub patch_size: usize,
    pub in_channels: usize,
    pub num_layers: usize,
    pub attention_head_dim: usize,
    pub num_attention_heads: usize,
    /// Width of the prompt's hidden states.
    pub joint_attention_dim: usize,
    /// Must be the width of a token.
    pub caption_projection_dim: usize,
    /// Width of the vector of the whole prompt.
    pub pooled_projection_dim: usize,
    pub out_channels: Option<usize>,
    /// The largest side of a picture, in patches.
    pub pos_embed_max_size: usize,
    /// The blocks with a second attention, by index.
    pub dual_attention_layers: Vec<usize>,
    pub qk_norm: Option<QkNorm>,
}

/// Supported norms of queries and keys, by diffusers' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QkNorm {
    RmsNorm,
}

impl Default for Sd3Transformer2DConfig {
    fn default() -> Self {
        Self {
            sample_size: 128,
            patch_size: 2,
            in_channels: 16,
            num_layers: 18,
            attention_head_dim: 64,
            num_attention_heads: 18,
            joint_attention_dim: 4096,
            caption_projection_dim: 1152,
            pooled_projection_dim: 2048,
            out_channels: Some(16),
            pos_embed_max_size: 96,
            dual_attention_layers: Vec::new(),
            qk_norm: None,
        }
    }
}

impl Sd3Transformer2DConfig {
    /// The largest number of blocks.
    pub const MAX_LAYERS: usize = 256;

    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, &[])?;
        let bounds = [
            ("sample_size", config.sample_size, LARGEST_SAMPLE),
            ("patch_size", config.patch_size, 64),
            ("in_channels", config.in_channels, WIDEST),
            ("num_layers", config.num_layers, Self::MAX_LAYERS),
            ("attention_head_dim", config.attention_head_dim, WIDEST),
            ("num_attention_heads", config.num_attention_heads, 256),
            ("joint_attention_dim", config.joint_attention_dim, WIDEST),
            ("pooled_projection_dim", config.pooled_projection_dim, WIDEST),
            ("out_channels", config.outputs(), WIDEST),
            ("pos_embed_max_size", config.pos_embed_max_size, LARGEST_SAMPLE),
        ];
        bounds.into_iter().try_for_each(|(key, value, most)| within(path, key, value, most))?;
        within(path, "attention_head_dim", config.width(), WIDEST)?;
        divides(path, "patch_size", config.patch_size, config.sample_size)?;
        let bad = |key: &str, reason: String| Err(LoadError::BadKey { path: path.into(), key: key.into(), reason });
        if config.caption_projection_dim != config.width() {
            let reason =
                format!("must be {}, the width of a token, not {}", config.width(), config.caption_projection_dim);
            return bad("caption_projection_dim", reason);
        }
        let patches = config.sample_size / config.patch_size;
        if patches > config.pos_embed_max_size {
            let reason = format!("must be at least {patches}, the patches along a side of sample_size");
            return bad("pos_embed_max_size", reason);
        }
        if let Some(layer) = config.dual_attention_layers.iter().find(|layer| **layer >= config.num_layers) {
            return bad("dual_attention_layers", format!("{layer} is not one of {} layers", config.num_layers));
        }
        Ok(config)
    }

    /// D: width of a token.
    pub fn width(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Channels of the output.
    pub fn outputs(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }

    /// The demand of one row with (h, w) latents and a prompt of `tokens` tokens. `adapted` says whether LoRAs change
    /// the layers.
    pub fn demand(&self, [h, w]: [usize; 2], tokens: usize, adapted: bool) -> Demand {
        let patches = (h / self.patch_size) * (w / self.patch_size);
        let (n, l, d) = (patches as f64, tokens as f64, self.width() as f64);
        let (layers, dual) = (self.num_layers as f64, self.dual_attention_layers.len() as f64);
        let joint = 12.0 * d * d * (n + l) + 2.0 * (n + l) * (n + l) * d + 12.0 * d * d;
        let second = 4.0 * d * d * n + 2.0 * n * n * d + 3.0 * d * d;
        let pixels = (self.patch_size * self.patch_size) as f64;
        let ends = pixels * (self.in_channels + self.outputs()) as f64 * d * n
            + (TIME_WIDTH + self.pooled_projection_dim) as f64 * d
            + 4.0 * d * d
            + self.joint_attention_dim as f64 * d * l;
        // Memory peaks in the feed-forward layer of the picture: the input and the output of its GELU are each four
        // times as wide as the state, which is in memory with its norm and the state before the block.
        let places = patches + tokens;
        let floats = 11 * places * self.width() + if adapted { 8 * places * self.width() } else { 0 };
        Demand { work: layers * joint + dual * second + ends, bytes: bytes(floats) }
    }
}
