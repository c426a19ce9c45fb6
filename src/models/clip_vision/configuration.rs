//! The configuration of CLIP's encoder of pictures.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        clip_layer::HiddenAct,
        configuration::{LARGEST_EPS, WIDEST, between, divides, read, within},
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

    /// The number of patches of a picture.
    pub fn patches(&self) -> usize {
        let side = self.image_size / self.patch_size;
        side * side
    }
}
