//! CLIP's byte-pair encoding of prompts (transformers' `CLIPTokenizer`).

pub(super) mod added_tokens;
mod triggers;

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};
use tokenizers::{
    AddedToken, SplitDelimiterBehavior, Tokenizer,
    models::bpe::{BPE, Vocab},
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence as PreTokenizers,
        split::{Split, SplitPattern},
    },
};

use super::{
    configuration::{Fixed, one_of},
    word_tags::{normalizer, word_tags},
};
use crate::{
    generation::{Span, Token, chunks, weighted},
    weights::{LoadError, ModelFolder},
};

pub use triggers::Triggers;

/// Turns prompts into ids: `<|startoftext|>`, the words, `<|endoftext|>`, and padding up to `length` ids.
#[derive(Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    start: u32,
    end: u32,
    pad: u32,
    length: usize,
    /// For each added token that stands for several tokens, such as `<cat>`, the ids of the tokens after it: `<cat>_1`,
    /// `<cat>_2` …
    further: HashMap<u32, Vec<u32>>,
}

impl ClipTokenizer {
    /// Reads `tokenizer.json`, or otherwise `vocab.json` and `merges.txt`, from the subfolder `part`. Also reads the
    /// tokens beyond that vocabulary, which pipelines with textual inversions save: `added_tokens_decoder` of
    /// `tokenizer_config.json`, and `added_tokens.json`.
    ///
    /// Prompts are padded to the `model_max_length` of `tokenizer_config.json`, but to at most `positions` tokens. The
    /// padding token comes from `special_tokens_map.json`, otherwise from `tokenizer_config.json`; otherwise it is the
    /// end token.
    ///
    /// # Errors
    /// A file is missing or broken, a key is not supported, or the vocabulary lacks a special token.
    pub fn load(folder: &ModelFolder, part: &str, positions: usize) -> Result<Self, LoadError> {
        let file = |name: &str| format!("{part}/{name}");
        let optional = |name: &str| {
            if folder.has(&file(name)) { folder.json(&file(name)) } else { Ok(Map::new()) }
        };
        let (special, config) = (optional("special_tokens_map.json")?, optional("tokenizer_config.json")?);
        check(&file("tokenizer_config.json"), &config)?;

        let named = |key: &str| content(special.get(key)).or_else(|| content(config.get(key)));
        let end = named("eos_token").unwrap_or("<|endoftext|>");
        let [start, unknown, pad] = [("bos_token", "<|startoftext|>"), ("unk_token", end), ("pad_token", end)]
            .map(|(key, default)| named(key).unwrap_or(default));
        let (path, mut tokenizer) = if folder.has(&file("tokenizer.json")) {
            (file("tokenizer.json"), from_json(folder, &file("tokenizer.json"))?)
        } else {
            let (vocab, merges) = (file("vocab.json"), file("merges.txt"));
            (vocab.clone(), from_vocab_and_merges(folder, &vocab, &merges, unknown)?)
        };
        let bad = |reason: String| LoadError::Tokenizer { path: path.clone(), reason };
        added_tokens::add(&mut tokenizer, folder, part, (&config, &special))?;
        let id =
            |token: &str| tokenizer.token_to_id(token).ok_or_else(|| bad(format!("the vocabulary has no {token:?}")));
        let ids = [id(start)?, id(end)?, id(pad)?];
        id(unknown)?;
        // A special token is one token anywhere in a prompt, even "!" if the vocabulary pads with "!".
        let special = [start, end, unknown, pad].map(|token| AddedToken::from(token, true));
        tokenizer.add_special_tokens(special).map_err(|e| bad(e.to_string()))?;
        let [start, end, pad] = ids;

        // transformers writes 1e30 if no length is set.
        let length = config.get("model_max_length").and_then(Value::as_f64).unwrap_or(f64::INFINITY);
        let length = positions.min(length as usize);
        if length < 2 {
            let reason = format!("prompts have {length} tokens, but start and end take 2");
            return Err(LoadError::BadKey {
                path: file("tokenizer_config.json"),
                key: "model_max_length".into(),
                reason,
            });
        }
        let further = added_tokens::further(&tokenizer);
        Ok(Self { tokenizer, start, end, pad, length, further })
    }

    /// The ids of a prompt, exactly [`ClipTokenizer::length`] of them; a longer prompt is truncated. Triggers in the
    /// prompt are replaced by their ids.
    pub fn encode(&self, prompt: &str, triggers: &Triggers<'_>) -> Vec<u32> {
        self.framed(self.words(prompt, triggers))
    }

    /// The ids of a prompt without start, end and padding, not truncated.
    pub fn words(&self, prompt: &str, triggers: &Triggers<'_>) -> Vec<u32> {
        let tags = if triggers.is_empty() { Vec::new() } else { word_tags(prompt) };
        let (mut ids, mut rest) = (Vec::new(), 0);
        for tag in tags {
            if let Some(of_trigger) = triggers.ids(&tag) {
                ids.extend(self.plain(&prompt[rest..tag.place.start]));
                ids.extend(of_trigger);
                rest = tag.place.end;
            }
        }
        ids.extend(self.plain(&prompt[rest..]));
        ids
    }

    /// The ids of a text without triggers.
    fn plain(&self, text: &str) -> impl Iterator<Item = u32> {
        // A byte-level vocabulary can encode every text. If another vocabulary cannot encode the text, the text has no
        // ids.
        let ids = self.tokenizer.encode(text, false).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default();
        ids.into_iter().flat_map(|id| [id].into_iter().chain(self.further.get(&id).into_iter().flatten().copied()))
    }

    /// The ids of `<cat>_1`, `<cat>_2` …, for every added token such as `<cat>` that stands for several tokens.
    pub fn further(&self) -> impl Iterator<Item = u32> {
        self.further.values().flatten().copied()
    }

    /// Adds start and end to ids, and truncates or pads them to the length.
    pub fn framed(&self, words: Vec<u32>) -> Vec<u32> {
        let mut ids = vec![self.start];
        ids.extend(words.into_iter().take(self.length - 2));
        ids.push(self.end);
        ids.resize(self.length, self.pad);
        ids
    }

    /// The tokens of each segment of a prompt in A1111's syntax, with their weights.
    pub fn segments(&self, prompt: &str, triggers: &Triggers<'_>) -> Vec<Vec<Token>> {
        // The ids of a word after its first id stay in the chunk of the first id.
        let further: HashSet<u32> = triggers.further().chain(self.further()).collect();
        let words = |span: &Span| {
            let ids = self.words(&span.text, triggers).into_iter();
            ids.map(|id| Token { id, weight: span.weight as f32, joined: further.contains(&id) }).collect::<Vec<_>>()
        };
        weighted(prompt).iter().map(|spans| spans.iter().flat_map(words).collect()).collect()
    }

    /// Splits segments into chunks, each of which is encoded on its own.
    pub fn chunks(&self, segments: &[Vec<Token>]) -> Vec<Vec<Token>> {
        let comma = self.words(",", &Triggers::default()).first().copied();
        chunks(segments, self.content().max(1), comma).kept
    }

    /// Maximum number of ids that the words of a prompt can take: all ids except start and end.
    pub fn content(&self) -> usize {
        self.length.saturating_sub(2)
    }

    /// Whether this text is one token of the vocabulary.
    pub fn knows(&self, text: &str) -> bool {
        self.tokenizer.token_to_id(text).is_some()
    }

    /// The number of ids of a prompt, including start, end and padding.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The largest id in the vocabulary, added tokens included.
    pub fn largest_id(&self) -> u32 {
        self.tokenizer.get_vocab(true).into_values().max().unwrap_or(0)
    }
}

/// Keys of `tokenizer_config.json` with fixed values: the tokenizer always converts to lower case.
const CONFIG: [Fixed; 2] =
    [("tokenizer_class", &[r#""CLIPTokenizer""#, r#""CLIPTokenizerFast""#]), ("do_lower_case", &["true"])];

fn check(path: &str, config: &Map<String, Value>) -> Result<(), LoadError> {
    CONFIG.into_iter().try_for_each(|(key, supported)| match config.get(key) {
        Some(value) => one_of(path, key, value, supported),
        None => Ok(()),
    })
}

/// The text of a token, which is stored as a string or as an object with `content`.
pub(super) fn content(token: Option<&Value>) -> Option<&str> {
    token.and_then(|token| token.as_str().or_else(|| token.get("content")?.as_str()))
}

/// Reads `tokenizer.json` without its truncation and padding.
pub(super) fn from_json(folder: &ModelFolder, path: &str) -> Result<Tokenizer, LoadError> {
    let bad = |e: tokenizers::Error| LoadError::Tokenizer { path: path.into(), reason: e.to_string() };
    let mut tokenizer = Tokenizer::from_bytes(folder.bytes(path)?).map_err(bad)?;
    tokenizer.with_truncation(None).map_err(bad)?.with_padding(None);
    Ok(tokenizer)
}

/// Builds the tokenizer that transformers builds from the same two files.
fn from_vocab_and_merges(
    folder: &ModelFolder,
    vocab_path: &str,
    merges_path: &str,
    unknown: &str,
) -> Result<Tokenizer, LoadError> {
    let bad = |path: &str, reason: String| LoadError::Tokenizer { path: path.into(), reason };
    let (vocab, merges) = vocab_and_merges(folder, vocab_path, merges_path)?;
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix("</w>".into())
        .unk_token(unknown.into())
        .build()
        .map_err(|e| bad(merges_path, e.to_string()))?;
    let whole = || -> tokenizers::Result<Tokenizer> {
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_normalizer(Some(normalizer()?))?;
        let words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
        let words = Split::new(SplitPattern::Regex(words.into()), SplitDelimiterBehavior::Removed, true)?;
        let bytes = ByteLevel::new(false, true, true);
        tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
        Ok(tokenizer)
    };
    whole().map_err(|e| bad(vocab_path, e.to_string()))
}

/// Reads the files of a byte-pair encoding: the ids of all tokens, and the pairs that are merged, in their order.
///
/// # Errors
/// A file is missing or broken.
pub(super) fn vocab_and_merges(
    folder: &ModelFolder,
    vocab_path: &str,
    merges_path: &str,
) -> Result<(Vocab, Vec<(String, String)>), LoadError> {
    let bad = |path: &str, reason: String| LoadError::Tokenizer { path: path.into(), reason };
    let vocab: HashMap<String, u32> = serde_json::from_str(&folder.text(vocab_path)?)
        .map_err(|source| LoadError::Json { path: vocab_path.into(), source })?;
    let text = folder.text(merges_path)?;
    if text.trim().is_empty() {
        return Err(bad(merges_path, "the file is empty; download it again".to_owned()));
    }
    let merges = text
        .lines()
        .filter(|line| !line.starts_with("#version") && !line.is_empty())
        .map(|line| {
            let (left, right) =
                line.split_once(' ').ok_or_else(|| bad(merges_path, format!("{line:?} is not a pair")))?;
            Ok((left.to_owned(), right.to_owned()))
        })
        .collect::<Result<Vec<_>, LoadError>>()?;
    Ok((vocab.into_iter().collect(), merges))
}
