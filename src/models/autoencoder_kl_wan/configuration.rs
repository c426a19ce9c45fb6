//! The configuration of an `AutoencoderKLWan`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::configuration::{Fixed, WIDEST, between, divides, entries, per_block, read, within},
    weights::LoadError,
};

/// The keys of `vae/config.json`, with diffusers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderKlWanConfig {
    /// The width of the encoder next to the pixels.
    pub base_dim: usize,
    /// The width of the decoder next to the pixels; `None`: the width of the encoder.
    pub decoder_base_dim: Option<usize>,
    /// Channels of the latents.
    pub z_dim: usize,
    /// The widths of the levels in multiples of the width next to the pixels, from the pixels to the latents.
    pub dim_mult: Vec<usize>,
    pub num_res_blocks: usize,
    /// For each level except the last: whether the encoder halves the number of frames after the level. This is so for
    /// exactly two levels.
    pub temperal_downsample: Vec<bool>,
    pub latents_mean: Vec<f64>,
    pub latents_std: Vec<f64>,
    /// Whether the levels have shortcuts around them, as in Wan 2.2.
    pub is_residual: bool,
    pub in_channels: usize,
    pub out_channels: usize,
    /// Pixels along one side of the squares whose channels are put side by side; `None`: 1.
    pub patch_size: Option<usize>,
    pub scale_factor_temporal: Option<usize>,
    /// Pixels per latent pixel, along one side.
    pub scale_factor_spatial: Option<usize>,
}

/// Training alone uses the dropout. `clip_output` is in the published file of Wan 2.2 5B, but the network of diffusers
/// 0.42.1 has no such setting and always bounds the levels.
const FIXED: &[Fixed] = &[("attn_scales", &["[]"]), ("dropout", &[]), ("clip_output", &[])];

/// The frames of a film for each latent frame after the first.
const FRAMES_PER_LATENT: usize = 4;

const MEAN: [f64; 16] = [
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922,
    -0.9497, 0.2503, -0.2921,
];
const STD: [f64; 16] = [
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253,
    2.8251, 1.9160,
];

impl Default for AutoencoderKlWanConfig {
    fn default() -> Self {
        Self {
            base_dim: 96,
            decoder_base_dim: None,
            z_dim: 16,
            dim_mult: vec![1, 2, 4, 4],
            num_res_blocks: 2,
            temperal_downsample: vec![false, true, true],
            latents_mean: MEAN.to_vec(),
            latents_std: STD.to_vec(),
            is_residual: false,
            in_channels: 3,
            out_channels: 3,
            patch_size: None,
            scale_factor_temporal: Some(FRAMES_PER_LATENT),
            scale_factor_spatial: Some(8),
        }
    }
}

impl AutoencoderKlWanConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        for (key, value, most) in [
            ("base_dim", config.base_dim, WIDEST),
            ("decoder_base_dim", config.decoder_dim(), WIDEST),
            ("z_dim", config.z_dim, WIDEST),
            ("num_res_blocks", config.num_res_blocks, 64),
            ("patch_size", config.patch(), 16),
        ] {
            within(path, key, value, most)?;
        }
        let levels = config.dim_mult.len();
        entries(path, "dim_mult", levels, 8)?;
        for mult in &config.dim_mult {
            within(path, "dim_mult", mult.saturating_mul(config.base_dim.max(config.decoder_dim())), WIDEST)?;
        }
        per_block(path, "temperal_downsample", config.temperal_downsample.len(), levels - 1)?;
        let bad = |key: &str, reason: String| LoadError::BadKey { path: path.into(), key: key.into(), reason };
        let halvings = config.temperal_downsample.iter().filter(|halves| **halves).count();
        if halvings != 2 {
            return Err(bad("temperal_downsample", format!("must be true twice, not {halvings} times")));
        }
        let pixel = 3 * config.patch() * config.patch();
        for (key, value, wanted, what) in [
            ("in_channels", config.in_channels, pixel, "the colors of the pixels of a patch"),
            ("out_channels", config.out_channels, pixel, "the colors of the pixels of a patch"),
            (
                "latents_mean",
                config.latents_mean.len(),
                config.z_dim,
                "the length of a list with one entry per channel",
            ),
            ("latents_std", config.latents_std.len(), config.z_dim, "the length of a list with one entry per channel"),
            (
                "scale_factor_temporal",
                config.scale_factor_temporal.unwrap_or(FRAMES_PER_LATENT),
                FRAMES_PER_LATENT,
                "the frames of a latent frame",
            ),
            (
                "scale_factor_spatial",
                config.scale_factor_spatial.unwrap_or(config.scale()),
                config.scale(),
                "the pixels of a latent pixel",
            ),
        ] {
            if value != wanted {
                return Err(bad(key, format!("must be {wanted}, {what}, not {value}")));
            }
        }
        config.latents_mean.iter().try_for_each(|mean| between(path, "latents_mean", *mean, -1e6, 1e6))?;
        config.latents_std.iter().try_for_each(|std| between(path, "latents_std", *std, 1e-6, 1e6))?;
        config.check_shortcuts(path)?;
        Ok(config)
    }

    /// A shortcut averages or repeats channels in groups of equal size.
    fn check_shortcuts(&self, path: &str) -> Result<(), LoadError> {
        for shortcut in self.encoder().iter().filter_map(|layer| layer.kind.average()) {
            divides(path, "dim_mult", shortcut.outputs, shortcut.inputs * shortcut.factor())?;
        }
        for shortcut in self.decoder().iter().filter_map(|layer| layer.kind.repeat()) {
            divides(path, "dim_mult", shortcut.inputs, shortcut.outputs * shortcut.factor())?;
        }
        Ok(())
    }

    /// Pixels per latent pixel, along one side.
    pub fn scale(&self) -> usize {
        self.patch() << (self.dim_mult.len() - 1)
    }

    /// Latent frames of a film of `frames` frames, which is 1 or one more than a multiple of four.
    pub fn latent_frames(&self, frames: usize) -> usize {
        frames.saturating_sub(1) / FRAMES_PER_LATENT + 1
    }

    /// Frames of a piece of `latents` latent frames of a film.
    pub fn frames(&self, latents: usize, is_first: bool) -> usize {
        if is_first { latents.saturating_sub(1) * FRAMES_PER_LATENT + 1 } else { latents * FRAMES_PER_LATENT }
    }

    pub(super) fn decoder_dim(&self) -> usize {
        self.decoder_base_dim.unwrap_or(self.base_dim)
    }

    pub(super) fn patch(&self) -> usize {
        self.patch_size.unwrap_or(1)
    }
}
