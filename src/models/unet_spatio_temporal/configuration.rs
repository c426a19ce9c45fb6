//! The configuration of a `UNetSpatioTemporalConditionModel`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::TIME_IDS;
use crate::{
    models::{
        configuration::{LARGEST_SAMPLE, PerBlock, SampleSize, WIDEST, divides, entries, per_block, read, within},
        spatio_temporal_resnet::{GROUPS, ShareOf, SpatioTemporalKind},
        spatio_temporal_transformer::ClipTransformerKind,
    },
    weights::LoadError,
};

/// The keys of `unet/config.json` that the network supports, with diffusers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct UNetSpatioTemporalConfig {
    pub sample_size: Option<SampleSize>,
    /// Channels of the noisy latents and of the picture's latents together.
    pub in_channels: usize,
    pub out_channels: usize,
    pub down_block_types: Vec<ClipDownBlockType>,
    pub up_block_types: Vec<ClipUpBlockType>,
    pub block_out_channels: Vec<usize>,
    pub addition_time_embed_dim: usize,
    pub projection_class_embeddings_input_dim: usize,
    pub layers_per_block: PerBlock,
    pub cross_attention_dim: PerBlock,
    pub transformer_layers_per_block: PerBlock,
    pub num_attention_heads: PerBlock,
    /// The number of frames that the network was trained on.
    pub num_frames: usize,
}

/// Supported types of blocks on the way down, by diffusers' class names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClipDownBlockType {
    DownBlockSpatioTemporal,
    CrossAttnDownBlockSpatioTemporal,
}

/// Supported types of blocks on the way up, by diffusers' class names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClipUpBlockType {
    UpBlockSpatioTemporal,
    CrossAttnUpBlockSpatioTemporal,
}

impl ClipDownBlockType {
    pub(super) fn is_attended(self) -> bool {
        self == Self::CrossAttnDownBlockSpatioTemporal
    }

    /// The epsilon of the norms. In diffusers, it depends on the type of the block and is no setting.
    pub(super) fn eps(self) -> f64 {
        match self {
            Self::DownBlockSpatioTemporal => 1e-5,
            Self::CrossAttnDownBlockSpatioTemporal => 1e-6,
        }
    }
}

impl ClipUpBlockType {
    pub(super) fn is_attended(self) -> bool {
        self == Self::CrossAttnUpBlockSpatioTemporal
    }
}

impl Default for UNetSpatioTemporalConfig {
    fn default() -> Self {
        use {ClipDownBlockType as Down, ClipUpBlockType as Up};
        let (down, up) = (Down::CrossAttnDownBlockSpatioTemporal, Up::CrossAttnUpBlockSpatioTemporal);
        Self {
            sample_size: None,
            in_channels: 8,
            out_channels: 4,
            down_block_types: vec![down, down, down, Down::DownBlockSpatioTemporal],
            up_block_types: vec![Up::UpBlockSpatioTemporal, up, up, up],
            block_out_channels: vec![320, 640, 1280, 1280],
            addition_time_embed_dim: 256,
            projection_class_embeddings_input_dim: 768,
            layers_per_block: PerBlock::All(2),
            cross_attention_dim: PerBlock::All(1024),
            transformer_layers_per_block: PerBlock::All(1),
            num_attention_heads: PerBlock::Each(vec![5, 10, 20, 20]),
            num_frames: 25,
        }
    }
}

impl UNetSpatioTemporalConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, &[])?;
        let blocks = config.block_out_channels.len();
        entries(path, "block_out_channels", blocks, 8)?;
        per_block(path, "down_block_types", config.down_block_types.len(), blocks)?;
        per_block(path, "up_block_types", config.up_block_types.len(), blocks)?;
        for (key, values, most) in [
            ("layers_per_block", &config.layers_per_block, 16),
            ("cross_attention_dim", &config.cross_attention_dim, WIDEST),
            ("transformer_layers_per_block", &config.transformer_layers_per_block, 64),
            ("num_attention_heads", &config.num_attention_heads, WIDEST),
        ] {
            values.check(path, key, blocks, most)?;
        }
        for (i, channels) in config.block_out_channels.iter().enumerate() {
            within(path, "block_out_channels", *channels, WIDEST)?;
            divides(path, "block_out_channels", GROUPS, *channels)?;
            divides(path, "num_attention_heads", config.num_attention_heads.at(i), *channels)?;
            if config.cross_attention_dim.at(i) != config.vector_width() {
                let (key, reason) = ("cross_attention_dim".into(), "must be the same for all blocks".to_owned());
                return Err(LoadError::BadKey { path: path.into(), key, reason });
            }
        }
        for (key, value) in [
            ("in_channels", config.in_channels),
            ("out_channels", config.out_channels),
            ("addition_time_embed_dim", config.addition_time_embed_dim),
        ] {
            within(path, key, value, WIDEST)?;
        }
        within(path, "num_frames", config.num_frames, 1 << 10)?;
        if let Some(size) = config.sample_size {
            size.check(path, LARGEST_SAMPLE)?;
        }
        let wanted = TIME_IDS * config.addition_time_embed_dim;
        if config.projection_class_embeddings_input_dim != wanted {
            let key = "projection_class_embeddings_input_dim".into();
            let reason = format!("must be {wanted}, three times addition_time_embed_dim");
            return Err(LoadError::BadKey { path: path.into(), key, reason });
        }
        Ok(config)
    }

    /// V: width of the vector of a picture.
    pub fn vector_width(&self) -> usize {
        self.cross_attention_dim.at(0)
    }

    /// E: width of the time embedding.
    pub(super) fn time_width(&self) -> usize {
        4 * self.block_out_channels[0]
    }

    pub(super) fn resnet(&self, eps: f64) -> SpatioTemporalKind {
        let time_embed_dim = Some(self.time_width());
        SpatioTemporalKind { eps, temporal_eps: eps, time_embed_dim, share_of: ShareOf::Places }
    }

    /// The parameters of the transformers at `level`, counted from the input.
    pub(super) fn transformer(&self, level: usize) -> ClipTransformerKind {
        ClipTransformerKind {
            channels: self.block_out_channels[level],
            heads: self.num_attention_heads.at(level),
            layers: self.transformer_layers_per_block.at(level),
            vector: self.vector_width(),
        }
    }
}
