//! The configuration of a `DiTTransformer2DModel`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::block::TIME_WIDTH;
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
pub struct DiTTransformer2DConfig {
    pub num_attention_heads: usize,
    pub attention_head_dim: usize,
    pub in_channels: usize,
    pub out_channels: Option<usize>,
    pub num_layers: usize,
    pub attention_bias: bool,
    /// Side of the latents.
    pub sample_size: usize,
    pub patch_size: usize,
    /// Number of classes.
    pub num_embeds_ada_norm: usize,
    pub norm_eps: f64,
}

impl Default for DiTTransformer2DConfig {
    fn default() -> Self {
        Self {
            num_attention_heads: 16,
            attention_head_dim: 72,
            in_channels: 4,
            out_channels: None,
            num_layers: 28,
            attention_bias: true,
            sample_size: 32,
            patch_size: 2,
            num_embeds_ada_norm: 1000,
            norm_eps: 1e-5,
        }
    }
}

/// Keys with fixed values. The keys from `attention_type` on belong to `Transformer2DModel`, the class name in
/// published files.
const FIXED: [Fixed; 16] = [
    ("activation_fn", &["\"gelu-approximate\""]),
    ("dropout", &[]),
    ("norm_elementwise_affine", &["false"]),
    ("norm_num_groups", &[]),
    ("norm_type", &["\"ada_norm_zero\""]),
    ("upcast_attention", &[]),
    ("attention_type", &["\"default\""]),
    ("caption_channels", &["null"]),
    ("cross_attention_dim", &["null"]),
    ("double_self_attention", &["false"]),
    ("interpolation_scale", &["null", "1"]),
    ("num_vector_embeds", &["null"]),
    ("only_cross_attention", &["false"]),
    ("use_additional_conditions", &["null", "false"]),
    ("use_linear_projection", &["false"]),
    ("in_channels_text", &["null"]),
];

impl DiTTransformer2DConfig {
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
            ("num_embeds_ada_norm", config.num_embeds_ada_norm, 1 << 20),
        ];
        bounds.into_iter().try_for_each(|(key, value, most)| within(path, key, value, most))?;
        within(path, "attention_head_dim", config.width(), WIDEST)?;
        // Sines and cosines of rows and of columns take a quarter of the width each.
        divides(path, "attention_head_dim", 4, config.width())?;
        divides(path, "patch_size", config.patch_size, config.sample_size)?;
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

    /// The demand of one row.
    pub fn demand(&self) -> Demand {
        let grid = self.sample_size / self.patch_size;
        let (n, d, layers) = ((grid * grid) as f64, self.width() as f64, self.num_layers as f64);
        let embedding = TIME_WIDTH as f64 * d + d * d;
        let layer = embedding + 6.0 * d * d + 12.0 * d * d * n + 2.0 * n * n * d;
        let pixels = (self.patch_size * self.patch_size) as f64;
        let ends = pixels * (self.in_channels + self.outputs()) as f64 * d * n + embedding + 2.0 * d * d;
        // Memory peaks at the GELU of the feed-forward layer. The input and the output of this GELU are each four times
        // as wide as the state, and the state is in memory too.
        Demand { work: layers * layer + ends, bytes: bytes(11 * grid * grid * self.width()) }
    }
}
