//! The configuration of a `VQModel`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        autoencoder_kl::{AutoencoderKlConfig, DecoderBlockType, EncoderBlockType},
        configuration::{Fixed, SampleSize, WIDEST, read, within},
        demand::Demand,
    },
    weights::LoadError,
};

/// The keys of `vqvae/config.json` that the network supports, with diffusers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct VqModelConfig {
    pub in_channels: usize,
    pub out_channels: usize,
    pub down_block_types: Vec<EncoderBlockType>,
    pub up_block_types: Vec<DecoderBlockType>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub latent_channels: usize,
    pub num_vq_embeddings: usize,
    /// Width of a code; `latent_channels` if absent.
    pub vq_embed_dim: Option<usize>,
    pub norm_num_groups: usize,
    pub mid_block_add_attention: bool,
    /// Latents of the U-Net are divided by this factor before the nearest codes are searched.
    pub scaling_factor: f64,
    pub sample_size: SampleSize,
}

impl Default for VqModelConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec![EncoderBlockType::DownEncoderBlock2D],
            up_block_types: vec![DecoderBlockType::UpDecoderBlock2D],
            block_out_channels: vec![64],
            layers_per_block: 1,
            latent_channels: 3,
            num_vq_embeddings: 256,
            vq_embed_dim: None,
            norm_num_groups: 32,
            mid_block_add_attention: true,
            scaling_factor: 0.18215,
            sample_size: SampleSize::Square(32),
        }
    }
}

const FIXED: &[Fixed] = &[
    ("act_fn", &[r#""silu""#, r#""swish""#]),
    ("force_upcast", &["true", "false"]), // everything is computed in float32 either way
    ("lookup_from_codebook", &["false"]),
    ("norm_type", &[r#""group""#]),
];

/// The largest supported number of codes.
const MOST_CODES: usize = 1 << 20;

impl VqModelConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        let (scaling_factor, sample_size) = (config.scaling_factor, Some(config.sample_size));
        AutoencoderKlConfig { scaling_factor, sample_size, ..config.autoencoder() }.check(path)?;
        within(path, "vq_embed_dim", config.embedding_width(), WIDEST)?;
        within(path, "num_vq_embeddings", config.num_vq_embeddings, MOST_CODES)?;
        Ok(config)
    }

    /// Width of a code.
    pub fn embedding_width(&self) -> usize {
        self.vq_embed_dim.unwrap_or(self.latent_channels)
    }

    /// Pixels per latent pixel, along one side.
    pub fn scale(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// The demand of decoding one row of (h, w) latent pixels, including the search in the codebook.
    pub fn decode_demand(&self, h: usize, w: usize) -> Demand {
        let lookup = (self.num_vq_embeddings * self.embedding_width() * h * w) as f64;
        Demand { work: lookup, bytes: 0 }.then(self.autoencoder().decode_demand(h, w))
    }

    /// The configuration of encoder and decoder, which are the same networks as in an `AutoencoderKL`.
    pub(super) fn autoencoder(&self) -> AutoencoderKlConfig {
        AutoencoderKlConfig {
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            down_block_types: self.down_block_types.clone(),
            up_block_types: self.up_block_types.clone(),
            block_out_channels: self.block_out_channels.clone(),
            layers_per_block: self.layers_per_block,
            latent_channels: self.latent_channels,
            norm_num_groups: self.norm_num_groups,
            mid_block_add_attention: self.mid_block_add_attention,
            ..AutoencoderKlConfig::default()
        }
    }
}
