//! T5's tokenizer: the pieces of a sentencepiece model (transformers' `T5Tokenizer`; Kudo 2018, arXiv:1804.10959).

mod sentence_piece;

use std::borrow::Cow;

use serde_json::{Map, Value};
use tokenizers::{
    AddedToken, Tokenizer,
    models::unigram::Unigram,
    normalizers::Precompiled,
    pre_tokenizers::{
        metaspace::{Metaspace, PrependScheme},
        sequence::Sequence as PreTokenizers,
        whitespace::WhitespaceSplit,
    },
};

use super::{
    configuration::{Fixed, one_of},
    prompt_cleaning::cleaned,
    tokenizer::{content, from_json},
};
use crate::weights::{LoadError, ModelFolder};
use sentence_piece::SentencePiece;

/// Turns prompts into ids: the pieces, `</s>`, and padding.
#[derive(Debug)]
pub struct T5Tokenizer {
    tokenizer: Tokenizer,
    end: u32,
    pad: u32,
    length: usize,
    preparation: Preparation,
}

/// The preparation of a prompt before the prompt is divided into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Preparation {
    Nothing,
    Lowercase,
    Cleaning,
}

/// The ids of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct T5Ids {
    /// The ids, with padding.
    pub ids: Vec<u32>,
    /// The number of ids that are not padding, at least 1: the attention mask.
    pub tokens: usize,
}

impl T5Tokenizer {
    /// Reads `tokenizer.json`, or otherwise `spiece.model`, from the subfolder `part`. `length` is the number of ids of
    /// a prompt for which a request gives no other number.
    ///
    /// # Errors
    /// A file is missing or broken, a key is not supported, or the vocabulary lacks a special token.
    pub fn load(folder: &ModelFolder, part: &str, length: usize) -> Result<Self, LoadError> {
        let file = |name: &str| format!("{part}/{name}");
        let optional = |name: &str| {
            if folder.has(&file(name)) { folder.json(&file(name)) } else { Ok(Map::new()) }
        };
        let (special, config) = (optional("special_tokens_map.json")?, optional("tokenizer_config.json")?);
        for (key, supported) in CONFIG {
            config.get(key).map_or(Ok(()), |value| one_of(&file("tokenizer_config.json"), key, value, supported))?;
        }
        let named = |key: &str, default: &'static str| {
            let name = content(special.get(key)).or_else(|| content(config.get(key)));
            name.unwrap_or(default).to_owned()
        };
        let (path, mut tokenizer) = if folder.has(&file("tokenizer.json")) {
            (file("tokenizer.json"), from_json(folder, &file("tokenizer.json"))?)
        } else {
            let extra_ids = config.get("extra_ids").and_then(Value::as_u64).unwrap_or(EXTRA_IDS);
            (file("spiece.model"), from_pieces(folder, &file("spiece.model"), extra_ids.min(EXTRA_IDS))?)
        };
        let bad = |reason: String| LoadError::Tokenizer { path: path.clone(), reason };
        let [end, pad] = [named("eos_token", "</s>"), named("pad_token", "<pad>")];
        let id =
            |token: &str| tokenizer.token_to_id(token).ok_or_else(|| bad(format!("the vocabulary has no {token:?}")));
        let ids = [id(&end)?, id(&pad)?];
        let special = [end, pad, named("unk_token", "<unk>")].map(|token| AddedToken::from(token, true));
        tokenizer.add_special_tokens(special).map_err(|e| bad(e.to_string()))?;
        let [end, pad] = ids;
        Ok(Self { tokenizer, end, pad, length: length.max(1), preparation: Preparation::Nothing })
    }

    /// The same tokenizer, but with prompts that are first converted to lower case and trimmed.
    pub fn lowercased(self) -> Self {
        Self { preparation: Preparation::Lowercase, ..self }
    }

    /// The same tokenizer, but with prompts that are first cleaned as diffusers' `prompt_clean` does.
    pub fn cleaning(self) -> Self {
        Self { preparation: Preparation::Cleaning, ..self }
    }

    /// The ids of a prompt, exactly `length` of them, at least 1; a longer prompt is truncated. `length` is
    /// diffusers' `max_sequence_length`.
    pub fn encode(&self, prompt: &str, length: usize) -> T5Ids {
        let mut ids = self.words(prompt);
        ids.truncate(length.max(1) - 1);
        ids.push(self.end);
        let tokens = ids.len();
        ids.resize(length.max(1), self.pad);
        T5Ids { ids, tokens }
    }

    /// The ids of a prompt without end and padding, not truncated.
    pub fn words(&self, prompt: &str) -> Vec<u32> {
        // Like `strip()` in Python.
        let is_space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
        let prompt = match self.preparation {
            Preparation::Nothing => Cow::Borrowed(prompt),
            Preparation::Lowercase => prompt.to_lowercase().trim_matches(is_space).to_owned().into(),
            Preparation::Cleaning => cleaned(prompt).into(),
        };
        // Every text can be encoded, because unknown characters become `<unk>`.
        self.tokenizer.encode(&*prompt, false).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default()
    }

    /// Whether this text is one token of the vocabulary.
    pub fn knows(&self, text: &str) -> bool {
        self.tokenizer.token_to_id(text).is_some()
    }

    /// The number of ids of a prompt for which a request gives no other number.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The largest id in the vocabulary, added tokens included.
    pub fn largest_id(&self) -> u32 {
        self.tokenizer.get_vocab(true).into_values().max().unwrap_or(0)
    }
}

const CONFIG: [Fixed; 1] = [("tokenizer_class", &[r#""T5Tokenizer""#, r#""T5TokenizerFast""#])];

/// The number of tokens `<extra_id_0>` … that T5's tokenizers have beyond the pieces, if the files give no other
/// number.
const EXTRA_IDS: u64 = 100;

/// Whether the library, which does not check its indices, can apply this table to every text. The table is the length
/// of a trie in bytes, the trie (a double array of 32-bit units), and the texts that its values point into.
fn is_sound(charsmap: &[u8]) -> bool {
    let Some((length, rest)) = charsmap.split_first_chunk() else { return false };
    let Some((trie, texts)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize / 4 * 4) else { return false };
    let Ok(texts) = std::str::from_utf8(texts) else { return false };
    let units: Vec<usize> = trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit) as usize).collect();
    // The units that are not leaves. The library follows these units, beginning with the first unit.
    let mut inner = units.iter().enumerate().filter(|(i, unit)| *i == 0 || **unit >> 31 == 0);
    !units.is_empty()
        && inner.all(|(i, unit)| {
            let next = i ^ ((unit >> 10) << ((unit & (1 << 9)) >> 6));
            let has_value = (unit >> 8) & 1 == 1;
            (next | 0xff) < units.len() && (!has_value || texts.is_char_boundary(units[next] & 0x7fff_ffff))
        })
}

/// Builds the tokenizer that transformers builds from the same file.
fn from_pieces(folder: &ModelFolder, path: &str, extra_ids: u64) -> Result<Tokenizer, LoadError> {
    let bad = |reason: String| LoadError::Tokenizer { path: path.into(), reason };
    let SentencePiece { mut pieces, unknown, charsmap } =
        SentencePiece::parse(&folder.bytes(path)?).map_err(|reason| bad(reason.to_owned()))?;
    if !charsmap.is_empty() && !is_sound(&charsmap) {
        return Err(bad("the table of the normalizer is broken; download the file again".to_owned()));
    }
    let mut special: Vec<AddedToken> = Vec::new();
    for name in (0..extra_ids).rev().map(|i| format!("<extra_id_{i}>")) {
        special.push(AddedToken::from(name.clone(), true));
        pieces.push((name, 0.0));
    }
    let whole = || -> tokenizers::Result<Tokenizer> {
        let mut tokenizer = Tokenizer::new(Unigram::from(pieces, Some(unknown), false)?);
        if !charsmap.is_empty() {
            tokenizer.with_normalizer(Some(Precompiled::from(&charsmap)?))?;
        }
        let words = Metaspace::new('▁', PrependScheme::Always, true);
        tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![WhitespaceSplit.into(), words.into()])));
        tokenizer.add_special_tokens(special)?;
        Ok(tokenizer)
    };
    whole().map_err(|e| bad(e.to_string()))
}
