//! The configuration of a `Flux2Transformer2DModel`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        configuration::{Fixed, LARGEST_EPS, WIDEST, between, divides, read, within},
        demand::{Demand, bytes},
    },
    weights::LoadError,
};

/// The keys of `transformer/config.json` that the network supports, with diffusers' names and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flux2Transformer2DConfig {
    pub in_channels: usize,
    pub out_channels: Option<usize>,
    pub num_layers: usize,
    pub num_single_layers: usize,
    pub attention_head_dim: usize,
    pub num_attention_heads: usize,
    /// Width of the states of the text encoder.
    pub joint_attention_dim: usize,
    /// Number of sines and cosines of a time.
    pub timestep_guidance_channels: usize,
    pub mlp_ratio: f64,
    /// How many channels of a head rotate with each of the four coordinates of a position.
    pub axes_dims_rope: [usize; 4],
    pub rope_theta: f64,
    pub eps: f64,
}

impl Default for Flux2Transformer2DConfig {
    fn default() -> Self {
        Self {
            in_channels: 128,
            out_channels: None,
            num_layers: 8,
            num_single_layers: 48,
            attention_head_dim: 128,
            num_attention_heads: 48,
            joint_attention_dim: 15_360,
            timestep_guidance_channels: 256,
            mlp_ratio: 3.0,
            axes_dims_rope: [32; 4],
            rope_theta: 2000.0,
            eps: 1e-6,
        }
    }
}

const FIXED: [Fixed; 2] = [("patch_size", &["1"]), ("guidance_embeds", &["false"])];

impl Flux2Transformer2DConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, &FIXED)?;
        let bad = |key: &str, reason: String| Err(LoadError::BadKey { path: path.into(), key: key.into(), reason });
        let bounds = [
            ("in_channels", config.in_channels, WIDEST),
            ("num_layers", config.num_layers, 1000),
            ("num_single_layers", config.num_single_layers, 1000),
            ("attention_head_dim", config.attention_head_dim, 1024),
            ("num_attention_heads", config.num_attention_heads, 1024),
            ("joint_attention_dim", config.joint_attention_dim, 4 * WIDEST),
            ("timestep_guidance_channels", config.timestep_guidance_channels, WIDEST),
        ];
        bounds.into_iter().try_for_each(|(key, value, most)| within(path, key, value, most))?;
        within(path, "attention_head_dim", config.width(), WIDEST)?;
        divides(path, "timestep_guidance_channels", 2, config.timestep_guidance_channels)?;
        if !keys.contains_key("guidance_embeds") {
            return bad("guidance_embeds", "must be false; its default is true".to_owned());
        }
        if config.out_channels.is_some_and(|outputs| outputs != config.in_channels) {
            return bad("out_channels", format!("must be {}, the in_channels", config.in_channels));
        }
        let head = config.attention_head_dim;
        let sum = config.axes_dims_rope.iter().fold(0usize, |sum, d| sum.saturating_add(*d));
        if config.axes_dims_rope.iter().any(|d| d % 2 != 0) || sum != head {
            return bad("axes_dims_rope", format!("must be even numbers that add up to {head}, the width of a head"));
        }
        between(path, "mlp_ratio", config.mlp_ratio, 0.1, 64.0)?;
        between(path, "rope_theta", config.rope_theta, 1.0, 1e12)?;
        between(path, "eps", config.eps, 0.0, LARGEST_EPS)?;
        Ok(config)
    }

    /// D: width of a token.
    pub fn width(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Inner width of the feed-forward parts.
    pub(super) fn inner(&self) -> usize {
        (self.width() as f64 * self.mlp_ratio) as usize
    }

    /// The demand of one row with `pictures` tokens of pictures and `text` tokens of a prompt. `adapted`: with LoRAs.
    pub fn demand(&self, pictures: usize, text: usize, adapted: bool) -> Demand {
        let (n, d, inner) = ((pictures + text) as f64, self.width() as f64, self.inner() as f64);
        let block = n * (4.0 * d * d + 3.0 * d * inner + 2.0 * n * d);
        let blocks = (self.num_layers + self.num_single_layers) as f64 * block;
        let ends = 2.0 * self.in_channels as f64 * d * n + 15.0 * d * d;
        // Memory holds the state, its norm, and in a single block queries, keys, values, their rotated copies, and the
        // inner activation of the feed-forward part with its two halves.
        let widest = 7 * self.width() + 3 * self.inner();
        // LoRAs add a copy of an inner activation, and its changed rows.
        let widest = widest + if adapted { 2 * self.inner() } else { 0 };
        Demand { work: blocks + ends, bytes: bytes((pictures + text) * (3 * self.width() + widest)) }
    }
}
