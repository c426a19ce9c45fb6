//! The configuration of a `NoisyClassifier`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        configuration::{Fixed, LARGEST_SAMPLE, WIDEST, divides, entries, read, within},
        demand::{Demand, attention, conv, resnet},
    },
    weights::LoadError,
};

/// The keys of `classifier/config.json` that the network supports. The defaults come from Dhariwal and Nichol's (2021)
/// classifier for pictures of 64 × 64.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NoisyClassifierConfig {
    /// Side of the pictures.
    pub image_size: usize,
    pub in_channels: usize,
    pub num_classes: usize,
    pub model_channels: usize,
    /// Residual blocks of each level.
    pub num_res_blocks: usize,
    /// The width of each level, as a multiple of `model_channels`. The side halves between levels.
    pub channel_mult: Vec<usize>,
    /// Sides of the maps that have attention after each residual block.
    pub attention_resolutions: Vec<usize>,
    pub num_head_channels: usize,
    pub norm_num_groups: usize,
    pub use_scale_shift_norm: bool,
    /// Whether residual blocks halve the side between levels; otherwise convolutions halve it.
    pub resblock_updown: bool,
}

impl Default for NoisyClassifierConfig {
    fn default() -> Self {
        Self {
            image_size: 64,
            in_channels: 3,
            num_classes: 1000,
            model_channels: 128,
            num_res_blocks: 4,
            channel_mult: vec![1, 2, 3, 4],
            attention_resolutions: vec![32, 16, 8],
            num_head_channels: 64,
            norm_num_groups: 32,
            use_scale_shift_norm: true,
            resblock_updown: true,
        }
    }
}

const FIXED: [Fixed; 2] = [("pool", &["\"attention\""]), ("dropout", &[])];

impl NoisyClassifierConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, &FIXED)?;
        let bounds = [
            ("image_size", config.image_size, LARGEST_SAMPLE),
            ("in_channels", config.in_channels, WIDEST),
            ("num_classes", config.num_classes, 1 << 20),
            ("model_channels", config.model_channels, WIDEST),
            ("num_res_blocks", config.num_res_blocks, 100),
            ("num_head_channels", config.num_head_channels, WIDEST),
            ("norm_num_groups", config.norm_num_groups, WIDEST),
        ];
        bounds.into_iter().try_for_each(|(key, value, most)| within(path, key, value, most))?;
        entries(path, "channel_mult", config.channel_mult.len(), 16)?;
        divides(path, "model_channels", 2, config.model_channels)?;
        divides(path, "channel_mult", 1 << (config.channel_mult.len() - 1), config.image_size)?;
        for (level, mult) in config.channel_mult.iter().enumerate() {
            within(path, "channel_mult", *mult, WIDEST / config.model_channels)?;
            let width = mult * config.model_channels;
            divides(path, "norm_num_groups", config.norm_num_groups, width)?;
            let last = level + 1 == config.channel_mult.len();
            if last || config.attention_resolutions.contains(&(config.image_size >> level)) {
                divides(path, "num_head_channels", config.num_head_channels, width)?;
            }
        }
        Ok(config)
    }

    /// The demand of the gradient of one row. The backward pass has twice the work of the forward pass, and all maps
    /// are in memory.
    pub fn demand(&self) -> Demand {
        let mut sum = Demand::default();
        let mut take = |layer: Demand| sum = sum.and(layer);
        let mut side = self.image_size;
        let mut width = self.channel_mult[0] * self.model_channels;
        take(conv(side * side, 3, self.in_channels, width, side * side));
        for (level, mult) in self.channel_mult.iter().enumerate() {
            let outputs = mult * self.model_channels;
            for _ in 0..self.num_res_blocks {
                take(resnet(side * side, width, outputs));
                width = outputs;
                if self.attention_resolutions.contains(&side) {
                    take(self.attention(side, width));
                }
            }
            if level + 1 < self.channel_mult.len() {
                side /= 2;
                take(resnet(side * side, width, width));
            }
        }
        take(resnet(side * side, width, width));
        take(self.attention(side, width));
        take(resnet(side * side, width, width));
        Demand { work: 3.0 * sum.work, bytes: 2 * sum.bytes }
    }

    /// The demand of attention, with the scores of all heads in memory.
    fn attention(&self, side: usize, width: usize) -> Demand {
        let places = side * side;
        attention(places, width).beside(2 * width / self.num_head_channels * places * places)
    }
}
