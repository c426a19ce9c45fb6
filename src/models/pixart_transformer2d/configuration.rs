//! The configuration of a `PixArtTransformer2DModel`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::embeddings::SINUSOIDS;
use crate::{
    models::{
        configuration::{Fixed, LARGEST_EPS, LARGEST_SAMPLE, WIDEST, between, divides, read, within},
        demand::{Demand, bytes},
    },
    weights::LoadError,
};

/// The keys of `transformer/config.json` that the network supports, with diffusers' names and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PixArtTransformer2DConfig {
    pub num_attention_heads: usize,
    pub attention_head_dim: usize,
    pub in_channels: usize,
    pub out_channels: Option<usize>,
    pub num_layers: usize,
    pub cross_attention_dim: Option<usize>,
    pub attention_bias: bool,
    /// Side of the latents.
    pub sample_size: usize,
    pub patch_size: usize,
    pub norm_eps: f64,
    /// The number by which the positions of patches are divided. The default follows from the side of the latents.
    pub interpolation_scale: Option<f64>,
    /// Whether the network takes the size of the picture. By default, networks with a side of 128 do.
    pub use_additional_conditions: Option<bool>,
    /// Width of the states of the text encoder.
    pub caption_channels: usize,
}

impl Default for PixArtTransformer2DConfig {
    fn default() -> Self {
        Self {
            num_attention_heads: 16,
            attention_head_dim: 72,
            in_channels: 4,
            out_channels: Some(8),
            num_layers: 28,
            cross_attention_dim: Some(1152),
            attention_bias: true,
            sample_size: 128,
            patch_size: 2,
            norm_eps: 1e-6,
            interpolation_scale: None,
            use_additional_conditions: None,
            caption_channels: 4096,
        }
    }
}

/// Keys with fixed values. The keys from `double_self_attention` on belong to `Transformer2DModel`, the class name in
/// published files.
const FIXED: [Fixed; 15] = [
    ("activation_fn", &["\"gelu-approximate\""]),
    ("attention_type", &["\"default\""]),
    ("dropout", &[]),
    ("norm_elementwise_affine", &["false"]),
    ("norm_num_groups", &[]),
    ("norm_type", &["\"ada_norm_single\""]),
    ("num_embeds_ada_norm", &[]),
    ("upcast_attention", &[]),
    ("double_self_attention", &["false"]),
    ("num_vector_embeds", &["null"]),
    ("only_cross_attention", &["false"]),
    ("use_linear_projection", &["false"]),
    ("in_channels_text", &["null"]),
    ("caption_projection_dim", &["null"]),
    ("num_vector_embeddings", &["null"]),
];

impl PixArtTransformer2DConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, &FIXED)?;
        let bounds = [
            ("num_attention_heads", config.num_attention_heads, 256),
            ("attention_head_dim", config.attention_head_dim, WIDEST),
            ("in_channels", config.in_channels, WIDEST),
            ("out_channels", config.outputs(), WIDEST),
            ("num_layers", config.num_layers, 1000),
            ("sample_size", config.sample_size, LARGEST_SAMPLE),
            ("patch_size", config.patch_size, 64),
            ("caption_channels", config.caption_channels, WIDEST),
        ];
        bounds.into_iter().try_for_each(|(key, value, most)| within(path, key, value, most))?;
        within(path, "attention_head_dim", config.width(), WIDEST)?;
        // Sines and cosines of rows and of columns take a quarter of the width each.
        divides(path, "attention_head_dim", 4, config.width())?;
        divides(path, "patch_size", config.patch_size, config.sample_size)?;
        if config.use_additional_conditions() {
            // The embeddings of height, width and aspect ratio take a third of the width each.
            divides(path, "attention_head_dim", 3, config.width())?;
        }
        if let Some(width) = config.cross_attention_dim.filter(|width| *width != config.width()) {
            let reason = format!("must be {}, the width of a token, not {width}", config.width());
            return Err(LoadError::BadKey { path: path.into(), key: "cross_attention_dim".into(), reason });
        }
        between(path, "interpolation_scale", config.interpolation_scale(), 1e-3, 1e3)?;
        between(path, "norm_eps", config.norm_eps, 0.0, LARGEST_EPS)?;
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

    /// The number by which the positions of patches are divided.
    pub(super) fn interpolation_scale(&self) -> f64 {
        self.interpolation_scale.unwrap_or_else(|| (self.sample_size / 64).max(1) as f64)
    }

    /// Whether the network takes the size of the picture.
    pub(super) fn use_additional_conditions(&self) -> bool {
        self.use_additional_conditions.unwrap_or(self.sample_size == 128)
    }

    /// The demand of one row of latents (h, w) with a text of `tokens` tokens.
    pub fn demand(&self, [h, w]: [usize; 2], tokens: usize) -> Demand {
        let patch = self.patch_size;
        let places = (h / patch) * (w / patch);
        let (n, l, d, text) = (places as f64, tokens as f64, self.width() as f64, self.caption_channels as f64);
        let embedding = SINUSOIDS.width as f64 * d + 7.0 * d * d;
        // The attention to the picture, the attention to the text, and the feed-forward layer.
        let layer = (4.0 * d * d * n + 2.0 * n * n * d)
            + (2.0 * d * d * n + 2.0 * d * d * l + 2.0 * n * l * d)
            + 8.0 * d * d * n;
        let pixels = (patch * patch * (self.in_channels + self.outputs())) as f64;
        let ends = pixels * d * n + embedding + l * d * (text + d);
        // Memory peaks at the GELU of the feed-forward layer. The input and the output of this GELU are each four times
        // as wide as the state, and the state and its norm are in memory too.
        let floats = 11 * places * self.width() + tokens * (self.caption_channels + 3 * self.width());
        Demand { work: self.num_layers as f64 * layer + ends, bytes: bytes(floats) }
    }
}
