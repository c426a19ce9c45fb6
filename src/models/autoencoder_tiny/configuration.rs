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

/// The keys of the `config.json` of a `vae` or `vae_tiny` that the network supports, with diffusers' names and
/// defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderTinyConfig {
    pub latent_channels: usize,
    /// Channels of the encoder's input. [`AutoencoderTinyConfig::read`] checks no key of the encoder.
    pub in_channels: usize,
    pub out_channels: usize,
    pub encoder_block_out_channels: Vec<usize>,
    pub decoder_block_out_channels: Vec<usize>,
    pub num_encoder_blocks: Vec<usize>,
    pub num_decoder_blocks: Vec<usize>,
    /// The factor by which each block except the last enlarges each side of the map.
    pub upsampling_scaling_factor: usize,
    /// The denoiser's latents are divided by this factor before they are decoded.
    pub scaling_factor: f64,
    /// Added to the quotient. Stable Diffusion ignores it, as diffusers' pipelines do.
    pub shift_factor: f64,
}

impl Default for AutoencoderTinyConfig {
    fn default() -> Self {
        Self {
            latent_channels: 4,
            in_channels: 3,
            out_channels: 3,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            upsampling_scaling_factor: 2,
            scaling_factor: 1.0,
            shift_factor: 0.0,
        }
    }
}

const FIXED: &[Fixed] = &[
    ("act_fn", &[r#""relu""#]),
    ("block_out_channels", &[]),          // repeats `decoder_block_out_channels`
    ("force_upcast", &["true", "false"]), // everything is computed in float32 either way
    ("latent_magnitude", &[]),            // used only for latents that are stored as pictures
    ("latent_shift", &[]),
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

    /// Reads the keys of the file at `path`, for the encoder and the decoder.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read_both(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config = Self::read(path, keys)?;
        let bad = |key: &str, reason: String| Err(LoadError::BadKey { path: path.into(), key: key.into(), reason });
        let (channels, blocks) = (&config.encoder_block_out_channels, config.num_decoder_blocks.len());
        per_block(path, "encoder_block_out_channels", channels.len(), blocks)?;
        within(path, "encoder_block_out_channels", channels[0], WIDEST)?;
        if channels.iter().any(|width| *width != channels[0]) {
            return bad("encoder_block_out_channels", "the blocks have different widths".to_owned());
        }
        per_block(path, "num_encoder_blocks", config.num_encoder_blocks.len(), blocks)?;
        config.num_encoder_blocks.iter().try_for_each(|blocks| within(path, "num_encoder_blocks", *blocks, 64))?;
        for (key, value, wanted, what) in [
            ("in_channels", config.in_channels, 3, "the channels of a picture"),
            ("out_channels", config.out_channels, 3, "the channels of a picture"),
            ("upsampling_scaling_factor", config.upsampling_scaling_factor, 2, "as the encoder halves each side"),
        ] {
            if value != wanted {
                return bad(key, format!("must be {wanted}, {what}, not {value}"));
            }
        }
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

    /// The demand of encoding one picture of (H, W) pixels.
    pub fn encode_demand(&self, [height, width]: [usize; 2]) -> Demand {
        let (channels, mut places) = (self.encoder_width(), height * width);
        let mut demand = Demand::default();
        for (i, blocks) in self.num_encoder_blocks.iter().enumerate() {
            let (inputs, before) = if i == 0 { (self.in_channels, places) } else { (channels, places) };
            places = if i == 0 { places } else { places.div_ceil(4) };
            demand = demand.then(conv(places, 3, inputs, channels, before));
            for _ in 0..3 * blocks {
                demand = demand.then(conv(places, 3, channels, channels, 2 * places));
            }
        }
        demand.then(conv(places, 3, channels, self.latent_channels, places))
    }

    /// Channels of every block of the encoder.
    pub(super) fn encoder_width(&self) -> usize {
        self.encoder_block_out_channels[0]
    }

    /// Channels of every block of the decoder.
    pub(super) fn width(&self) -> usize {
        self.decoder_block_out_channels[0]
    }
}
