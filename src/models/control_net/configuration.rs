//! The configuration of a ControlNet.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        configuration::{Fixed, WIDEST, entries, read, within},
        demand::{Demand, conv},
        unet2d_condition::UNet2DConditionConfig,
    },
    weights::{LoadError, ModelFolder},
};

/// The keys of a ControlNet's `config.json` that the network supports, with diffusers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ControlNetConfig {
    pub conditioning_channels: usize,
    pub conditioning_embedding_out_channels: Vec<usize>,
    /// The keys that a ControlNet shares with the U-Net from which it was made.
    #[serde(skip)]
    pub unet: UNet2DConditionConfig,
}

impl Default for ControlNetConfig {
    fn default() -> Self {
        Self {
            conditioning_channels: 3,
            conditioning_embedding_out_channels: vec![16, 32, 96, 256],
            unet: UNet2DConditionConfig::default(),
        }
    }
}

/// Keys that only ControlNets have, and their supported values.
const FIXED: &[Fixed] =
    &[("controlnet_conditioning_channel_order", &[r#""rgb""#]), ("global_pool_conditions", &["false"])];

impl ControlNetConfig {
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
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        if let Some(class) = keys.get("_class_name").filter(|class| *class != "ControlNetModel") {
            let (key, supported) = ("_class_name".into(), "ControlNetModel".into());
            return Err(LoadError::UnsupportedKey {
                path: path.into(),
                key,
                value: Box::new(class.clone()),
                supported,
            });
        }
        let own = |key: &str| key.starts_with("conditioning_") || FIXED.iter().any(|(fixed, _)| *fixed == key);
        let (own, mut shared): (Map<String, Value>, Map<String, Value>) =
            keys.clone().into_iter().partition(|(key, _)| own(key));
        let config: Self = read(path, &own, FIXED)?;
        // The reader of a U-Net's configuration requires equal numbers of up blocks and down blocks. A ControlNet has
        // no up blocks, so their types do not matter.
        let blocks = keys.get("block_out_channels").and_then(Value::as_array).map_or(4, Vec::len);
        entries(path, "block_out_channels", blocks, 16)?;
        shared.insert("up_block_types".into(), vec!["UpBlock2D"; blocks].into());
        let unet = UNet2DConditionConfig::read(path, &shared)?;
        if config.conditioning_channels != 3 {
            let (key, value) = ("conditioning_channels".into(), config.conditioning_channels.into());
            return Err(LoadError::UnsupportedKey {
                path: path.into(),
                key,
                value: Box::new(value),
                supported: "3".into(),
            });
        }
        entries(path, "conditioning_embedding_out_channels", config.conditioning_embedding_out_channels.len(), 8)?;
        for width in &config.conditioning_embedding_out_channels {
            within(path, "conditioning_embedding_out_channels", *width, WIDEST)?;
        }
        Ok(Self { unet, ..config })
    }

    /// The demand of one row of (h, w) latent pixels and `tokens` text tokens, including the embedding of the picture.
    pub fn demand(&self, [h, w]: [usize; 2], tokens: usize) -> Demand {
        let widths = &self.conditioning_embedding_out_channels;
        let mut places = h * w * self.scale() * self.scale();
        let mut demand = conv(places, 3, self.conditioning_channels, widths[0], 2 * places);
        for pair in widths.windows(2) {
            demand = demand.then(conv(places, 3, pair[0], pair[0], 2 * places));
            demand = demand.then(conv(places / 4, 3, pair[0], pair[1], places));
            places /= 4;
        }
        demand.then(self.unet.demand_down([h, w], tokens))
    }

    /// Pixels of the picture per latent pixel, along one side.
    pub fn scale(&self) -> usize {
        1 << (self.conditioning_embedding_out_channels.len() - 1)
    }
}
