//! Gemma's byte-pair encoding of texts (transformers' `GemmaTokenizer`), as T5Gemma reads them.

use serde_json::{Map, Value};
use tokenizers::Tokenizer;

use super::{
    configuration::one_of,
    tokenizer::{added_tokens, from_json},
};
use crate::weights::{LoadError, ModelFolder};

/// Turns texts into ids: the start that the file prescribes (`<bos>`) and the words, without padding.
#[derive(Debug)]
pub struct GemmaTokenizer {
    tokenizer: Tokenizer,
    longest: usize,
}

impl GemmaTokenizer {
    /// Reads `tokenizer.json` from the subfolder `part`. Also reads the tokens beyond that vocabulary, from
    /// `added_tokens_decoder` of `tokenizer_config.json` and `added_tokens.json`. The maximum number of ids of a text
    /// is `model_max_length` of `tokenizer_config.json`, but at most `positions`.
    ///
    /// # Errors
    /// A file is missing or broken, or a key is not supported.
    pub fn load(folder: &ModelFolder, part: &str, positions: usize) -> Result<Self, LoadError> {
        let file = |name: &str| format!("{part}/{name}");
        let optional = |name: &str| {
            if folder.has(&file(name)) { folder.json(&file(name)) } else { Ok(Map::new()) }
        };
        let (special, config) = (optional("special_tokens_map.json")?, optional("tokenizer_config.json")?);
        let config_path = file("tokenizer_config.json");
        if let Some(class) = config.get("tokenizer_class") {
            one_of(&config_path, "tokenizer_class", class, &[r#""GemmaTokenizer""#, r#""GemmaTokenizerFast""#])?;
        }
        let mut tokenizer = from_json(folder, &file("tokenizer.json"))?;
        added_tokens::add(&mut tokenizer, folder, part, (&config, &special))?;
        // transformers writes 1e30 if no length is set.
        let length = config.get("model_max_length").and_then(Value::as_f64).unwrap_or(f64::INFINITY);
        let made = Self { tokenizer, longest: positions.min(length as usize) };
        let starts = made.starts();
        if starts == 0 {
            let reason = "no token comes before the words, so an empty text would have no tokens".to_owned();
            return Err(LoadError::Tokenizer { path: file("tokenizer.json"), reason });
        }
        if made.longest <= starts {
            let reason = format!("texts have {} tokens, but the start takes {starts}", made.longest);
            return Err(LoadError::BadKey { path: config_path, key: "model_max_length".into(), reason });
        }
        Ok(made)
    }

    /// The ids of a text, at most [`GemmaTokenizer::longest`]. A longer text is cut at its end.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = self.ids(text, true);
        ids.truncate(self.longest);
        ids
    }

    /// The ids of a text without start, not cut.
    pub fn words(&self, text: &str) -> Vec<u32> {
        self.ids(text, false)
    }

    /// The number of ids of an empty text.
    pub fn starts(&self) -> usize {
        self.ids("", true).len()
    }

    /// Maximum number of ids of a text.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The largest id in the vocabulary, added tokens included.
    pub fn largest_id(&self) -> u32 {
        self.tokenizer.get_vocab(true).into_values().max().unwrap_or(0)
    }

    fn ids(&self, text: &str, with_start: bool) -> Vec<u32> {
        // A vocabulary with bytes can encode every text. If another vocabulary cannot encode the text, the text has no
        // ids.
        self.tokenizer.encode(text, with_start).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default()
    }
}
