//! The configuration of a T5 or UMT5 text encoder.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        configuration::{Fixed, LARGEST_EPS, WIDEST, between, read, within},
        demand::{Demand, bytes},
    },
    weights::LoadError,
};

/// The keys of `text_encoder/config.json` that the network supports, with transformers' names and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct T5Config {
    pub model_type: T5Kind,
    pub vocab_size: usize,
    /// D: width of a token's state.
    pub d_model: usize,
    /// Width of a head.
    pub d_kv: usize,
    /// Width inside the feed-forward layers.
    pub d_ff: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub relative_attention_num_buckets: usize,
    pub relative_attention_max_distance: usize,
    pub layer_norm_epsilon: f64,
    pub feed_forward_proj: FeedForward,
}

impl Default for T5Config {
    fn default() -> Self {
        Self {
            model_type: T5Kind::T5,
            vocab_size: 32128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: FeedForward::Relu,
        }
    }
}

/// Which blocks have biases of the positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum T5Kind {
    /// Block 0 alone. The others use the same biases.
    T5,
    /// Each block has its own (Chung et al. 2023, arXiv:2304.09151).
    Umt5,
}

/// The kind of the feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedForward {
    /// ReLU between two matrices: T5 1.0.
    Relu,
    /// GELU (tanh approximation) of one product, times another product: T5 1.1.
    GatedGelu,
}

const FIXED: &[Fixed] = &[
    ("is_decoder", &["false"]),
    // transformers computes these two keys from feed_forward_proj.
    ("dense_act_fn", &[r#""relu""#, r#""gelu_new""#]),
    ("is_gated_act", &[]),
    // The encoder is the same in all classes of T5.
    ("architectures", &[]),
    ("is_encoder_decoder", &[]),
    // Used in training only.
    ("classifier_dropout", &[]),
    ("dropout_rate", &[]),
    ("gradient_checkpointing", &[]),
    ("initializer_factor", &[]),
    // Used in the decoder only.
    ("decoder_start_token_id", &[]),
    ("num_decoder_layers", &[]),
    ("output_past", &[]),
    ("scale_decoder_outputs", &[]),
    ("task_specific_params", &[]),
    ("tie_word_embeddings", &[]),
    ("use_cache", &[]),
    // Positions are relative, so their number has no bound.
    ("n_positions", &[]),
    // transformers does not read this key of UMT5.
    ("scalable_attention", &[]),
    // Not used: the tokenizer's files name its class and the tokens for end and padding.
    ("tokenizer_class", &[]),
    ("bos_token_id", &[]),
    ("eos_token_id", &[]),
    ("pad_token_id", &[]),
    // These keys tell how the file was saved. They have no effect on the results.
    ("dtype", &[]),
    ("torch_dtype", &[]),
    ("transformers_version", &[]),
];

impl T5Config {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let config: Self = read(path, keys, FIXED)?;
        for (key, value, most) in [
            ("vocab_size", config.vocab_size, 1 << 24),
            ("d_model", config.d_model, WIDEST),
            ("d_kv", config.d_kv, WIDEST),
            ("d_ff", config.d_ff, 8 * WIDEST),
            ("num_layers", config.num_layers, 256),
            ("num_heads", config.num_heads, 1 << 10),
            ("relative_attention_max_distance", config.relative_attention_max_distance, 1 << 20),
        ] {
            within(path, key, value, most)?;
        }
        within(path, "num_heads", config.inner(), 4 * WIDEST)?;
        let buckets = config.relative_attention_num_buckets as f64;
        between(path, "relative_attention_num_buckets", buckets, 4.0, f64::from(1 << 16))?;
        // Distances of at least this many tokens share buckets, so there must be larger distances.
        let exact = config.relative_attention_num_buckets / 4;
        let distance = config.relative_attention_max_distance as f64;
        between(path, "relative_attention_max_distance", distance, exact as f64 + 1.0, f64::from(1 << 20))?;
        between(path, "layer_norm_epsilon", config.layer_norm_epsilon, 0.0, LARGEST_EPS)?;
        Ok(config)
    }

    /// Width of all heads together.
    pub fn inner(&self) -> usize {
        self.num_heads * self.d_kv
    }

    /// The demand of encoding one prompt of `tokens` tokens, padding included.
    pub fn demand(&self, tokens: usize) -> Demand {
        let (d, inner, d_ff) = (self.d_model, self.inner(), self.d_ff);
        let matrices = match self.feed_forward_proj {
            FeedForward::Relu => 2,
            FeedForward::GatedGelu => 3,
        };
        let layer = (4 * d * inner + matrices * d * d_ff + 2 * tokens * inner) as f64 * tokens as f64;
        // Memory peaks in the attention: the state, its norm, q, k, v, the packed k and v, and the result; or in the
        // feed-forward layer: the state, its norm, and either the inner values before and after ReLU or the gates, the
        // values and their product. The biases of the positions are in memory all the time.
        let floats = tokens * (2 * d + 6 * inner).max(3 * d + matrices * d_ff) + self.num_heads * tokens * tokens;
        Demand { work: self.num_layers as f64 * layer, bytes: bytes(floats) }
    }
}
