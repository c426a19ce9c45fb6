//! The configuration of an `AutoencoderKLTemporalDecoder`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        autoencoder_kl::{AutoencoderKlConfig, DecoderBlockType, EncoderBlockType},
        configuration::{SampleSize, read},
        spatio_temporal_resnet::{GROUPS, ShareOf, SpatioTemporalKind},
    },
    weights::LoadError,
};

/// The sizes of the network.
#[derive(Clone, Debug)]
pub struct AutoencoderKlTemporalDecoderConfig {
    /// The autoencoder of pictures with the same encoder and the same sizes of the decoder.
    pub pictures: AutoencoderKlConfig,
}

/// The keys of `vae/config.json`, with diffusers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Keys {
    in_channels: usize,
    out_channels: usize,
    down_block_types: Vec<EncoderBlockType>,
    block_out_channels: Vec<usize>,
    layers_per_block: usize,
    latent_channels: usize,
    sample_size: SampleSize,
    scaling_factor: f64,
    force_upcast: bool,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec![EncoderBlockType::DownEncoderBlock2D],
            block_out_channels: vec![64],
            layers_per_block: 1,
            latent_channels: 4,
            sample_size: SampleSize::Square(32),
            scaling_factor: 0.18215,
            force_upcast: true,
        }
    }
}

impl AutoencoderKlTemporalDecoderConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let keys: Keys = read(path, keys, &[])?;
        let pictures = AutoencoderKlConfig {
            in_channels: keys.in_channels,
            out_channels: keys.out_channels,
            up_block_types: vec![DecoderBlockType::UpDecoderBlock2D; keys.block_out_channels.len()],
            down_block_types: keys.down_block_types,
            block_out_channels: keys.block_out_channels,
            layers_per_block: keys.layers_per_block,
            latent_channels: keys.latent_channels,
            norm_num_groups: GROUPS,
            scaling_factor: keys.scaling_factor,
            use_post_quant_conv: false,
            force_upcast: Some(keys.force_upcast),
            sample_size: Some(keys.sample_size),
            ..AutoencoderKlConfig::default()
        };
        pictures.check(path)?;
        for (key, channels) in [("in_channels", pictures.in_channels), ("out_channels", pictures.out_channels)] {
            if channels != 3 {
                let reason = format!("must be 3, the channels of a picture, not {channels}");
                return Err(LoadError::BadKey { path: path.into(), key: key.into(), reason });
            }
        }
        Ok(Self { pictures })
    }

    /// The parameters of the decoder's residual blocks.
    pub(super) fn resnet() -> SpatioTemporalKind {
        SpatioTemporalKind { eps: 1e-6, temporal_eps: 1e-5, time_embed_dim: None, share_of: ShareOf::Frames }
    }

    /// The input and output channels of the up block `i`, counted from the latents.
    pub(super) fn widths(&self, i: usize) -> (usize, usize) {
        let channels = &self.pictures.block_out_channels;
        let last = channels.len() - 1;
        (channels[(last - i + 1).min(last)], channels[last - i])
    }
}
