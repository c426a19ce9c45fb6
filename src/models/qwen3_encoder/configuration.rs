//! The configuration of a Qwen3 text encoder.

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
pub struct Qwen3Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub rms_norm_eps: f64,
    /// The base of the rotary angles, in files of transformers before version 5.
    pub rope_theta: Option<f64>,
    /// The same base, in files of later versions.
    pub rope_parameters: Option<RopeParameters>,
}

/// The key `rope_parameters`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeParameters {
    pub rope_theta: f64,
    pub rope_type: RopeType,
}

/// How the rotary angles depend on the length of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeType {
    /// The angles do not depend on the length.
    Default,
}

impl Default for Qwen3Config {
    fn default() -> Self {
        Self {
            vocab_size: 151_936,
            hidden_size: 4096,
            intermediate_size: 22_016,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: 32,
            head_dim: 128,
            rms_norm_eps: 1e-6,
            rope_theta: None,
            rope_parameters: None,
        }
    }
}

const FIXED: &[Fixed] = &[
    ("architectures", &[r#"["Qwen3Model"]"#, r#"["Qwen3ForCausalLM"]"#, "null"]),
    ("attention_bias", &["false"]),
    ("hidden_act", &[r#""silu""#]),
    ("model_type", &[r#""qwen3""#]),
    ("rope_scaling", &["null"]),
    ("sliding_window", &["null"]),
    ("use_sliding_window", &["false"]),
    // Used in training only.
    ("attention_dropout", &[]),
    ("initializer_range", &[]),
    // Used only to predict the next token, which latentd does not do.
    ("bos_token_id", &[]),
    ("eos_token_id", &[]),
    ("tie_word_embeddings", &[]),
    ("use_cache", &[]),
    // Prompts are padded with the token that the tokenizer's files name.
    ("pad_token_id", &[]),
    // An upper bound of the positions; prompts are far shorter.
    ("max_position_embeddings", &[]),
    // Without a sliding window, all layers attend to the whole text.
    ("layer_types", &[]),
    ("max_window_layers", &[]),
    // These keys tell how the file was saved. They have no effect, because the device determines the precision.
    ("dtype", &[]),
    ("torch_dtype", &[]),
    ("transformers_version", &[]),
];

impl Qwen3Config {
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
            ("num_attention_heads", config.num_attention_heads, 1024),
            ("num_key_value_heads", config.num_key_value_heads, 1024),
            ("head_dim", config.head_dim, 1024),
        ] {
            within(path, key, value, most)?;
        }
        divides(path, "num_key_value_heads", config.num_key_value_heads, config.num_attention_heads)?;
        divides(path, "head_dim", 2, config.head_dim)?;
        between(path, "rms_norm_eps", config.rms_norm_eps, 0.0, LARGEST_EPS)?;
        between(path, "rope_theta", config.theta(), 1.0, 1e12)?;
        Ok(config)
    }

    /// The base of the rotary angles.
    pub fn theta(&self) -> f64 {
        let given = self.rope_parameters.as_ref().map(|rope| rope.rope_theta);
        given.or(self.rope_theta).unwrap_or(10_000.0)
    }

    /// The demand of encoding a prompt of `length` tokens with the first `depth` layers.
    pub fn demand(&self, length: usize, depth: usize) -> Demand {
        // Memory holds the states of every layer, because a caller may want each of them.
        self.layers_demand(length, depth).beside(length * (depth + 4) * self.hidden_size)
    }

    /// The demand of the first `depth` layers without the memory of states between the layers.
    pub(in crate::models) fn layers_demand(&self, length: usize, depth: usize) -> Demand {
        let (width, inner, d) = (self.hidden_size, self.intermediate_size, self.head_dim);
        let (queries, keys) = (self.num_attention_heads * d, self.num_key_value_heads * d);
        let layer = length as f64 * (2 * width * (queries + keys) + 3 * width * inner + 2 * length * queries) as f64;
        let widest = (4 * queries + 4 * keys).max(3 * inner);
        Demand { work: depth as f64 * layer, bytes: bytes(length * widest) }
    }
}
