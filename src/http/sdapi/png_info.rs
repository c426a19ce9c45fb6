//! `POST /sdapi/v1/png-info`: the settings in a picture file.

use axum::response::Json;
use serde_json::{Map, Value, json};

use crate::{
    generation::{Fields, ImageField, ImageSource, Invalid},
    http::{caller::Caller, error::ApiError},
    imaging::infotext_of,
    service::offload,
};

/// Reads the settings in a PNG, JPEG or WebP file.
pub(super) async fn png_info(_: Caller, mut fields: Fields) -> Result<Json<Value>, ApiError> {
    if !fields.has("image") {
        fields.error("image", "required", "is required: a PNG, JPEG or WebP file in base64");
    }
    let bytes = fields.body_bytes();
    let answer = offload(bytes, move || {
        let given = fields.pictures().into_iter().find(|(place, _)| *place == ImageField::Image);
        match given {
            Some((_, ImageSource::File(file, _))) if !fields.has_errors() => Ok(about(infotext_of(&file))),
            _ => {
                if !fields.has_errors() {
                    fields.error("image", "invalid_value", "must be a PNG, JPEG or WebP file in base64");
                }
                fields.take_all();
                Err(ApiError::Invalid(Invalid { errors: fields.finish() }))
            }
        }
    });
    answer.await.map(Json)
}

fn about(infotext: Option<String>) -> Value {
    let Some(text) = infotext else { return json!({"info": "", "items": {}, "parameters": {}}) };
    let parameters = settings(&text);
    json!({"info": text, "items": {"parameters": text}, "parameters": parameters})
}

/// The parts of the text in a picture: `Prompt`, `Negative prompt`, and the settings of its last line by their names.
pub(super) fn settings(text: &str) -> Map<String, Value> {
    const NEGATIVE: &str = "Negative prompt: ";
    let (texts, line) = match text.rfind("Steps: ").filter(|at| *at == 0 || text[..*at].ends_with('\n')) {
        Some(at) => (text[..at].trim_end_matches('\n'), &text[at..]),
        None => (text, ""),
    };
    let (prompt, negative) = match texts.strip_prefix(NEGATIVE) {
        Some(negative) => ("", negative),
        None => texts.split_once(&format!("\n{NEGATIVE}")).unwrap_or((texts, "")),
    };
    let mut found = Map::new();
    found.insert("Prompt".to_owned(), prompt.into());
    found.insert("Negative prompt".to_owned(), negative.into());
    let mut rest = line;
    while let Some((name, after)) = rest.split_once(": ") {
        let (value, left) = value(after);
        found.insert(name.trim().to_owned(), value.into());
        rest = left;
    }
    found
}

/// The value at the beginning of a line of settings, and the settings after it. A value in quotes is JSON.
fn value(text: &str) -> (String, &str) {
    if text.starts_with('"') {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
        if let Some(Ok(value)) = values.next() {
            let rest = &text[values.byte_offset()..];
            return (value, rest.strip_prefix(", ").unwrap_or(rest));
        }
    }
    let (value, rest) = text.split_once(", ").unwrap_or((text, ""));
    (value.trim_end().to_owned(), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_settings_are_told_apart() {
        let text = "a red fox, Steps: to the moon\nsecond line\nNegative prompt: rain, fog\nSteps: 20, Sampler: DPM++ 2M, \
                    Schedule type: Karras, ControlNet 0: \"Module: canny, Model: x\", Size: 64x64, Version: latentd 0.1.0";
        let found = settings(text);
        for (name, expected) in [
            ("Prompt", "a red fox, Steps: to the moon\nsecond line"),
            ("Negative prompt", "rain, fog"),
            ("Steps", "20"),
            ("Sampler", "DPM++ 2M"),
            ("Schedule type", "Karras"),
            ("ControlNet 0", "Module: canny, Model: x"),
            ("Size", "64x64"),
            ("Version", "latentd 0.1.0"),
        ] {
            assert_eq!(found[name], expected, "{name}");
        }
        assert_eq!(found.len(), 8);
    }

    #[test]
    fn any_text_is_read() {
        assert_eq!(settings("")["Prompt"], "");
        assert_eq!(settings("Steps: 4")["Steps"], "4");
        assert_eq!(settings("Negative prompt: x\nSteps: 4")["Negative prompt"], "x");
        assert_eq!(settings("only a prompt")["Prompt"], "only a prompt");
        assert_eq!(settings("Steps: \"broken, x: 1")["x"], "1");
    }
}
