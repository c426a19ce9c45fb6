//! RoBERTa's byte-pair encoding of texts (transformers' `RobertaTokenizer`).

use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer, models::bpe::BPE, pre_tokenizers::byte_level::ByteLevel};

use super::{
    configuration::one_of,
    tokenizer::{added_tokens, content, from_json, vocab_and_merges},
};
use crate::weights::{LoadError, ModelFolder};

/// Turns texts into ids: `<s>`, the words, `</s>`, without padding.
#[derive(Debug)]
pub struct RobertaTokenizer {
    tokenizer: Tokenizer,
    start: u32,
    end: u32,
    longest: usize,
}

impl RobertaTokenizer {
    /// Reads `tokenizer.json`, or otherwise `vocab.json` and `merges.txt`, from the subfolder `part`. Also reads the
    /// tokens beyond that vocabulary, from `added_tokens_decoder` of `tokenizer_config.json` and `added_tokens.json`.
    /// The maximum number of ids of a text is `model_max_length` of `tokenizer_config.json`, but at most `positions`.
    ///
    /// # Errors
    /// A file is missing or broken, a key is not supported, or the vocabulary lacks a special token.
    pub fn load(folder: &ModelFolder, part: &str, positions: usize) -> Result<Self, LoadError> {
        let file = |name: &str| format!("{part}/{name}");
        let optional = |name: &str| {
            if folder.has(&file(name)) { folder.json(&file(name)) } else { Ok(Map::new()) }
        };
        let (special, config) = (optional("special_tokens_map.json")?, optional("tokenizer_config.json")?);
        for (key, supported) in [
            ("tokenizer_class", &[r#""RobertaTokenizer""#, r#""RobertaTokenizerFast""#][..]),
            ("add_prefix_space", &["false"][..]),
        ] {
            if let Some(value) = config.get(key) {
                one_of(&file("tokenizer_config.json"), key, value, supported)?;
            }
        }
        let (path, mut tokenizer) = if folder.has(&file("tokenizer.json")) {
            (file("tokenizer.json"), from_json(folder, &file("tokenizer.json"))?)
        } else {
            (file("vocab.json"), from_vocab_and_merges(folder, &file("vocab.json"), &file("merges.txt"))?)
        };
        let bad = |reason: String| LoadError::Tokenizer { path: path.clone(), reason };
        added_tokens::add(&mut tokenizer, folder, part, (&config, &special))?;
        let named = |key: &str| content(special.get(key)).or_else(|| content(config.get(key)));
        let (start, end) = (named("bos_token").unwrap_or("<s>"), named("eos_token").unwrap_or("</s>"));
        let id =
            |token: &str| tokenizer.token_to_id(token).ok_or_else(|| bad(format!("the vocabulary has no {token:?}")));
        let ids = [id(start)?, id(end)?];
        // A special token is one token anywhere in a text.
        tokenizer
            .add_special_tokens([start, end].map(|token| AddedToken::from(token, true)))
            .map_err(|e| bad(e.to_string()))?;
        let [start, end] = ids;
        // transformers writes 1e30 if no length is set.
        let length = config.get("model_max_length").and_then(Value::as_f64).unwrap_or(f64::INFINITY);
        let longest = positions.min(length as usize);
        if longest < 2 {
            let (path, key) = (file("tokenizer_config.json"), "model_max_length".into());
            let reason = format!("texts have {longest} tokens, but start and end take 2");
            return Err(LoadError::BadKey { path, key, reason });
        }
        Ok(Self { tokenizer, start, end, longest })
    }

    /// The ids of a text, at most `longest` of them and at most [`RobertaTokenizer::longest`]. A longer text is cut;
    /// start and end stay.
    pub fn encode(&self, text: &str, longest: usize) -> Vec<u32> {
        let words = self.words(text);
        let kept = longest.clamp(2, self.longest) - 2;
        let words = words.into_iter().take(kept);
        [self.start].into_iter().chain(words).chain([self.end]).collect()
    }

    /// The ids of a text without start and end, not cut.
    pub fn words(&self, text: &str) -> Vec<u32> {
        // A byte-level vocabulary can encode every text. If another vocabulary cannot encode the text, the text has no
        // ids.
        self.tokenizer.encode(text, false).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default()
    }

    /// Maximum number of ids of a text.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The largest id in the vocabulary, added tokens included.
    pub fn largest_id(&self) -> u32 {
        self.tokenizer.get_vocab(true).into_values().max().unwrap_or(0)
    }
}

/// Builds the tokenizer that transformers builds from the same two files.
fn from_vocab_and_merges(folder: &ModelFolder, vocab_path: &str, merges_path: &str) -> Result<Tokenizer, LoadError> {
    let bad = |e: tokenizers::Error| LoadError::Tokenizer { path: vocab_path.into(), reason: e.to_string() };
    let (vocab, merges) = vocab_and_merges(folder, vocab_path, merges_path)?;
    let model = BPE::builder().vocab_and_merges(vocab, merges).build().map_err(bad)?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    // Before the mask, a space belongs to its token.
    let mask = AddedToken::from("<mask>", true).lstrip(true);
    let special = ["<s>", "<pad>", "</s>", "<unk>"].map(|token| AddedToken::from(token, true));
    tokenizer.add_special_tokens(special.into_iter().chain([mask])).map_err(bad)?;
    Ok(tokenizer)
}
