//! The configuration of a CLIP text encoder.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        clip_layer::HiddenAct,
        configuration::{Fixed, LARGEST_EPS, WIDEST, between, divides, read, within},
        demand::{Demand, bytes},
    },
    weights::LoadError,
};

/// The keys of `text_encoder/config.json` that the network supports, with transformers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    pub hidden_act: HiddenAct,
    pub layer_norm_eps: f64,
    /// The token whose state represents the whole prompt; 2 means the token with the largest id.
    pub eos_token_id: u32,
    /// Width of the projection, if the network has one.
    pub projection_dim: usize,
    pub architectures: Option<Vec<String>>,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: HiddenAct::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
            projection_dim: 512,
            architectures: None,
        }
    }
}

const PLAIN: &str = "CLIPTextModel";
const PROJECTED: &str = "CLIPTextModelWithProjection";

const FIXED: &[Fixed] = &[
    // Used in training only.
    ("attention_dropout", &[]),
    ("dropout", &[]),
    ("gradient_checkpointing", &[]),
    ("initializer_factor", &[]),
    ("initializer_range", &[]),
    // Not used: the tokenizer's files name the tokens for start and padding.
    ("bos_token_id", &[]),
    ("pad_token_id", &[]),
    // These keys tell how the file was saved. They have no effect, because the device determines the precision.
    ("dtype", &[]),
    ("torch_dtype", &[]),
    ("transformers_version", &[]),
    ("model_type", &[r#""clip_text_model""#]),
];

impl ClipTextConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        for (key, value, most) in [
            ("vocab_size", config.vocab_size, 1 << 24),
            ("hidden_size", config.hidden_size, WIDEST),
            ("intermediate_size", config.intermediate_size, 4 * WIDEST),
            ("num_hidden_layers", config.num_hidden_layers, 256),
            ("num_attention_heads", config.num_attention_heads, WIDEST),
            // The memory of attention grows with the square of this value. The largest published value is 248.
            ("max_position_embeddings", config.max_position_embeddings, 1 << 10),
            ("projection_dim", config.projection_dim, WIDEST),
        ] {
            within(path, key, value, most)?;
        }
        between(path, "layer_norm_eps", config.layer_norm_eps, 0.0, LARGEST_EPS)?;
        divides(path, "num_attention_heads", config.num_attention_heads, config.hidden_size)?;
        let architectures = config.architectures.clone().unwrap_or_default();
        if let Some(other) = architectures.iter().find(|name| ![PLAIN, PROJECTED].contains(&name.as_str())) {
            return Err(LoadError::UnsupportedKey {
                path: path.into(),
                key: "architectures".into(),
                value: Box::new(other.clone().into()),
                supported: format!("{PLAIN}, {PROJECTED}"),
            });
        }
        Ok(config)
    }

    /// The demand of encoding one prompt of the full length.
    pub fn demand(&self) -> Demand {
        let (length, width, inner) = (self.max_position_embeddings, self.hidden_size, self.intermediate_size);
        let layer = length * width * (4 * width + 2 * inner + 2 * length);
        let work = self.num_hidden_layers as f64 * layer as f64;
        Demand { work, bytes: bytes(length * (9 * width).max(3 * width + 2 * inner)) }
    }

    /// Width of the vector of a whole prompt, if the network has a projection (transformers'
    /// `CLIPTextModelWithProjection`).
    pub fn projection(&self) -> Option<usize> {
        let projects = self.architectures.iter().flatten().any(|name| name == PROJECTED);
        projects.then_some(self.projection_dim)
    }
}
