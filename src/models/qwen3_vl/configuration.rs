//! The configuration of Qwen3-VL.

mod vision;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use vision::VisionConfig;

use super::Axis;
use crate::{
    models::{
        configuration::{Fixed, one_of, read},
        demand::Demand,
        qwen3_encoder::Qwen3Config,
    },
    weights::LoadError,
};

/// The keys of `text_encoder/config.json` that the network supports.
#[derive(Clone, Debug)]
pub struct Qwen3VlConfig {
    pub text: Qwen3Config,
    pub vision: VisionConfig,
    /// The id that stands for a part of a picture.
    pub image_token_id: usize,
    /// How many frequencies of the rotary angles count times, rows and columns.
    mrope_section: [usize; 3],
    /// Whether the states are normalized after the last layer.
    pub(super) is_normed: bool,
}

/// The keys outside `text_config` and `vision_config`, with transformers' defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Tokens {
    image_token_id: usize,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { image_token_id: 151_655 }
    }
}

const FIXED: &[Fixed] = &[
    ("architectures", &[r#"["Qwen3VLForConditionalGeneration"]"#, r#"["Qwen3VLModel"]"#, "null"]),
    ("model_type", &[r#""qwen3_vl""#]),
    // Read on their own.
    ("text_config", &[]),
    ("vision_config", &[]),
    // The chat has its own texts for these tokens; videos are not read.
    ("video_token_id", &[]),
    ("vision_start_token_id", &[]),
    ("vision_end_token_id", &[]),
    // Used for the next token only.
    ("bos_token_id", &[]),
    ("eos_token_id", &[]),
    ("tie_word_embeddings", &[]),
    ("use_cache", &[]),
    // Nothing is padded.
    ("pad_token_id", &[]),
    // These keys tell how the file was saved. They have no effect, because everything is computed in float32.
    ("dtype", &[]),
    ("torch_dtype", &[]),
    // See `is_normed`.
    ("transformers_version", &[]),
];

/// The keys `rope_parameters`, and `rope_scaling` in files of transformers before version 5.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rope {
    rope_theta: Option<Value>,
    rope_type: Value,
    mrope_interleaved: bool,
    mrope_section: [usize; 3],
}

impl Qwen3VlConfig {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// Names a key or value that the network does not support.
    pub fn read(path: &str, keys: &Map<String, Value>) -> Result<Self, LoadError> {
        let bad = |key: &str, reason: String| LoadError::BadKey { path: path.into(), key: key.into(), reason };
        let Tokens { image_token_id } = read(path, keys, FIXED)?;
        let part = |key: &str| match keys.get(key) {
            Some(Value::Object(part)) => Ok(part.clone()),
            _ => Err(bad(key, "must be an object".into())),
        };
        let (text, mrope_section) = text(path, part("text_config")?)?;
        let vision = VisionConfig::read(path, &part("vision_config")?)?;
        let sum = mrope_section.iter().fold(0_usize, |sum, count| sum.saturating_add(*count));
        for (key, value, wanted, what) in [
            ("out_hidden_size", vision.out_hidden_size, text.hidden_size, "the hidden_size of text_config"),
            ("mrope_section", sum, text.head_dim / 2, "in sum, half of head_dim"),
        ] {
            if value != wanted {
                return Err(bad(key, format!("must be {wanted}, {what}, not {value}")));
            }
        }
        if image_token_id >= text.vocab_size {
            let reason = format!("{image_token_id} is not in the vocabulary of {} tokens", text.vocab_size);
            return Err(bad("image_token_id", reason));
        }
        let (features, layers) = (vision.deepstack_visual_indexes.len(), text.num_hidden_layers);
        if features > layers {
            return Err(bad("deepstack_visual_indexes", format!("{features} entries for {layers} layers")));
        }
        // Before version 5, transformers returned the last of `hidden_states` without the norm, and the published
        // models were trained with these states.
        let version = keys.get("transformers_version").and_then(Value::as_str);
        let is_normed = !version.is_some_and(|version| version.starts_with("4."));
        Ok(Self { text, vision, image_token_id, mrope_section, is_normed })
    }

    /// The axis along which positions are counted for a frequency of the rotary angles. The frequencies belong to
    /// times, rows and columns in turn. `mrope_section` gives the numbers of frequencies of rows and of columns. All
    /// other frequencies belong to times.
    pub(super) fn axis(&self, frequency: usize) -> Axis {
        let [_, rows, columns] = self.mrope_section;
        match (frequency % 3, frequency / 3) {
            (1, turn) if turn < rows => Axis::Row,
            (2, turn) if turn < columns => Axis::Column,
            _ => Axis::Time,
        }
    }

    /// The number of tokens of a picture; `None` if its sides are not multiples of [`VisionConfig::token_side`].
    pub fn picture_tokens(&self, size: [usize; 2]) -> Option<usize> {
        Some(self.vision.patches(size)?.iter().product::<usize>() / self.vision.spatial_merge_size.pow(2))
    }

    /// The demand of [`super::Qwen3Vl::forward`] for a chat of `length` tokens, including the tokens of a picture.
    pub fn demand(&self, length: usize) -> Demand {
        // The states before a layer, the states within it, and the states of a picture.
        let states = 5 * length * self.text.hidden_size;
        self.text.layers_demand(length, self.text.num_hidden_layers).beside(states)
    }

    /// The demand of [`super::Qwen3Vl::see`] for a picture of these sides in pixels.
    pub fn see_demand(&self, size: [usize; 2]) -> Demand {
        self.vision.demand(size)
    }
}

/// Reads `text_config`, in which the rotary angles have keys of their own, and `mrope_section`.
fn text(path: &str, mut keys: Map<String, Value>) -> Result<(Qwen3Config, [usize; 3]), LoadError> {
    let bad = |key: &str, reason: String| LoadError::BadKey { path: path.into(), key: key.into(), reason };
    if let Some(kind) = keys.remove("model_type") {
        one_of(path, "model_type", &kind, &[r#""qwen3_vl_text""#])?;
    }
    let key = if keys.contains_key("rope_parameters") { "rope_parameters" } else { "rope_scaling" };
    let rope = keys.remove(key).ok_or_else(|| bad("rope_parameters", "is missing".into()))?;
    let rope: Rope = serde_json::from_value(rope).map_err(|e| bad(key, e.to_string()))?;
    if !rope.mrope_interleaved {
        return Err(bad("mrope_interleaved", "must be true".into()));
    }
    // The default differs between versions of transformers.
    let theta = rope.rope_theta.or_else(|| keys.remove("rope_theta"));
    let theta = theta.ok_or_else(|| bad("rope_theta", "is missing".into()))?;
    let plain = Map::from_iter([("rope_theta".to_owned(), theta), ("rope_type".to_owned(), rope.rope_type)]);
    keys.insert("rope_parameters".into(), Value::Object(plain));
    Ok((Qwen3Config::read(path, &keys)?, rope.mrope_section))
}
