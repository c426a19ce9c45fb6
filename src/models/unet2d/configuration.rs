//! The configuration of a `UNet2DModel`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        configuration::{
            Fixed, LARGEST_EPS, LARGEST_SAMPLE, SampleSize, WIDEST, between, divides, entries, per_block, read, within,
        },
        resnet::TimeEmbeddingNorm,
    },
    weights::LoadError,
};

/// The keys of `unet/config.json` that the network supports, with diffusers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct UNet2DConfig {
    pub sample_size: Option<SampleSize>,
    pub in_channels: usize,
    pub out_channels: usize,
    pub center_input_sample: bool,
    pub time_embedding_type: TimeEmbeddingType,
    pub time_embedding_dim: Option<usize>,
    pub freq_shift: f64,
    pub flip_sin_to_cos: bool,
    pub down_block_types: Vec<DownBlockType>,
    /// `None`: no block between the way down and the way up.
    pub mid_block_type: Option<MidBlockType>,
    pub up_block_types: Vec<UpBlockType>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub mid_block_scale_factor: f64,
    pub downsample_padding: usize,
    /// How `AttnDownBlock2D` halves its map.
    pub downsample_type: ResampleType,
    /// How `AttnUpBlock2D` doubles its map.
    pub upsample_type: ResampleType,
    /// Width of a head; `None`: one head with all channels.
    pub attention_head_dim: Option<usize>,
    /// `None`: a quarter of the channels, at least 1 and at most 32.
    pub norm_num_groups: Option<usize>,
    /// Groups of the norm before the attention of the middle block.
    pub attn_norm_num_groups: Option<usize>,
    pub norm_eps: f64,
    pub resnet_time_scale_shift: TimeEmbeddingNorm,
    /// Whether the middle block has attention.
    pub add_attention: bool,
    pub class_embed_type: Option<ClassEmbedType>,
    pub num_class_embeds: Option<usize>,
    /// Number of timesteps of a learned time embedding.
    pub num_train_timesteps: Option<usize>,
}

impl Default for UNet2DConfig {
    fn default() -> Self {
        use {DownBlockType::*, UpBlockType::*};
        Self {
            sample_size: None,
            in_channels: 3,
            out_channels: 3,
            center_input_sample: false,
            time_embedding_type: TimeEmbeddingType::Positional,
            time_embedding_dim: None,
            freq_shift: 0.0,
            flip_sin_to_cos: true,
            down_block_types: vec![DownBlock2D, AttnDownBlock2D, AttnDownBlock2D, AttnDownBlock2D],
            mid_block_type: Some(MidBlockType::UNetMidBlock2D),
            up_block_types: vec![AttnUpBlock2D, AttnUpBlock2D, AttnUpBlock2D, UpBlock2D],
            block_out_channels: vec![224, 448, 672, 896],
            layers_per_block: 2,
            mid_block_scale_factor: 1.0,
            downsample_padding: 1,
            downsample_type: ResampleType::Conv,
            upsample_type: ResampleType::Conv,
            attention_head_dim: Some(8),
            norm_num_groups: Some(32),
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            resnet_time_scale_shift: TimeEmbeddingNorm::Default,
            add_attention: true,
            class_embed_type: None,
            num_class_embeds: None,
            num_train_timesteps: None,
        }
    }
}

/// The input from which the time embedding is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeEmbeddingType {
    /// Sines and cosines of the timestep.
    Positional,
    /// Sines and cosines of the logarithm of the noise level, at random frequencies that are part of the weights. The
    /// output of the network is divided by the noise level.
    Fourier,
    /// One vector for each timestep.
    Learned,
}

/// Blocks on the way down, by diffusers' class names. In the first published files, each name has the prefix `UNetRes`,
/// which diffusers ignores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlockType {
    #[serde(alias = "UNetResDownBlock2D")]
    DownBlock2D,
    #[serde(alias = "UNetResAttnDownBlock2D")]
    AttnDownBlock2D,
    #[serde(alias = "UNetResResnetDownsampleBlock2D")]
    ResnetDownsampleBlock2D,
    #[serde(alias = "UNetResSkipDownBlock2D")]
    SkipDownBlock2D,
    #[serde(alias = "UNetResAttnSkipDownBlock2D")]
    AttnSkipDownBlock2D,
}

/// Middle blocks, by diffusers' class names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MidBlockType {
    UNetMidBlock2D,
}

/// Blocks on the way up; see [`DownBlockType`] for the prefix of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlockType {
    #[serde(alias = "UNetResUpBlock2D")]
    UpBlock2D,
    #[serde(alias = "UNetResAttnUpBlock2D")]
    AttnUpBlock2D,
    #[serde(alias = "UNetResResnetUpsampleBlock2D")]
    ResnetUpsampleBlock2D,
    #[serde(alias = "UNetResSkipUpBlock2D")]
    SkipUpBlock2D,
    #[serde(alias = "UNetResAttnSkipUpBlock2D")]
    AttnSkipUpBlock2D,
}

/// The layers that change the size of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResampleType {
    Conv,
    Resnet,
}

/// The input of the class embedding. Without this key, the embedding is one vector for each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassEmbedType {
    /// The number of the class, embedded like a timestep.
    Timestep,
}

const FIXED: &[Fixed] = &[
    ("act_fn", &[r#""silu""#, r#""swish""#]),
    ("dropout", &[]), // used in training only
];

impl UNet2DConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &str) -> Result<(), LoadError> {
        let bad = |key: &str, reason: String| LoadError::BadKey { path: path.into(), key: key.into(), reason };
        let blocks = self.block_out_channels.len();
        entries(path, "block_out_channels", blocks, 12)?;
        per_block(path, "down_block_types", self.down_block_types.len(), blocks)?;
        per_block(path, "up_block_types", self.up_block_types.len(), blocks)?;
        within(path, "layers_per_block", self.layers_per_block, 16)?;
        for channels in &self.block_out_channels {
            within(path, "block_out_channels", *channels, WIDEST)?;
        }
        within(path, "in_channels", self.in_channels, WIDEST)?;
        within(path, "out_channels", self.out_channels, WIDEST)?;
        within(path, "time_embedding_dim", self.time_width(), 4 * WIDEST)?;
        if let Some(size) = self.sample_size {
            size.check(path, LARGEST_SAMPLE)?;
            let (h, w) = size.height_width();
            divides(path, "sample_size", self.unit(), h)?;
            divides(path, "sample_size", self.unit(), w)?;
        }
        if self.downsample_padding > 1 {
            return Err(bad("downsample_padding", format!("{} is not 0 or 1", self.downsample_padding)));
        }
        between(path, "norm_eps", self.norm_eps, 0.0, LARGEST_EPS)?;
        between(path, "mid_block_scale_factor", self.mid_block_scale_factor, 1e-3, 1e3)?;
        between(path, "freq_shift", self.freq_shift, -(WIDEST as f64), WIDEST as f64)?;
        if self.freq_shift >= (self.block_out_channels[0] / 2) as f64 {
            return Err(bad("freq_shift", format!("{} leaves no frequencies", self.freq_shift)));
        }
        if let Some(labels) = self.num_class_embeds {
            within(path, "num_class_embeds", labels, MOST_LABELS)?;
        }
        if self.time_embedding_type == TimeEmbeddingType::Learned {
            within(path, "num_train_timesteps", self.num_train_timesteps.unwrap_or(0), MOST_LABELS)?;
        }
        for (key, groups) in
            [("norm_num_groups", self.norm_num_groups), ("attn_norm_num_groups", self.attn_norm_num_groups)]
        {
            within(path, key, groups.unwrap_or(1), WIDEST)?;
        }
        within(path, "attention_head_dim", self.attention_head_dim.unwrap_or(1), WIDEST)?;
        self.check_skips().map_err(|(key, reason)| bad(key, reason.to_owned()))?;
        let blocks = (0..blocks).flat_map(|i| [self.down(i), self.up(i)]);
        for block in blocks.chain(self.middle()) {
            for layer in &block.resnets {
                divides(path, "norm_num_groups", layer.kind.groups, layer.inputs)?;
                divides(path, "norm_num_groups", layer.kind.groups_out, block.outputs)?;
            }
            for attention in &block.attentions {
                divides(path, "norm_num_groups", attention.groups.unwrap_or(1), block.outputs)?;
                divides(path, "attention_head_dim", self.attention_head_dim.unwrap_or(block.outputs), block.outputs)?;
            }
        }
        divides(path, "norm_num_groups", self.groups(self.block_out_channels[0]), self.block_out_channels[0])
    }

    /// Checks the blocks with a skip image (see `Block` in `layout.rs`). A skip image has 3 channels, and must
    /// be as large as the map of its block. So all blocks on the way down have a skip image, or none; and likewise all
    /// blocks on the way up.
    fn check_skips(&self) -> Result<(), (&'static str, &'static str)> {
        let down: Vec<bool> = self.down_block_types.iter().map(|block| block.has_skip_image()).collect();
        let up: Vec<bool> = self.up_block_types.iter().map(|block| block.has_skip_image()).collect();
        for (key, blocks) in [("down_block_types", &down), ("up_block_types", &up)] {
            if blocks.iter().any(|block| *block) && !blocks.iter().all(|block| *block) {
                return Err((key, "either all blocks or none have a skip image"));
            }
        }
        match (down[0], up[0]) {
            (true, _) if self.in_channels != 3 => Err(("in_channels", "a skip image has 3 channels")),
            (_, true) if self.out_channels != 3 => Err(("out_channels", "a skip image has 3 channels")),
            _ => Ok(()),
        }
    }

    /// Height and width of the network's input are multiples of this number.
    pub fn unit(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// The number of classes, if the configuration has one.
    pub fn classes(&self) -> Option<usize> {
        self.num_class_embeds
    }

    pub(super) fn time_width(&self) -> usize {
        self.time_embedding_dim.unwrap_or(4 * self.block_out_channels[0])
    }

    /// The number of groups of a norm of this many channels.
    pub(super) fn groups(&self, channels: usize) -> usize {
        self.norm_num_groups.unwrap_or_else(|| groups_of(channels))
    }
}

/// The number of groups of a norm of this many channels if the configuration has no `norm_num_groups`.
pub(super) fn groups_of(channels: usize) -> usize {
    (channels / 4).clamp(1, 32)
}

/// The largest supported number of classes, and of timesteps of a learned time embedding.
const MOST_LABELS: usize = 1 << 20;

impl DownBlockType {
    pub(super) fn has_skip_image(self) -> bool {
        matches!(self, Self::SkipDownBlock2D | Self::AttnSkipDownBlock2D)
    }
}

impl UpBlockType {
    pub(super) fn has_skip_image(self) -> bool {
        matches!(self, Self::SkipUpBlock2D | Self::AttnSkipUpBlock2D)
    }
}
