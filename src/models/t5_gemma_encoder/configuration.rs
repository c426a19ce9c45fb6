//! The configuration of T5Gemma's encoder.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    models::{
        configuration::{Fixed, LARGEST_EPS, WIDEST, between, divides, per_block, read, within},
        demand::{Demand, bytes},
        qwen3_encoder::RopeParameters,
    },
    weights::LoadError,
};

/// The keys of `encoder` in `text_encoder/config.json` that the network supports, with transformers' names and
/// defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct T5GemmaConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    /// Scores are divided by the square root of this number.
    pub query_pre_attn_scalar: f64,
    /// The bound of scores; null means that scores have no bound.
    pub attn_logit_softcapping: Option<f64>,
    /// The largest distance at which a token attends to another token, in layers with `sliding_attention`.
    pub sliding_window: Option<usize>,
    /// One entry per layer. Absent: layers with and without a window alternate, beginning with a window.
    pub layer_types: Option<Vec<LayerType>>,
    pub rms_norm_eps: f64,
    /// The base of the rotary angles, in files of transformers before version 5.
    pub rope_theta: Option<f64>,
    /// The same base, in files of later versions.
    pub rope_parameters: Option<RopeParameters>,
}

/// The tokens that a layer attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerType {
    SlidingAttention,
    FullAttention,
}

impl Default for T5GemmaConfig {
    fn default() -> Self {
        Self {
            vocab_size: 256_000,
            hidden_size: 2304,
            intermediate_size: 9216,
            num_hidden_layers: 26,
            num_attention_heads: 8,
            num_key_value_heads: 4,
            head_dim: 256,
            query_pre_attn_scalar: 256.0,
            attn_logit_softcapping: Some(50.0),
            sliding_window: Some(4096),
            layer_types: None,
            rms_norm_eps: 1e-6,
            rope_theta: None,
            rope_parameters: None,
        }
    }
}

/// The whole file. The configuration of the decoder, which Stable Audio 3 does not have, may have any content.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Whole {
    encoder: Map<String, Value>,
}

const WHOLE: &[Fixed] = &[
    ("architectures", &[r#"["T5GemmaEncoderModel"]"#, "null"]),
    ("model_type", &[r#""t5gemma""#]),
    ("decoder", &[]),
    ("is_encoder_decoder", &[]),
    // Used in training only.
    ("attention_dropout", &[]),
    ("classifier_dropout_rate", &[]),
    ("dropout_rate", &[]),
    ("initializer_range", &[]),
    // These keys have no effect: the files of the tokenizer name the special tokens, the model has no decoder, and
    // `encoder` contains a `vocab_size` of its own.
    ("bos_token_id", &[]),
    ("eos_token_id", &[]),
    ("pad_token_id", &[]),
    ("tie_word_embeddings", &[]),
    ("use_cache", &[]),
    ("vocab_size", &[]),
    // These keys tell how the file was saved. They have no effect, because the device determines the precision.
    ("dtype", &[]),
    ("torch_dtype", &[]),
    ("transformers_version", &[]),
];

const FIXED: &[Fixed] = &[
    ("attention_bias", &["false"]),
    ("hidden_activation", &[r#""gelu_pytorch_tanh""#]),
    ("is_decoder", &["false"]),
    ("model_type", &[]),
    // Used in training only.
    ("attention_dropout", &[]),
    ("dropout_rate", &[]),
    ("initializer_range", &[]),
    // Used only to predict tokens.
    ("bos_token_id", &[]),
    ("eos_token_id", &[]),
    ("final_logit_softcapping", &[]),
    ("pad_token_id", &[]),
    ("tie_word_embeddings", &[]),
    ("use_cache", &[]),
    // An upper bound of the positions; prompts are far shorter.
    ("max_position_embeddings", &[]),
    ("dtype", &[]),
    ("torch_dtype", &[]),
];

impl T5GemmaConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let whole: Whole = read(path, keys, WHOLE)?;
        let config: Self = read(path, &whole.encoder, FIXED)?;
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
        between(path, "query_pre_attn_scalar", config.query_pre_attn_scalar, 1e-6, 1e6)?;
        if let Some(cap) = config.attn_logit_softcapping {
            between(path, "attn_logit_softcapping", cap, 1e-6, 1e6)?;
        }
        if let Some(types) = &config.layer_types {
            per_block(path, "layer_types", types.len(), config.num_hidden_layers)?;
        }
        between(path, "rms_norm_eps", config.rms_norm_eps, 0.0, LARGEST_EPS)?;
        between(path, "rope_theta", config.theta(), 1.0, 1e12)?;
        Ok(config)
    }

    /// The base of the rotary angles.
    pub(super) fn theta(&self) -> f64 {
        let given = self.rope_parameters.as_ref().map(|rope| rope.rope_theta);
        given.or(self.rope_theta).unwrap_or(10_000.0)
    }

    /// The largest distance at which a token attends to another token in layer `i`; `None` if a token attends to all
    /// tokens.
    pub(super) fn window(&self, i: usize) -> Option<usize> {
        let alternating = if i.is_multiple_of(2) { LayerType::SlidingAttention } else { LayerType::FullAttention };
        match self.layer_types.as_ref().map_or(alternating, |types| types[i]) {
            LayerType::SlidingAttention => self.sliding_window,
            LayerType::FullAttention => None,
        }
    }

    /// The demand of encoding one text of `tokens` tokens.
    pub fn demand(&self, tokens: usize) -> Demand {
        let (width, inner, d) = (self.hidden_size, self.intermediate_size, self.head_dim);
        let (heads, keys) = (self.num_attention_heads, self.num_key_value_heads * d);
        let layer = tokens * (2 * width * (heads * d + keys) + 3 * width * inner + 2 * tokens * heads * d);
        let attention = 5 * heads * d + 3 * heads * tokens;
        let floats = tokens * (3 * width + attention.max(2 * inner));
        Demand { work: self.num_hidden_layers as f64 * layer as f64, bytes: bytes(floats) }
    }
}
