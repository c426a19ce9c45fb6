//! The configuration of a motion adapter.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        configuration::{Fixed, PerBlock, WIDEST, divides, entries, read, within},
        demand::{Demand, motion_transformer},
        transformer2d::TransformerKind,
        unet2d_condition::maps,
    },
    weights::{LoadError, ModelFolder},
};

/// The keys of an adapter's `config.json` that are supported, with diffusers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct MotionAdapterConfig {
    pub block_out_channels: Vec<usize>,
    pub motion_layers_per_block: PerBlock,
    pub motion_transformer_layers_per_block: PerBlock,
    pub motion_mid_block_layers_per_block: usize,
    /// One number, or a list of one.
    pub motion_transformer_layers_per_mid_block: PerBlock,
    pub motion_num_attention_heads: PerBlock,
    pub motion_norm_num_groups: usize,
    /// Maximum number of frames of a clip.
    pub motion_max_seq_length: usize,
    pub use_motion_mid_block: bool,
}

impl Default for MotionAdapterConfig {
    fn default() -> Self {
        Self {
            block_out_channels: vec![320, 640, 1280, 1280],
            motion_layers_per_block: PerBlock::All(2),
            motion_transformer_layers_per_block: PerBlock::All(1),
            motion_mid_block_layers_per_block: 1,
            motion_transformer_layers_per_mid_block: PerBlock::All(1),
            motion_num_attention_heads: PerBlock::All(8),
            motion_norm_num_groups: 32,
            motion_max_seq_length: 32,
            use_motion_mid_block: true,
        }
    }
}

/// Keys that could change the adapter, with the supported values. Older files have the last three.
const FIXED: &[Fixed] = &[
    ("conv_in_channels", &["null", "0"]), // the adapters of PIA, which begin with a picture, have channels here
    ("motion_activation_fn", &[r#""geglu""#]),
    ("motion_attention_bias", &["false"]),
    ("motion_cross_attention_dim", &["null"]),
];

/// Maximum number of frames that a configuration may allow.
const MOST_FRAMES: usize = 1 << 10;

impl MotionAdapterConfig {
    /// diffusers' name of the class.
    pub const CLASS: &'static str = "MotionAdapter";

    /// Whether the network `name` inside `folder` says that it is a motion adapter.
    pub fn is_named_by(folder: &ModelFolder, name: &str) -> bool {
        let keys = folder.json(&format!("{name}/config.json"));
        keys.is_ok_and(|keys| keys.get("_class_name").is_some_and(|class| class == Self::CLASS))
    }

    /// Reads the configuration of the network `name` inside `folder`.
    ///
    /// # Errors
    /// The file is missing or broken, or has a key or value that is not supported.
    pub fn of(folder: &ModelFolder, name: &str) -> Result<Self, LoadError> {
        let path = format!("{name}/config.json");
        Self::read(&path, &folder.json(&path)?)
    }

    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that is not supported.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        let blocks = config.block_out_channels.len();
        entries(path, "block_out_channels", blocks, 16)?;
        for (key, values, most) in [
            ("motion_layers_per_block", &config.motion_layers_per_block, 16),
            ("motion_transformer_layers_per_block", &config.motion_transformer_layers_per_block, 64),
            ("motion_num_attention_heads", &config.motion_num_attention_heads, WIDEST),
        ] {
            values.check(path, key, blocks, most)?;
        }
        config.motion_transformer_layers_per_mid_block.check(path, "motion_transformer_layers_per_mid_block", 1, 64)?;
        within(path, "motion_mid_block_layers_per_block", config.motion_mid_block_layers_per_block, 1)?;
        within(path, "motion_max_seq_length", config.motion_max_seq_length, MOST_FRAMES)?;
        for (i, channels) in config.block_out_channels.iter().enumerate() {
            within(path, "block_out_channels", *channels, WIDEST)?;
            divides(path, "motion_norm_num_groups", config.motion_norm_num_groups, *channels)?;
            divides(path, "motion_num_attention_heads", config.motion_num_attention_heads.at(i), *channels)?;
        }
        Ok(config)
    }

    /// The channels of the maps on the way down of the U-Nets that the adapter fits, as
    /// [`UNet2DConditionConfig::maps`](crate::models::unet2d_condition::UNet2DConditionConfig::maps) returns them.
    pub fn maps(&self) -> Vec<usize> {
        maps(&self.block_out_channels, &self.motion_layers_per_block)
    }

    /// The demand of the modules for one clip of `frames` frames of (h, w) latent pixels.
    pub fn demand(&self, frames: usize, [h, w]: [usize; 2]) -> Demand {
        let last = self.block_out_channels.len() - 1;
        let module = |level: usize, kind: TransformerKind| {
            motion_transformer(h.div_ceil(1 << level) * w.div_ceil(1 << level), frames, kind.channels, kind.layers)
        };
        let of_level = |level: usize| {
            let one = module(level, self.module(level));
            let count = 2 * self.motion_layers_per_block.at(level) + 1;
            Demand { work: count as f64 * one.work, ..one }
        };
        let mid = self.use_motion_mid_block.then(|| module(last, self.middle()));
        (0..=last).map(of_level).chain(mid).fold(Demand::default(), Demand::then)
    }

    /// The parameters of the modules at `level`, counted from the input.
    pub(super) fn module(&self, level: usize) -> TransformerKind {
        let (channels, heads) = (self.block_out_channels[level], self.motion_num_attention_heads.at(level));
        TransformerKind {
            channels,
            heads,
            layers: self.motion_transformer_layers_per_block.at(level),
            cross_attention_dim: channels,
            groups: self.motion_norm_num_groups,
            use_linear_projection: true,
            kv_heads: heads,
            qk_norm: false,
            attends_to_itself: true,
            ff_mult: 4,
        }
    }

    /// The parameters of the module of the middle block.
    pub(super) fn middle(&self) -> TransformerKind {
        let last = self.block_out_channels.len() - 1;
        TransformerKind { layers: self.motion_transformer_layers_per_mid_block.at(0), ..self.module(last) }
    }
}
