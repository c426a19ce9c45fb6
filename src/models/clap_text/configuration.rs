//! The configuration of a CLAP text encoder.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        configuration::{Fixed, LARGEST_EPS, WIDEST, between, divides, read, within},
        demand::{Demand, bytes},
    },
    weights::LoadError,
};

/// The keys of `text_encoder/config.json` that the network supports, with transformers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ClapTextConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub layer_norm_eps: f64,
    /// The id of padding. Positions are counted from the number after this id.
    pub pad_token_id: u32,
    /// P: width of the vector of a text.
    pub projection_dim: usize,
}

impl Default for ClapTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 50_265,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_position_embeddings: 514,
            type_vocab_size: 1,
            layer_norm_eps: 1e-12,
            pad_token_id: 1,
            projection_dim: 512,
        }
    }
}

const FIXED: &[Fixed] = &[
    ("architectures", &[r#"["ClapTextModelWithProjection"]"#, "null"]),
    ("hidden_act", &[r#""gelu""#]),
    ("model_type", &[r#""clap_text_model""#]),
    ("position_embedding_type", &[r#""absolute""#]),
    ("projection_hidden_act", &[r#""relu""#]),
    // Used in training only.
    ("attention_probs_dropout_prob", &[]),
    ("classifier_dropout", &[]),
    ("hidden_dropout_prob", &[]),
    ("initializer_factor", &[]),
    ("initializer_range", &[]),
    // Not used: the tokenizer's files name the tokens for start and end, and nothing is decoded.
    ("bos_token_id", &[]),
    ("eos_token_id", &[]),
    ("use_cache", &[]),
    // These keys belong to the audio encoder, which AudioLDM does not have.
    ("fusion_hidden_size", &[]),
    ("fusion_num_hidden_layers", &[]),
    // These keys tell how the file was saved. They have no effect, because the device determines the precision.
    ("dtype", &[]),
    ("torch_dtype", &[]),
    ("transformers_version", &[]),
];

impl ClapTextConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        for (key, value, most) in [
            ("vocab_size", config.vocab_size, 1 << 24),
            ("hidden_size", config.hidden_size, WIDEST),
            ("num_hidden_layers", config.num_hidden_layers, 256),
            ("num_attention_heads", config.num_attention_heads, WIDEST),
            ("intermediate_size", config.intermediate_size, 4 * WIDEST),
            // The memory of attention grows with the square of this value.
            ("max_position_embeddings", config.max_position_embeddings, 1 << 12),
            ("type_vocab_size", config.type_vocab_size, 1 << 10),
            ("projection_dim", config.projection_dim, WIDEST),
        ] {
            within(path, key, value, most)?;
        }
        between(path, "layer_norm_eps", config.layer_norm_eps, 0.0, LARGEST_EPS)?;
        divides(path, "num_attention_heads", config.num_attention_heads, config.hidden_size)?;
        if (config.pad_token_id as usize) >= config.vocab_size {
            let reason = format!("must be less than vocab_size, {}, not {}", config.vocab_size, config.pad_token_id);
            return Err(LoadError::BadKey { path: path.into(), key: "pad_token_id".into(), reason });
        }
        if config.longest() < 2 {
            let reason = format!("{} leaves no positions for two tokens", config.max_position_embeddings);
            return Err(LoadError::BadKey { path: path.into(), key: "max_position_embeddings".into(), reason });
        }
        Ok(config)
    }

    /// Maximum number of tokens of a text.
    pub fn longest(&self) -> usize {
        self.max_position_embeddings.saturating_sub(self.pad_token_id as usize + 1)
    }

    /// The demand of encoding one text of `tokens` tokens.
    pub fn demand(&self, tokens: usize) -> Demand {
        let (width, inner) = (self.hidden_size, self.intermediate_size);
        let layer = tokens * width * (4 * width + 2 * inner + 2 * tokens);
        let work = self.num_hidden_layers as f64 * layer as f64;
        Demand { work, bytes: bytes(tokens * (9 * width).max(3 * width + 2 * inner)) }
    }
}
