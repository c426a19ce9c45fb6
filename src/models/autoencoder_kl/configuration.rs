//! The configuration of an `AutoencoderKL`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Tiles;
use crate::{
    models::{
        configuration::{
            Fixed, LARGEST_PICTURE, LARGEST_SCALE, SampleSize, WIDEST, between, divides, entries, per_block, read,
            within,
        },
        resnet::{ResnetKind, TimeEmbeddingNorm},
    },
    weights::LoadError,
};

/// The keys of `vae/config.json` that the network supports, with diffusers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderKlConfig {
    pub in_channels: usize,
    pub out_channels: usize,
    pub down_block_types: Vec<EncoderBlockType>,
    pub up_block_types: Vec<DecoderBlockType>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub latent_channels: usize,
    pub norm_num_groups: usize,
    /// Latents for the U-Net are the autoencoder's latents times this factor.
    pub scaling_factor: f64,
    /// Ignored, as in diffusers' pipelines of Stable Diffusion.
    pub shift_factor: Option<f64>,
    pub use_quant_conv: bool,
    pub use_post_quant_conv: bool,
    pub mid_block_add_attention: bool,
    /// Whether the network stays in float32 if the other networks have 16 bits, because its numbers exceed float16.
    /// `None`: the family decides.
    pub force_upcast: Option<bool>,
    /// Size in pixels of the pictures that the autoencoder was trained on. The side of a tile is this height, limited
    /// to the bounds in `tiles.rs`.
    pub sample_size: Option<SampleSize>,
}

impl Default for AutoencoderKlConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec![EncoderBlockType::DownEncoderBlock2D],
            up_block_types: vec![DecoderBlockType::UpDecoderBlock2D],
            block_out_channels: vec![64],
            layers_per_block: 1,
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            force_upcast: None,
            sample_size: Some(SampleSize::Square(32)),
        }
    }
}

/// Supported types of encoder blocks, by diffusers' class names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EncoderBlockType {
    DownEncoderBlock2D,
}

/// Supported types of decoder blocks, by diffusers' class names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DecoderBlockType {
    UpDecoderBlock2D,
}

const FIXED: &[Fixed] =
    &[("act_fn", &[r#""silu""#, r#""swish""#]), ("latents_mean", &["null"]), ("latents_std", &["null"])];

impl AutoencoderKlConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        config.check(path)?;
        Ok(config)
    }

    /// Checks that encoder and decoder support these sizes.
    ///
    /// # Errors
    /// Names a key that they do not support.
    pub(in crate::models) fn check(&self, path: &str) -> Result<(), LoadError> {
        let blocks = self.block_out_channels.len();
        entries(path, "block_out_channels", blocks, 8)?;
        per_block(path, "down_block_types", self.down_block_types.len(), blocks)?;
        per_block(path, "up_block_types", self.up_block_types.len(), blocks)?;
        for channels in &self.block_out_channels {
            within(path, "block_out_channels", *channels, WIDEST)?;
            divides(path, "norm_num_groups", self.norm_num_groups, *channels)?;
        }
        within(path, "layers_per_block", self.layers_per_block, 16)?;
        for (key, channels) in [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("latent_channels", self.latent_channels),
        ] {
            within(path, key, channels, WIDEST)?;
        }
        if let Some(size) = self.sample_size {
            size.check(path, LARGEST_PICTURE)?;
        }
        between(path, "scaling_factor", self.scaling_factor, 1.0 / LARGEST_SCALE, LARGEST_SCALE)?;
        between(path, "shift_factor", self.shift_factor.unwrap_or(0.0), -LARGEST_SCALE, LARGEST_SCALE)
    }

    /// Pixels per latent pixel, along one side.
    pub fn scale(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// The tiles in which latents of (h, w) are decoded.
    pub fn tiles(&self, h: usize, w: usize) -> Tiles {
        Tiles::of(self, h, w)
    }

    pub(super) fn resnet(&self) -> ResnetKind {
        ResnetKind {
            groups: self.norm_num_groups,
            groups_out: self.norm_num_groups,
            eps: 1e-6,
            time_embed_dim: None,
            time_embedding_norm: TimeEmbeddingNorm::Default,
            output_scale_factor: 1.0,
            separable: false,
        }
    }
}
