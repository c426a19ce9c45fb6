//! The configuration of the autoencoder SAME.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        configuration::{Fixed, WIDEST, divides, entries, per_block, read, within},
        demand::{Demand, bytes},
    },
    weights::LoadError,
};

/// The keys of `vae/config.json` that the decoder uses, with diffusers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderSameConfig {
    pub audio_channels: usize,
    /// Samples of each channel in one token.
    pub patch_size: usize,
    pub encoder_channels: usize,
    /// The widths of the levels, in multiples of `encoder_channels`. The lists have one entry per level, from the
    /// samples to the latents.
    pub encoder_c_mults: Vec<usize>,
    pub encoder_strides: Vec<usize>,
    pub encoder_transformer_depths: Vec<usize>,
    pub latent_dim: usize,
    pub use_differential_attention: bool,
    pub dim_heads: usize,
    pub ff_mult: usize,
    /// The largest distance, in segments, at which a token attends to another token.
    pub sliding_window: usize,
    /// The number of last layers whose gates are sines, plus 1. One entry for all levels, or one per level.
    pub decoder_sinusoidal_blocks: Vec<usize>,
    pub sampling_rate: usize,
}

impl Default for AutoencoderSameConfig {
    fn default() -> Self {
        Self {
            audio_channels: 2,
            patch_size: 256,
            encoder_channels: 128,
            encoder_c_mults: vec![6],
            encoder_strides: vec![16],
            encoder_transformer_depths: vec![6],
            latent_dim: 256,
            use_differential_attention: true,
            dim_heads: 64,
            ff_mult: 3,
            sliding_window: 1,
            decoder_sinusoidal_blocks: vec![0],
            sampling_rate: 44_100,
        }
    }
}

/// Only the encoder uses this key.
const FIXED: &[Fixed] = &[("encoder_sinusoidal_blocks", &[])];

/// The sizes of one block of the decoder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub inputs: usize,
    pub outputs: usize,
    pub stride: usize,
    /// The number of layers.
    pub depth: usize,
    sinusoidal: usize,
}

impl Level {
    /// Whether the gates of layer `i` are sines, as diffusers counts layers.
    pub fn is_sinusoidal(&self, i: usize) -> bool {
        self.depth - i < self.sinusoidal
    }
}

impl AutoencoderSameConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        for (key, value, most) in [
            ("audio_channels", config.audio_channels, 8),
            ("patch_size", config.patch_size, WIDEST),
            ("encoder_channels", config.encoder_channels, WIDEST),
            ("latent_dim", config.latent_dim, WIDEST),
            ("dim_heads", config.dim_heads, 1024),
            ("ff_mult", config.ff_mult, 64),
            ("sliding_window", config.sliding_window, 1 << 10),
            ("sampling_rate", config.sampling_rate, 1 << 20),
        ] {
            within(path, key, value, most)?;
        }
        let levels = config.encoder_strides.len();
        entries(path, "encoder_strides", levels, 8)?;
        per_block(path, "encoder_c_mults", config.encoder_c_mults.len(), levels)?;
        per_block(path, "encoder_transformer_depths", config.encoder_transformer_depths.len(), levels)?;
        let sinusoidal = config.decoder_sinusoidal_blocks.len();
        if sinusoidal != 1 {
            per_block(path, "decoder_sinusoidal_blocks", sinusoidal, levels)?;
        }
        for level in config.decoder_levels() {
            within(path, "encoder_strides", level.stride, 256)?;
            within(path, "encoder_transformer_depths", level.depth, 256)?;
            within(path, "encoder_c_mults", level.inputs, WIDEST)?;
            let head = config.head(level.inputs);
            divides(path, "dim_heads", head, level.inputs)?;
            // Half of the channels of a head are rotated, in pairs.
            divides(path, "dim_heads", 4, head)?;
        }
        within(path, "patch_size", config.audio_channels * config.patch_size, WIDEST)?;
        Ok(config)
    }

    /// The blocks of the decoder, from the latents to the samples.
    pub(super) fn decoder_levels(&self) -> Vec<Level> {
        let width = |mult: &usize| mult.saturating_mul(self.encoder_channels);
        let widths = [self.audio_channels * self.patch_size].into_iter().chain(self.encoder_c_mults.iter().map(width));
        let widths: Vec<usize> = widths.collect();
        let sinusoidal =
            |i: usize| *self.decoder_sinusoidal_blocks.get(i).unwrap_or(&self.decoder_sinusoidal_blocks[0]);
        let level = |i: usize| Level {
            inputs: widths[i + 1],
            outputs: widths[i],
            stride: self.encoder_strides[i],
            depth: self.encoder_transformer_depths[i],
            sinusoidal: sinusoidal(i),
        };
        (0..self.encoder_strides.len()).rev().map(level).collect()
    }

    /// The width of the tokens next to the latents.
    pub(super) fn widest(&self) -> usize {
        self.encoder_c_mults.last().copied().unwrap_or(0) * self.encoder_channels
    }

    /// Channels of a head of tokens of this width.
    pub(super) fn head(&self, width: usize) -> usize {
        self.dim_heads.min(width)
    }

    /// Samples of each channel for each place of the latents.
    pub fn samples_per_latent(&self) -> usize {
        self.patch_size * self.encoder_strides.iter().product::<usize>()
    }

    /// The demand of decoding one row of `length` latents.
    pub fn decode_demand(&self, length: usize) -> Demand {
        let maps = if self.use_differential_attention { 2 } else { 1 };
        let mut demand = Demand::default();
        let mut tokens = length;
        for Level { inputs: width, outputs, stride, depth, .. } in self.decoder_levels() {
            let all = tokens * (stride + 1);
            let window = self.sliding_window * (stride + 1);
            let linear = width * (2 * maps + 2 + 3 * self.ff_mult);
            // A part of the sequence has 2 · window queries and 4 · window keys.
            let layer = all as f64 * width as f64 * (linear + 2 * maps * 4 * window.min(all)) as f64;
            tokens *= stride;
            let work = depth as f64 * layer + (tokens * width * outputs) as f64;
            // Memory holds the tokens, their norm, queries, keys and values with their copies and the maps; or the
            // inner part of the feed-forward layers, with values and gates apart.
            let floats = all * width * (3 + (3 * maps + 4).max(4 * self.ff_mult));
            demand = demand.then(Demand { work, bytes: bytes(floats.max(tokens * (width + 2 * outputs))) });
        }
        demand
    }
}
