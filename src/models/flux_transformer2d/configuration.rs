//! The configuration of a `FluxTransformer2DModel`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::TIME_WIDTH;
use crate::{
    models::{
        configuration::{Fixed, WIDEST, entries, read, within},
        demand::{Demand, bytes},
    },
    weights::LoadError,
};

/// The keys of `transformer/config.json` that the network supports, with diffusers' names and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FluxTransformer2DConfig {
    /// Channels of a patch of 2 × 2 latent pixels.
    pub in_channels: usize,
    pub out_channels: Option<usize>,
    /// Blocks with two streams.
    pub num_layers: usize,
    /// Blocks with one stream.
    pub num_single_layers: usize,
    pub attention_head_dim: usize,
    pub num_attention_heads: usize,
    /// Width of the hidden states of the text.
    pub joint_attention_dim: usize,
    /// Width of the vector of a whole prompt.
    pub pooled_projection_dim: usize,
    /// Whether the guidance scale is an input.
    pub guidance_embeds: bool,
    /// How many channels of a head are rotated by each of the three position axes.
    pub axes_dims_rope: Vec<usize>,
}

impl Default for FluxTransformer2DConfig {
    fn default() -> Self {
        Self {
            in_channels: 64,
            out_channels: None,
            num_layers: 19,
            num_single_layers: 38,
            attention_head_dim: 128,
            num_attention_heads: 24,
            joint_attention_dim: 4096,
            pooled_projection_dim: 768,
            guidance_embeds: false,
            axes_dims_rope: vec![16, 56, 56],
        }
    }
}

const FIXED: &[Fixed] = &[("patch_size", &["1"])];

/// The axes of a position: one that is always zero, the row, and the column.
const AXES: usize = 3;

impl FluxTransformer2DConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        for (key, value, most) in [
            ("in_channels", config.in_channels, WIDEST),
            ("out_channels", config.outputs(), WIDEST),
            ("num_layers", config.num_layers, 1000),
            ("num_single_layers", config.num_single_layers, 1000),
            ("attention_head_dim", config.attention_head_dim, WIDEST),
            ("num_attention_heads", config.num_attention_heads, 1024),
            ("joint_attention_dim", config.joint_attention_dim, WIDEST),
            ("pooled_projection_dim", config.pooled_projection_dim, WIDEST),
        ] {
            within(path, key, value, most)?;
        }
        within(path, "attention_head_dim", config.width(), WIDEST)?;
        let axes = &config.axes_dims_rope;
        entries(path, "axes_dims_rope", axes.len(), AXES)?;
        let (sum, odd) =
            (axes.iter().fold(0usize, |sum, axis| sum.saturating_add(*axis)), axes.iter().any(|n| n % 2 == 1));
        if axes.len() != AXES || odd || sum != config.attention_head_dim {
            let reason = format!(
                "must be {AXES} even numbers whose sum is attention_head_dim, {}, not {axes:?}",
                config.attention_head_dim
            );
            return Err(LoadError::BadKey { path: path.into(), key: "axes_dims_rope".into(), reason });
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

    /// The demand of one row of `patches` patches and `tokens` text tokens. `adapted` says whether LoRAs change the
    /// layers.
    pub fn demand(&self, patches: usize, tokens: usize, adapted: bool) -> Demand {
        let (n, d) = ((patches + tokens) as f64, self.width() as f64);
        let attention = 2.0 * n * n * d;
        // Both kinds of blocks have 12 D² weights per token: projections of the attention and the feed-forward layer.
        let double = 12.0 * d * d * n + attention + 12.0 * d * d;
        let single = 12.0 * d * d * n + attention + 3.0 * d * d;
        let embedders = if self.guidance_embeds { 3.0 } else { 2.0 };
        let embedding = embedders * (TIME_WIDTH as f64 * d + d * d);
        let ends = (self.in_channels + self.outputs()) as f64 * d * patches as f64
            + (self.joint_attention_dim * tokens) as f64 * d
            + 2.0 * d * d;
        let work = self.num_layers as f64 * double + self.num_single_layers as f64 * single + embedding + ends;
        // Memory peaks in a block of one stream: the state, the outputs of attention (1 width) and of the feed-forward
        // layer (4), both joined (5), the output (1), and scratch memory of about two widths. LoRAs add a copy of an
        // output of four widths, and its changed rows.
        let widths = if adapted { 22 } else { 14 };
        Demand { work, bytes: bytes(widths * (patches + tokens) * self.width()) }
    }
}
