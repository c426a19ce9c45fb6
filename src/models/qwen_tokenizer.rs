//! The tokenizer of Qwen3 text encoders (transformers' `Qwen2Tokenizer`), with the text of a chat around each prompt.

use serde_json::Map;
use tokenizers::{
    SplitDelimiterBehavior, Tokenizer,
    models::bpe::BPE,
    normalizers::unicode::NFC,
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence as PreTokenizers,
        split::{Split, SplitPattern},
    },
};

use super::{
    configuration::one_of,
    tokenizer::{added_tokens, content, from_json, vocab_and_merges},
};
use crate::weights::{LoadError, ModelFolder};

/// Turns prompts into ids. A prompt is the message of a user in a chat, whose answer begins after the ids.
#[derive(Debug)]
pub struct QwenTokenizer {
    tokenizer: Tokenizer,
    pad: u32,
    answer: Answer,
}

/// How the answer in a chat begins. The argument `enable_thinking` of the tokenizer's `chat_template` chooses between
/// the two beginnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The answer has no given beginning, so the language model may think first.
    Thinking,
    /// The answer begins with an empty thought, so the language model answers at once.
    Direct,
}

/// Texts that are one token each.
const SPECIAL: [&str; 2] = ["<|im_start|>", "<|im_end|>"];

/// How a text is split into the words whose letters are merged.
const WORDS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

impl QwenTokenizer {
    /// Reads `tokenizer.json`, or otherwise `vocab.json` and `merges.txt`, from the subfolder `part`. Also reads the
    /// tokens beyond that vocabulary, from `added_tokens_decoder` of `tokenizer_config.json` and `added_tokens.json`.
    ///
    /// # Errors
    /// A file is missing or broken, or the vocabulary lacks a special token.
    pub fn load(folder: &ModelFolder, part: &str, answer: Answer) -> Result<Self, LoadError> {
        let file = |name: &str| format!("{part}/{name}");
        let optional = |name: &str| {
            if folder.has(&file(name)) { folder.json(&file(name)) } else { Ok(Map::new()) }
        };
        let (special, config) = (optional("special_tokens_map.json")?, optional("tokenizer_config.json")?);
        if let Some(class) = config.get("tokenizer_class") {
            let supported = [r#""Qwen2Tokenizer""#, r#""Qwen2TokenizerFast""#];
            one_of(&file("tokenizer_config.json"), "tokenizer_class", class, &supported)?;
        }
        let (path, mut tokenizer) = if folder.has(&file("tokenizer.json")) {
            (file("tokenizer.json"), from_json(folder, &file("tokenizer.json"))?)
        } else {
            (file("vocab.json"), from_vocab_and_merges(folder, &file("vocab.json"), &file("merges.txt"))?)
        };
        added_tokens::add(&mut tokenizer, folder, part, (&config, &special))?;
        let id = |token: &str| {
            let reason = || format!("the vocabulary has no {token:?}");
            tokenizer.token_to_id(token).ok_or_else(|| LoadError::Tokenizer { path: path.clone(), reason: reason() })
        };
        SPECIAL.iter().try_for_each(|token| id(token).map(drop))?;
        let named = |key: &str| content(special.get(key)).or_else(|| content(config.get(key)));
        let pad = id(named("pad_token").unwrap_or("<|endoftext|>"))?;
        Ok(Self { tokenizer, pad, answer })
    }

    /// The ids of the chat with this prompt: the whole chat, however long.
    pub fn encode(&self, prompt: &str) -> Vec<u32> {
        let answer = match self.answer {
            Answer::Thinking => "",
            Answer::Direct => "<think>\n\n</think>\n\n",
        };
        let chat = format!("<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{answer}");
        self.ids(&chat)
    }

    /// The ids of a text as it is, without a chat around it.
    pub(super) fn ids(&self, text: &str) -> Vec<u32> {
        // A byte-level vocabulary can encode every text. If another vocabulary cannot encode the text, the text has no
        // ids.
        self.tokenizer.encode(text, true).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default()
    }

    /// The id of a token.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The id of padding.
    pub fn pad(&self) -> u32 {
        self.pad
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
    let whole = || -> tokenizers::Result<Tokenizer> {
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_normalizer(Some(NFC))?;
        let words = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Isolated, false)?;
        let bytes = ByteLevel::new(false, true, false);
        tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
        Ok(tokenizer)
    };
    whole().map_err(bad)
}
