//! The configuration of a `WanTransformer3DModel`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::PATCH;
use crate::{
    models::{
        configuration::{Fixed, LARGEST_EPS, WIDEST, between, read, within},
        demand::{Demand, bytes},
    },
    weights::LoadError,
};

/// The keys of `transformer/config.json` that the network supports, with diffusers' names and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WanTransformer3DConfig {
    pub num_attention_heads: usize,
    pub attention_head_dim: usize,
    /// Channels of the latents, with further channels, such as the channels of a picture.
    pub in_channels: usize,
    pub out_channels: usize,
    /// Width of the hidden states of the text.
    pub text_dim: usize,
    /// Number of sines and cosines of a time.
    pub freq_dim: usize,
    /// Width inside the feed-forward layers.
    pub ffn_dim: usize,
    pub num_layers: usize,
    /// Whether a norm is before the attention to the conditions.
    pub cross_attn_norm: bool,
    pub eps: f64,
    /// Width of the states of a picture's tokens; `None` for a network that sees no picture.
    pub image_dim: Option<usize>,
    /// Width of a picture's tokens in the attention. The embedding gives them the width of the network, so the two
    /// widths must be equal.
    pub added_kv_proj_dim: Option<usize>,
}

impl Default for WanTransformer3DConfig {
    fn default() -> Self {
        Self {
            num_attention_heads: 40,
            attention_head_dim: 128,
            in_channels: 16,
            out_channels: 16,
            text_dim: 4096,
            freq_dim: 256,
            ffn_dim: 13_824,
            num_layers: 40,
            cross_attn_norm: true,
            eps: 1e-6,
            image_dim: None,
            added_kv_proj_dim: None,
        }
    }
}

const FIXED: &[Fixed] = &[
    ("patch_size", &["[1, 2, 2]"]),
    ("qk_norm", &[r#""rms_norm_across_heads""#]),
    // Only models that see two pictures have positions for the tokens of pictures.
    ("pos_embed_seq_len", &["null"]),
    // An upper bound of the positions. It has no effect, because the angles are computed for each film.
    ("rope_max_seq_len", &[]),
];

impl WanTransformer3DConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        for (key, value, most) in [
            ("num_attention_heads", config.num_attention_heads, 1024),
            ("attention_head_dim", config.attention_head_dim, WIDEST),
            ("in_channels", config.in_channels, WIDEST),
            ("out_channels", config.out_channels, WIDEST),
            ("text_dim", config.text_dim, WIDEST),
            ("freq_dim", config.freq_dim, WIDEST),
            ("ffn_dim", config.ffn_dim, 8 * WIDEST),
            ("num_layers", config.num_layers, 1000),
            ("image_dim", config.image_dim.unwrap_or(1), WIDEST),
        ] {
            within(path, key, value, most)?;
        }
        within(path, "attention_head_dim", config.width(), WIDEST)?;
        between(path, "eps", config.eps, 0.0, LARGEST_EPS)?;
        let bad = |key: &str, reason: String| Err(LoadError::BadKey { path: path.into(), key: key.into(), reason });
        if !config.attention_head_dim.is_multiple_of(2) || config.attention_head_dim < 6 {
            let reason = format!("must be even and at least 6, not {}", config.attention_head_dim);
            return bad("attention_head_dim", reason);
        }
        let width = config.image_dim.map(|_| config.width());
        if config.added_kv_proj_dim != width {
            let shown = |value: Option<usize>| value.map_or("null".to_owned(), |value| value.to_string());
            let (wanted, found) = (shown(width), shown(config.added_kv_proj_dim));
            let what = match width {
                Some(_) => "the width of the network, because image_dim is given",
                None => "because image_dim is null",
            };
            return bad("added_kv_proj_dim", format!("must be {wanted}, {what}, not {found}"));
        }
        Ok(config)
    }

    /// D: width of a token.
    pub fn width(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// The number of patches of F latent frames of h × w latent pixels.
    pub fn patches(&self, [f, h, w]: [usize; 3]) -> usize {
        f * (h / PATCH) * (w / PATCH)
    }

    /// The demand of one row of F latent frames of h × w latent pixels, with `tokens` tokens of text and `seen` tokens
    /// of a picture. `times` is the number of times of the row.
    pub fn demand(&self, film: [usize; 3], tokens: usize, seen: usize, times: usize) -> Demand {
        let patches = self.patches(film);
        let (n, d, l, ffn) = (patches as f64, self.width() as f64, (tokens + seen) as f64, self.ffn_dim as f64);
        let to_itself = 4.0 * d * d * n + 2.0 * n * n * d;
        let to_conditions = 2.0 * d * d * (n + l) + 2.0 * n * l * d;
        let block = to_itself + to_conditions + 2.0 * d * ffn * n;
        let (text, picture) = (self.text_dim as f64, self.image_dim.unwrap_or(0) as f64);
        let conditions = tokens as f64 * (text * d + d * d)
            + seen as f64 * (picture * picture + picture * d)
            + times as f64 * (self.freq_dim as f64 * d + 7.0 * d * d);
        let ends = ((self.in_channels + self.out_channels) * PATCH * PATCH) as f64 * d * n;
        // Memory peaks in the first attention: the state, its norm, queries, keys and values, rotated copies of queries
        // and keys, packed keys and values, and the result; or in the feed-forward layer: the state, its norm, the
        // inner values and the result. In both, memory also holds the tokens of the conditions, their keys and values,
        // and the modulations.
        let widths = (10 * self.width()).max(3 * self.width() + self.ffn_dim);
        let floats = patches * widths + (tokens + seen) * 5 * self.width() + times * 14 * self.width();
        Demand { work: self.num_layers as f64 * block + conditions + ends, bytes: bytes(floats) }
    }
}
