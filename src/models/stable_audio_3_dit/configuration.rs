//! The configuration of Stable Audio 3's transformer.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        configuration::{Fixed, WIDEST, between, divides, read, within},
        demand::{Demand, bytes},
    },
    weights::LoadError,
};

/// The keys of `transformer/config.json` that the network supports, with diffusers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct StableAudio3DiTConfig {
    /// C: channels of the latents.
    pub io_channels: usize,
    /// D: width of the tokens.
    pub embed_dim: usize,
    pub depth: usize,
    pub num_heads: usize,
    /// Width of the states of a text's tokens.
    pub cond_token_dim: usize,
    /// Width of the embedding of the length of a sound.
    pub global_cond_dim: usize,
    pub timestep_features_dim: usize,
    pub ff_mult: f64,
    pub num_memory_tokens: usize,
    pub use_differential_attention: bool,
}

impl Default for StableAudio3DiTConfig {
    fn default() -> Self {
        Self {
            io_channels: 256,
            embed_dim: 1536,
            depth: 24,
            num_heads: 24,
            cond_token_dim: 768,
            global_cond_dim: 768,
            timestep_features_dim: 256,
            ff_mult: 4.0,
            num_memory_tokens: 64,
            use_differential_attention: true,
        }
    }
}

const FIXED: &[Fixed] = &[
    ("patch_size", &["1"]),
    // Used only if a part of a sound stays as it is.
    ("local_add_cond_dim", &[]),
];

impl StableAudio3DiTConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        for (key, value, most) in [
            ("io_channels", config.io_channels, WIDEST),
            ("embed_dim", config.embed_dim, WIDEST),
            ("depth", config.depth, 256),
            ("num_heads", config.num_heads, 1024),
            ("cond_token_dim", config.cond_token_dim, WIDEST),
            ("global_cond_dim", config.global_cond_dim, WIDEST),
            ("timestep_features_dim", config.timestep_features_dim, WIDEST),
            ("num_memory_tokens", config.num_memory_tokens + 1, 1 << 12),
        ] {
            within(path, key, value, most)?;
        }
        divides(path, "timestep_features_dim", 2, config.timestep_features_dim)?;
        divides(path, "num_heads", config.num_heads, config.embed_dim)?;
        // Half of the channels of a head are rotated, in pairs.
        divides(path, "num_heads", 4, config.head())?;
        between(path, "ff_mult", config.ff_mult, 1.0 / config.embed_dim as f64, 64.0)?;
        Ok(config)
    }

    /// Channels of a head.
    pub(super) fn head(&self) -> usize {
        self.embed_dim / self.num_heads
    }

    /// The inner width of the feed-forward part.
    pub(super) fn inner(&self) -> usize {
        (self.embed_dim as f64 * self.ff_mult) as usize
    }

    /// The demand of one row of `length` latents and a context of `context` tokens.
    pub fn demand(&self, length: usize, context: usize) -> Demand {
        let (width, tokens) = (self.embed_dim, length + self.num_memory_tokens);
        let maps = if self.use_differential_attention { 2 } else { 1 };
        let projections = (2 * maps + 1 + 1) * tokens + (maps + 1) * tokens + (maps + 1) * context;
        let products = 2 * maps * tokens * (tokens + context);
        let block = width * (width * projections + products + 3 * self.inner() * tokens);
        let texts = context * width * (self.cond_token_dim + width);
        // Memory holds the tokens, their norm, queries, keys and values, with a copy of those that are rotated; or the
        // inner part of the feed-forward layers.
        let attention = (2 * maps + 6) * tokens * width + (maps + 2) * context * width;
        let floats = 3 * tokens * width + 2 * context * width + attention.max(2 * self.inner() * tokens);
        Demand { work: self.depth as f64 * block as f64 + texts as f64, bytes: bytes(floats) }
    }
}
