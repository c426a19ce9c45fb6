//! The configuration of an `AutoencoderTiny`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        configuration::{Fixed, LARGEST_SCALE, WIDEST, between, entries, per_block, read, within},
        demand::{Demand, conv},
    },
    weights::LoadError,
};

/// The keys of `vae_tiny/config.json` that the decoder supports, with diffusers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderTinyConfig {
    pub latent_channels: usize,
    pub out_channels: usize,
    pub decoder_block_out_channels: Vec<usize>,
    pub num_decoder_blocks: Vec<usize>,
    /// The factor by which each block except the last enlarges each side of the map.
    pub upsampling_scaling_factor: usize,
    /// Latents of the U-Net are the autoencoder's latents times this factor.
    pub scaling_factor: f64,
    /// Ignored, as in diffusers' pipelines of Stable Diffusion.
    pub shift_factor: f64,
}

impl Default for AutoencoderTinyConfig {
    fn default() -> Self {
        Self {
            latent_channels: 4,
            out_channels: 3,
            decoder_block_out_channels: vec![64; 4],
            num_decoder_blocks: vec![3, 3, 3, 1],
            upsampling_scaling_factor: 2,
            scaling_factor: 1.0,
            shift_factor: 0.0,
        }
    }
}

const FIXED: &[Fixed] = &[
    ("act_fn", &[r#""relu""#]),
    ("block_out_channels", &[]), // repeats `decoder_block_out_channels`
    ("encoder_block_out_channels", &[]),
    ("force_upcast", &["true", "false"]), // everything is computed in float32 either way
    ("in_channels", &[]),
    ("latent_magnitude", &[]), // used only for latents that are stored as pictures
    ("latent_shift", &[]),
    ("num_encoder_blocks", &[]),
    ("upsample_fn", &[r#""nearest""#]),
];

impl AutoencoderTinyConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the decoder does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        let bad = |key: &str, reason: &str| {
            Err(LoadError::BadKey { path: path.into(), key: key.into(), reason: reason.into() })
        };
        let channels = &config.decoder_block_out_channels;
        entries(path, "decoder_block_out_channels", channels.len(), 8)?;
        within(path, "decoder_block_out_channels", channels[0], WIDEST)?;
        if channels.iter().any(|width| *width != channels[0]) {
            return bad("decoder_block_out_channels", "the blocks have different widths");
        }
        per_block(path, "num_decoder_blocks", config.num_decoder_blocks.len(), channels.len())?;
        config.num_decoder_blocks.iter().try_for_each(|blocks| within(path, "num_decoder_blocks", *blocks, 64))?;
        for (key, value, most) in [
            ("latent_channels", config.latent_channels, WIDEST),
            ("out_channels", config.out_channels, WIDEST),
            ("upsampling_scaling_factor", config.upsampling_scaling_factor, 4),
        ] {
            within(path, key, value, most)?;
        }
        between(path, "scaling_factor", config.scaling_factor, 1.0 / LARGEST_SCALE, LARGEST_SCALE)?;
        between(path, "shift_factor", config.shift_factor, -LARGEST_SCALE, LARGEST_SCALE)?;
        Ok(config)
    }

    /// Pixels per latent pixel, along one side.
    pub fn scale(&self) -> usize {
        self.upsampling_scaling_factor.pow(self.num_decoder_blocks.len() as u32 - 1)
    }

    /// The demand of decoding one row of (h, w) latent pixels. Besides the input and the output of a layer, only the
    /// residual of its block is in memory.
    pub fn demand(&self, [h, w]: [usize; 2]) -> Demand {
        let (width, mut places) = (self.width(), h * w);
        let last = self.num_decoder_blocks.len() - 1;
        let mut demand = conv(places, 3, self.latent_channels, width, places);
        for (i, blocks) in self.num_decoder_blocks.iter().enumerate() {
            for _ in 0..3 * blocks {
                demand = demand.then(conv(places, 3, width, width, 2 * places));
            }
            if i < last {
                places *= self.upsampling_scaling_factor.pow(2);
                demand = demand.then(conv(places, 3, width, width, places));
            }
        }
        demand.then(conv(places, 3, width, self.out_channels, places))
    }

    /// Channels of every block.
    pub(super) fn width(&self) -> usize {
        self.decoder_block_out_channels[0]
    }
}
