//! Reads JSON as Python's `json` module writes it; diffusers, transformers and PEFT save configurations with this
//! module.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Reads JSON that may have `Infinity`, `-Infinity` and `NaN`, which are not JSON but occur in configurations of
/// schedulers (`lambda_min_clipped`). They become strings of the same spelling. Code that expects a number refuses
/// these strings, unless it allows them.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text).or_else(|_| serde_json::from_str(&quote_non_finite(text)))
}

/// [`read`] for an object.
pub(super) fn object(text: &str) -> Result<Map<String, Value>, serde_json::Error> {
    read(text)
}

fn quote_non_finite(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 16);
    let mut in_string = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if !in_string && let Some(word) = ["-Infinity", "Infinity", "NaN"].into_iter().find(|w| rest.starts_with(w)) {
            quoted.extend(['"'].into_iter().chain(word.chars()).chain(['"']));
            rest = &rest[word.len()..];
            continue;
        }
        // An escape is copied with the character it escapes, so that `\"` does not end the string.
        let taken =
            if in_string && c == '\\' { 1 + rest[1..].chars().next().map_or(0, char::len_utf8) } else { c.len_utf8() };
        in_string ^= c == '"';
        quoted.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_numbers_become_strings_and_strings_stay() {
        let read =
            object(r#"{"a": -Infinity, "b": [NaN, Infinity, 1.5], "c": "NaN \" Infinity \\", "d": null}"#).unwrap();
        assert_eq!(read["a"], "-Infinity");
        assert_eq!(read["b"], serde_json::json!(["NaN", "Infinity", 1.5]));
        assert_eq!(read["c"], "NaN \" Infinity \\");
    }

    #[test]
    fn invalid_json_is_an_error() {
        for text in ["", "{", "[1]", "{\"a\": Infinit}", "{\"a\\", "\u{fffd}NaN"] {
            assert!(object(text).is_err(), "{text:?}");
        }
    }
}
