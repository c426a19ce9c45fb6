//! The configuration of CLIP's encoder of pictures.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        clip_layer::HiddenAct,
        configuration::{LARGEST_EPS, WIDEST, between, divides, read, within},
        demand::{Demand, bytes},
    },
    weights::LoadError,
};

/// The keys that the network uses, with transformers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipVisionConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_channels: usize,
    /// Pixels per side of a picture.
    pub image_size: usize,
    /// Pixels per side of a patch.
    pub patch_size: usize,
    pub hidden_act: HiddenAct,
    pub layer_norm_eps: f64,
    /// P: width of the projected vectors.
    pub projection_dim: usize,
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: HiddenAct::QuickGelu,
            layer_norm_eps: 1e-5,
            projection_dim: 512,
        }
    }
}

impl ClipVisionConfig {
    /// Reads the keys of an object in the file at `path`. Keys that the network does not use are ignored: old files
    /// contain some fifty settings for the generation of texts here.
    ///
    /// # Errors
    /// A value is out of bounds.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let known = serde_json::to_value(Self::default()).unwrap_or_default();
        let used = keys.iter().filter(|(key, _)| known.get(key.as_str()).is_some());
        let used: Map<String, Value> = used.map(|(key, value)| (key.clone(), value.clone())).collect();
        let config: Self = read(path, &used, &[])?;
        for (key, value, most) in [
            ("hidden_size", config.hidden_size, WIDEST),
            ("intermediate_size", config.intermediate_size, 4 * WIDEST),
            ("projection_dim", config.projection_dim, WIDEST),
            ("num_hidden_layers", config.num_hidden_layers, 256),
            ("num_attention_heads", config.num_attention_heads, WIDEST),
            // The largest published value is 448.
            ("image_size", config.image_size, 1 << 11),
            ("patch_size", config.patch_size, config.image_size),
        ] {
            within(path, key, value, most)?;
        }
        between(path, "layer_norm_eps", config.layer_norm_eps, 0.0, LARGEST_EPS)?;
        divides(path, "num_attention_heads", config.num_attention_heads, config.hidden_size)?;
        divides(path, "patch_size", config.patch_size, config.image_size)?;
        if config.num_channels != 3 {
            let (key, value) = ("num_channels".to_owned(), config.num_channels.into());
            return Err(LoadError::UnsupportedKey {
                path: path.into(),
                key,
                value: Box::new(value),
                supported: "3".to_owned(),
            });
        }
        Ok(config)
    }

    /// The demand of one picture.
    pub fn demand(&self) -> Demand {
        let (n, c, inner) = ((1 + self.patches()) as f64, self.hidden_size as f64, self.intermediate_size as f64);
        let layer = (4.0 * c * c + 2.0 * c * inner) * n + 2.0 * n * n * c;
        let patches = (self.num_channels * self.patch_size * self.patch_size) as f64 * c * n;
        let work = self.num_hidden_layers as f64 * layer + patches + c * self.projection_dim as f64;
        let widest = 5 * self.hidden_size.max(self.intermediate_size) * (1 + self.patches());
        Demand { work, bytes: bytes(widest + self.num_channels * self.image_size * self.image_size) }
    }

    /// The number of patches of a picture.
    pub fn patches(&self) -> usize {
        let side = self.image_size / self.patch_size;
        side * side
    }
}
