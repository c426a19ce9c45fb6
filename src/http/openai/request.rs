//! Translates the fields of OpenAI's requests into fields of a generation. All other fields stay, so a request may have
//! every field of `POST /v1/images` in addition to OpenAI's.

use std::sync::Arc;

use serde_json::Value;

use super::Operation;
use crate::generation::{Fields, Format, Limits, ModelCard, WorkKind};

/// The properties of the answer that depend on the request, not on the generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whether the answer is a stream of events.
    pub stream: bool,
    /// Whether the answer contains the bytes of the pictures (`b64`), and whether it contains their URLs (`url`).
    pub b64: bool,
    pub url: bool,
    /// `low`, `medium` or `high`.
    pub quality: &'static str,
}

/// The models that a request can name.
pub struct Models<'a> {
    pub default: &'a str,
    /// The card of a model; `None` if the model is unknown or cannot be used.
    pub card: &'a dyn Fn(&str) -> Option<Arc<ModelCard>>,
    pub limits: &'a Limits,
}

/// The code of a field or a value that this server does not support.
pub(super) const UNSUPPORTED: &str = "unsupported_parameter";

/// A field of OpenAI's requests whose value is one of a few words.
struct Words {
    name: &'static str,
    /// The values that this server accepts, because it does what they ask for.
    taken: &'static [&'static str],
    /// The values that OpenAI accepts and this server refuses.
    refused: &'static [&'static str],
    /// Why these values are refused.
    why: &'static str,
}

const QUALITY: Words =
    Words { name: "quality", taken: &["auto", "low", "medium", "high", "standard", "hd"], refused: &[], why: "" };
const RESPONSE_FORMAT: Words = Words { name: "response_format", taken: &["b64_json", "url"], refused: &[], why: "" };
const OUTPUT_FORMAT: Words = Words {
    name: "output_format",
    taken: &["png", "jpeg", "webp"],
    refused: &["svg", "gif"],
    why: "pictures are single frames of pixels",
};
const BACKGROUND: Words = Words {
    name: "background",
    taken: &["auto", "opaque"],
    refused: &["transparent"],
    why: "pictures have no transparency",
};
/// Both values have the same effect, because the settings and the key determine the policy of the safety checker.
const MODERATION: Words = Words { name: "moderation", taken: &["auto", "low"], refused: &[], why: "" };
const STYLE: Words =
    Words { name: "style", taken: &["vivid"], refused: &["natural"], why: "describe the style in prompt" };
const INPUT_FIDELITY: Words = Words {
    name: "input_fidelity",
    taken: &["low"],
    refused: &["high"],
    why: "send a smaller strength, such as 0.5, to keep more of image",
};
const COMPLEXITY: Words = Words {
    name: "complexity",
    taken: &["auto"],
    refused: &["low", "medium", "high"],
    why: "send steps to choose the work",
};

/// Replaces OpenAI's fields by fields of a generation. Errors are added to `fields`.
pub fn read(operation: Operation, fields: &mut Fields, models: &Models<'_>) -> Wanted {
    let stream = stream(fields);
    let (b64, url) = match word(fields, &RESPONSE_FORMAT) {
        Some("b64_json") => (true, false),
        Some("url") => (false, true),
        _ => (true, true),
    };
    for accepted in [&BACKGROUND, &MODERATION, &STYLE, &INPUT_FIDELITY, &COMPLEXITY] {
        word(fields, accepted);
    }
    if fields.take("markup").is_some_and(|value| value != Value::Bool(false)) {
        fields.error("markup", UNSUPPORTED, "is not supported");
    }
    pictures(operation, fields);
    output(fields);
    let model = model(fields, models);
    let quality = quality(fields, model.as_deref(), models.limits);
    if size_is_auto(fields) {
        fields.take("size");
    }
    for label in ["user", "safety_identifier"] {
        if let Some(text) = fields.text(label, 512) {
            fields.put_default_below("metadata", label, text);
        }
    }
    if operation == Operation::Variation {
        fields.put_default("prompt", "");
    }
    Wanted { stream, b64, url, quality }
}

/// Removes the field and returns its value if this server accepts the value. Other values are errors.
fn word(fields: &mut Fields, words: &Words) -> Option<&'static str> {
    let Words { name, taken, refused, why } = words;
    let value = fields.take(name)?;
    let find = |list: &[&'static str]| list.iter().copied().find(|word| value.as_str() == Some(word));
    if let Some(word) = find(taken) {
        return Some(word);
    }
    match find(refused) {
        Some(word) => fields.error(name, UNSUPPORTED, format!("must be {}, not {word}; {why}", taken.join(" or "))),
        None => fields.error(name, "invalid_value", format!("must be one of {}", taken.join(", "))),
    }
    None
}

/// Removes `stream` and `partial_images`, and returns the value of `stream`. Partial pictures become previews.
fn stream(fields: &mut Fields) -> bool {
    const MOST_PARTIAL: u64 = 3;
    let stream = fields.flag("stream").unwrap_or(false);
    match fields.integer("partial_images", 0, MOST_PARTIAL) {
        None => {}
        Some(partial) if partial > 0 && !stream => {
            fields.error("partial_images", "conflict", "needs stream: true");
        }
        Some(_) if fields.has("previews") => fields.error("partial_images", "conflict", "excludes previews"),
        Some(partial) => fields.put_back("previews", partial.into()),
    }
    stream
}

/// Finds the picture that is edited, and its mask, under all names that clients use.
fn pictures(operation: Operation, fields: &mut Fields) {
    const ONE: &str = "must be one picture: this server edits one at a time";
    let many = fields.is_faulty("image[]") || (fields.has("image") && fields.has_file("image[]"));
    if many {
        fields.take_part("image[]");
        fields.error("image", UNSUPPORTED, ONE);
    } else if let Some(file) = fields.take_part("image[]") {
        fields.put_file("image", file);
    }
    match fields.take("image") {
        Some(Value::Array(mut images)) if images.len() == 1 => fields.put_back("image", images.remove(0)),
        Some(Value::Array(_)) => fields.error("image", UNSUPPORTED, ONE),
        Some(image) => fields.put_back("image", image),
        None => {}
    }
    match fields.take("images") {
        Some(Value::Array(mut images)) if images.len() == 1 && !fields.has("image") => {
            fields.put_back("image", images.remove(0));
        }
        Some(_) => fields.error("images", UNSUPPORTED, ONE),
        None => {}
    }
    for name in ["image", "mask"] {
        if let Some(value) = fields.take(name) {
            match unwrapped(value) {
                Ok(picture) => fields.put_back(name, picture),
                Err(()) => fields.error(name, UNSUPPORTED, "cannot be a file_id: send the picture itself"),
            }
        }
    }
    if operation != Operation::Generation && !fields.has("image") && !fields.is_faulty("image") {
        fields.error("image", "required", "is required: the picture that is changed");
    }
}

/// The picture of OpenAI's `{"image_url": …}`. Other values are unchanged, except `{"file_id": …}`, which is an error.
pub(super) fn unwrapped(value: Value) -> Result<Value, ()> {
    match value {
        Value::Object(mut map) if map.contains_key("image_url") => Ok(map.remove("image_url").unwrap_or_default()),
        Value::Object(map) if map.contains_key("file_id") => Err(()),
        value => Ok(value),
    }
}

/// Moves `output_format` and `output_compression` into `output`.
fn output(fields: &mut Fields) {
    if let Some(format) = word(fields, &OUTPUT_FORMAT) {
        put_output(fields, "output_format", "format", format.into());
    }
    let Some(compression) = fields.integer("output_compression", 0, 100) else { return };
    match Format::named_in(fields, WorkKind::Draw).unwrap_or_default() {
        // The lowest quality of a JPEG is 1.
        Format::Jpeg => put_output(fields, "output_compression", "quality", compression.max(1).into()),
        Format::Png | Format::Webp if compression == 100 => {}
        format => {
            let detail = format!("must be 100 or absent, because {} files are lossless", format.name());
            fields.error("output_compression", UNSUPPORTED, detail);
        }
    }
}

/// Sets `key` in `output`. If the request itself has already set this key in `output`, the field `name` gets an error
/// instead.
fn put_output(fields: &mut Fields, name: &str, key: &str, value: Value) {
    let given = fields.take("output");
    let has_key = given.as_ref().and_then(|output| output.get(key)).is_some_and(|value| !value.is_null());
    if let Some(given) = given {
        fields.put_back("output", given);
    }
    match has_key {
        true => fields.error(name, "conflict", format!("excludes output.{key}")),
        false => fields.put_default_below("output", key, value),
    }
}

/// The card of the request's model. OpenAI's own models stand for the default model.
fn model(fields: &mut Fields, models: &Models<'_>) -> Option<Arc<ModelCard>> {
    const OPENAI_MODELS: [&str; 3] = ["dall-e-", "gpt-image-", "chatgpt-image-"];
    let Some(name) = fields.take("model") else { return (models.card)(models.default) };
    let text = name.as_str().unwrap_or_default();
    let card = (models.card)(text);
    if card.is_none() && OPENAI_MODELS.iter().any(|prefix| text.starts_with(prefix)) {
        return (models.card)(models.default);
    }
    fields.put_back("model", name);
    card
}

/// Removes `quality`. Unless the request itself has steps or noise levels, `quality` chooses the number of steps.
fn quality(fields: &mut Fields, card: Option<&ModelCard>, limits: &Limits) -> &'static str {
    let (name, factor) = match word(fields, &QUALITY) {
        Some("low") => ("low", 0.5),
        Some("high" | "hd") => ("high", 1.6),
        _ => ("medium", 1.0),
    };
    let has_own = ["steps", "num_inference_steps", "sigmas", "timesteps"].iter().any(|field| fields.has(field));
    if let Some(card) = card.filter(|_| name != "medium" && !has_own) {
        let steps = (f64::from(card.default_steps) * factor).round() as u32;
        fields.put_back("steps", steps.clamp(1, limits.max_steps).into());
    }
    name
}

fn size_is_auto(fields: &mut Fields) -> bool {
    let size = fields.take("size");
    let is_auto = size.as_ref().and_then(Value::as_str) == Some("auto");
    if let Some(size) = size {
        fields.put_back("size", size);
    }
    is_auto
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIMITS: Limits = Limits {
        max_side_pixels: 2048,
        max_pixels: 1 << 22,
        max_images: 8,
        max_steps: 30,
        max_seconds: 30.0,
        max_frames: 121,
        max_prompt_chars: 100,
    };

    /// The fields of the generation, with the faults as `(pointer, code)`, and what is wanted.
    fn translated(operation: Operation, request: Value) -> (Value, Vec<(String, &'static str)>, Wanted) {
        let Value::Object(map) = request else { panic!("a request is an object") };
        let names: Vec<String> = map.keys().cloned().collect();
        let mut fields = Fields::new(map);
        let card =
            |name: &str| (name == "emoji").then(|| Arc::new(ModelCard { default_steps: 20, ..ModelCard::default() }));
        let wanted = read(operation, &mut fields, &Models { default: "emoji", card: &card, limits: &LIMITS });
        let more = ["output", "metadata", "steps", "previews", "image", "prompt"].map(str::to_owned);
        let taken = names.into_iter().chain(more).filter_map(|name| {
            let value = fields.take(&name)?;
            Some((name, value))
        });
        let all: serde_json::Map<String, Value> = taken.collect();
        let faults = fields.finish().into_iter().map(|error| (error.pointer, error.code)).collect();
        (Value::Object(all), faults, wanted)
    }

    fn generation(request: Value) -> (Value, Vec<(String, &'static str)>, Wanted) {
        translated(Operation::Generation, request)
    }

    #[test]
    fn every_field_has_its_meaning() {
        for (request, expected) in [
            (json!({"prompt": "a", "n": 2, "seed": 7}), json!({"prompt": "a", "n": 2, "seed": 7})),
            (json!({"size": "auto"}), json!({})),
            (json!({"size": "64x128"}), json!({"size": "64x128"})),
            (json!({"quality": "low"}), json!({"steps": 10})),
            (json!({"quality": "hd"}), json!({"steps": 30})),
            (json!({"quality": "auto"}), json!({})),
            (json!({"quality": "low", "steps": 3}), json!({"steps": 3})),
            (json!({"quality": "high", "model": "unknown"}), json!({"model": "unknown"})),
            (json!({"model": "dall-e-3"}), json!({})),
            (json!({"model": "gpt-image-1", "quality": "low"}), json!({"steps": 10})),
            (json!({"output_format": "webp"}), json!({"output": {"format": "webp"}})),
            (
                json!({"output_format": "jpeg", "output_compression": 0}),
                json!({"output": {"format": "jpeg", "quality": 1}}),
            ),
            (
                json!({"output": {"metadata": "none"}, "output_format": "png", "output_compression": 100}),
                json!({"output": {"metadata": "none", "format": "png"}}),
            ),
            (
                json!({"user": "u", "safety_identifier": "s"}),
                json!({"metadata": {"user": "u", "safety_identifier": "s"}}),
            ),
            (json!({"background": "opaque", "moderation": "low", "style": "vivid", "markup": null}), json!({})),
            (json!({"stream": true, "partial_images": 2}), json!({"previews": 2})),
            (json!({"partial_images": 0}), json!({"previews": 0})),
        ] {
            assert_eq!(generation(request.clone()).0, expected, "{request}");
            assert_eq!(generation(request.clone()).1, [], "{request}");
        }
    }

    #[test]
    fn unsupported_values_are_refused_with_the_field() {
        for (request, pointer, code) in [
            (json!({"output_format": "svg"}), "/output_format", UNSUPPORTED),
            (json!({"output_format": "gif"}), "/output_format", UNSUPPORTED),
            (json!({"output_format": "bmp"}), "/output_format", "invalid_value"),
            (json!({"output_compression": 50}), "/output_compression", UNSUPPORTED),
            (json!({"output_format": "jpeg", "output_compression": 101}), "/output_compression", "out_of_range"),
            (json!({"output_format": "png", "output": {"format": "jpeg"}}), "/output_format", "conflict"),
            (json!({"background": "transparent"}), "/background", UNSUPPORTED),
            (json!({"style": "natural"}), "/style", UNSUPPORTED),
            (json!({"moderation": "high"}), "/moderation", "invalid_value"),
            (json!({"input_fidelity": "high"}), "/input_fidelity", UNSUPPORTED),
            (json!({"markup": [1]}), "/markup", UNSUPPORTED),
            (json!({"complexity": "high"}), "/complexity", UNSUPPORTED),
            (json!({"quality": 7}), "/quality", "invalid_value"),
            (json!({"response_format": "file"}), "/response_format", "invalid_value"),
            (json!({"partial_images": 2}), "/partial_images", "conflict"),
            (json!({"partial_images": 4, "stream": true}), "/partial_images", "out_of_range"),
            (json!({"partial_images": 1, "stream": true, "previews": 1}), "/partial_images", "conflict"),
            (json!({"user": 7}), "/user", "wrong_type"),
            (json!({"images": [{"file_id": "f"}]}), "/image", UNSUPPORTED),
            (json!({"image": ["aGk=", "aGk="]}), "/image", UNSUPPORTED),
        ] {
            assert_eq!(generation(request.clone()).1, [(pointer.to_owned(), code)], "{request}");
        }
    }

    #[test]
    fn the_answer_has_both_forms_unless_one_is_asked_for() {
        for (request, forms) in [
            (json!({}), (true, true)),
            (json!({"response_format": null}), (true, true)),
            (json!({"response_format": "url"}), (false, true)),
            (json!({"response_format": "b64_json"}), (true, false)),
        ] {
            let wanted = generation(request).2;
            assert_eq!((wanted.b64, wanted.url), forms);
        }
    }

    #[test]
    fn a_picture_is_found_under_every_name() {
        for request in [
            json!({"image": "aGk="}),
            json!({"image": ["aGk="]}),
            json!({"images": [{"image_url": "aGk="}]}),
            json!({"image": {"image_url": "aGk="}}),
        ] {
            let (fields, faults, _) = translated(Operation::Variation, request.clone());
            assert_eq!((fields, faults), (json!({"image": "aGk=", "prompt": ""}), Vec::new()), "{request}");
        }
        let (_, faults, _) = translated(Operation::Edit, json!({"prompt": "a"}));
        assert_eq!(faults, [("/image".to_owned(), "required")]);
    }

    #[test]
    fn parts_of_forms_are_pictures() {
        let file = |name: &str| (name.to_owned(), bytes::Bytes::from_static(b"hi"));
        let card = |_: &str| None;
        let models = Models { default: "emoji", card: &card, limits: &LIMITS };
        let mut one = Fields::from_multipart([], [file("image[]"), file("mask")]);
        read(Operation::Edit, &mut one, &models);
        assert_eq!(
            (one.take("image"), one.take("mask")),
            (Some(json!({"file": "image"})), Some(json!({"file": "mask"})))
        );
        assert!(one.has_file("image") && !one.has_file("image[]") && !one.has_errors());
        for names in [["image[]", "image[]"], ["image", "image[]"]] {
            let mut two = Fields::from_multipart([], names.map(file));
            read(Operation::Edit, &mut two, &models);
            assert!(two.finish().iter().any(|error| error.code == UNSUPPORTED), "{names:?}");
        }
    }
}
