//! CLIP's vocabulary, which single-file checkpoints need and do not contain.
//!
//! `models/clip/merges.txt` holds the first 48,894 merges of the list that OpenAI published with CLIP (Radford et al.
//! 2021, arXiv:2103.00020), as `open_clip` redistributes it under the MIT license.

use serde_json::{Map, Value, json};

/// The merges, one per line, in the order in which they apply.
const MERGES: &str = include_str!("../../models/clip/merges.txt");

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// The text of a file of the tokenizer of Stable Diffusion's text encoders: `vocab.json`, `merges.txt` or
/// `tokenizer_config.json`. `None` for other names. `pad` is the padding token.
pub(super) fn file(name: &str, pad: &str) -> Option<String> {
    match name {
        "vocab.json" => Some(Value::Object(vocabulary()).to_string()),
        "merges.txt" => Some(MERGES.to_owned()),
        "tokenizer_config.json" => Some(
            json!({
                "tokenizer_class": "CLIPTokenizer",
                "bos_token": START,
                "eos_token": END,
                "unk_token": END,
                "pad_token": pad,
                "model_max_length": 77,
                "do_lower_case": true,
            })
            .to_string(),
        ),
        _ => None,
    }
}

/// The names for which [`file`] returns a text.
pub(super) const FILES: [&str; 3] = ["vocab.json", "merges.txt", "tokenizer_config.json"];

/// The padding tokens of CLIP's own text encoder and of OpenCLIP's text encoders.
pub(super) const PADS: (&str, &str) = (END, "!");

/// The ids of all tokens: bytes, bytes that end a word, merges in their order, and the tokens for start and end.
fn vocabulary() -> Map<String, Value> {
    let letters: Vec<char> = letters();
    let single = letters.iter().map(char::to_string);
    let last = letters.iter().map(|letter| format!("{letter}</w>"));
    let merged = MERGES.lines().map(|line| line.replace(' ', ""));
    let tokens = single.chain(last).chain(merged).chain([START.to_owned(), END.to_owned()]);
    tokens.enumerate().map(|(id, token)| (token, id.into())).collect()
}

/// The characters that stand for bytes: first the bytes that are printable in Latin-1, unchanged; then the other bytes,
/// as the code points from 256 on.
fn letters() -> Vec<char> {
    let printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let as_they_are = (0..256).filter(printable);
    let moved = (0..256).filter(|byte| !printable(byte)).enumerate().map(|(i, _)| 256 + i as u32);
    as_they_are.chain(moved).filter_map(char::from_u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_ids() {
        let vocabulary = vocabulary();
        assert_eq!(vocabulary.len(), 49408, "every token has one id");
        for (token, id) in [
            ("!", 0),
            ("!</w>", 256),
            ("a</w>", 320),
            ("of</w>", 539),
            ("photo</w>", 1125),
            ("cat</w>", 2368),
            (START, 49406),
            (END, 49407),
        ] {
            assert_eq!(vocabulary[token], id, "{token}");
        }
    }
}
