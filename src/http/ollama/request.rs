//! Translates the fields of Ollama's requests into fields of a generation. All other fields stay, so a request may have
//! every field of `POST /v1/images` in addition to Ollama's.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    generation::{FIELDS, Fields, Invalid, ModelCard, Warning},
    http::error::ApiError,
};

/// A translated request.
#[derive(Debug)]
pub struct Request {
    pub fields: Fields,
    /// Whether the answer is a stream of lines.
    pub stream: bool,
    /// Whether the request only asks to load the model: it has neither a prompt nor a picture, and the model takes
    /// prompts.
    pub only_loads: bool,
    pub about: About,
}

/// What the answers repeat from the request.
#[derive(Clone, Debug)]
pub struct About {
    /// The model as the client names it.
    pub model: String,
    /// Warnings about the parts of the request that this server ignores.
    pub ignored: Vec<Warning>,
}

/// The tag that Ollama's clients add to a name without a tag.
pub const TAG: &str = ":latest";

/// Fields that are ignored, because they concern language models or (`keep_alive`) the memory of Ollama's server.
const IGNORED: [&str; 13] = [
    "system",
    "template",
    "context",
    "raw",
    "suffix",
    "format",
    "think",
    "truncate",
    "shift",
    "logprobs",
    "top_logprobs",
    "_debug_render_only",
    "keep_alive",
];

/// Replaces Ollama's fields. `card` is the card of a model; `None` if the model is unknown or cannot be used.
///
/// # Errors
/// Ollama's own fields are not valid.
pub fn read(
    mut fields: Fields,
    default: &str,
    card: impl Fn(&str) -> Option<Arc<ModelCard>>,
) -> Result<Request, ApiError> {
    let stream = fields.flag("stream").unwrap_or(true);
    let named = fields.text("model", 128 + TAG.len());
    let model = named.clone().unwrap_or_else(|| default.to_owned());
    let own = model.strip_suffix(TAG).filter(|_| card(&model).is_none()).unwrap_or(&model).to_owned();
    let ignored = ignored(&mut fields);
    picture(&mut fields);
    // In Ollama's requests, 0 means the default of the model.
    for name in ["width", "height", "steps"] {
        take_if(&mut fields, name, |number| number == 0.0);
    }
    take_if(&mut fields, "seed", |seed| seed < 0.0);
    if take_if(&mut fields, "n", |n| n > 1.0) {
        fields.error("n", "out_of_range", "must be 1: an answer has one picture");
    }
    let card = card(&own);
    let prompt = fields.take("prompt").filter(|prompt| !prompt.is_null());
    let has_prompt = prompt.as_ref().is_some_and(|prompt| prompt != "");
    let only_loads = !has_prompt && !fields.has("image") && card.is_some_and(|card| card.takes_prompt);
    if let Some(prompt) = prompt {
        fields.put_back("prompt", prompt);
    }
    if fields.has_errors() {
        return Err(ApiError::Invalid(Invalid { errors: fields.finish() }));
    }
    fields.put_back("model", own.into());
    Ok(Request { fields, stream, only_loads, about: About { model, ignored } })
}

/// Removes the fields that mean nothing for pictures, and returns a warning for each that has a value. An entry of
/// `options` that is a field of a generation becomes a field of the request, unless the request already has this field.
fn ignored(fields: &mut Fields) -> Vec<Warning> {
    let mut ignored = Vec::new();
    let mut ignore = |pointer: String| {
        let detail = format!("{} is ignored: it does not concern pictures", pointer[1..].replace('/', "."));
        ignored.push(Warning::new("ignored_field", &pointer, detail));
    };
    for name in IGNORED {
        let is_empty = |value: &Value| match value {
            Value::Null => true,
            Value::Bool(flag) => !flag,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
        };
        if fields.take(name).is_some_and(|value| !is_empty(&value)) {
            ignore(format!("/{name}"));
        }
    }
    for (name, value) in fields.object("options").unwrap_or_default() {
        match FIELDS.iter().find(|field| field.name == name) {
            Some(field) if !fields.has(field.name) => fields.put_back(field.name, value),
            Some(_) => {}
            None => ignore(format!("/options/{}", name.replace('~', "~0").replace('/', "~1"))),
        }
    }
    ignored
}

/// Moves the picture in `images` into the field `image`, as the picture to start from.
fn picture(fields: &mut Fields) {
    let Some(images) = fields.take("images") else { return };
    match images.as_array().map(Vec::as_slice) {
        Some([]) => {}
        Some([Value::String(image)]) => fields.put_back("image", json!({ "b64": image })),
        Some([_]) => fields.error("images", "wrong_type", "must be a list of texts in base64"),
        Some(_) => fields.error("images", "out_of_range", "must have at most 1 picture"),
        None if images.is_null() => {}
        None => fields.error("images", "wrong_type", "must be a list of texts in base64"),
    }
}

/// Removes the field if its value is a number for which `condition` holds. Returns whether the field was removed.
fn take_if(fields: &mut Fields, name: &str, condition: impl Fn(f64) -> bool) -> bool {
    let Some(value) = fields.take(name) else { return false };
    if value.as_f64().is_some_and(condition) {
        return true;
    }
    fields.put_back(name, value);
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: Value) -> Result<(Value, Request), ApiError> {
        let Value::Object(map) = body else { panic!("a body is an object") };
        let card = ModelCard { takes_prompt: true, ..ModelCard::default() };
        let card = Arc::new(card);
        let mut request = read(Fields::new(map), "emoji", |name| (name == "emoji").then(|| card.clone()))?;
        let fields = Value::Object(request.fields.take_all());
        Ok((fields, request))
    }

    #[test]
    fn fields_become_those_of_a_generation() {
        let (fields, request) = request(json!({
            "model": "emoji:latest", "prompt": "a fox", "width": 0, "height": 96, "steps": 0, "keep_alive": "5m",
            "system": "", "raw": false, "images": ["AAAA"], "guidance_scale": 3,
            "options": {"seed": 7, "temperature": 0.5, "guidance_scale": 9},
        }))
        .unwrap();
        let expected = json!({
            "model": "emoji", "prompt": "a fox", "height": 96, "seed": 7, "image": {"b64": "AAAA"}, "guidance_scale": 3,
        });
        assert_eq!(fields, expected);
        assert!(request.stream && !request.only_loads);
        assert_eq!(request.about.model, "emoji:latest");
        let ignored: Vec<&str> = request.about.ignored.iter().map(|warning| warning.pointer.as_str()).collect();
        assert_eq!(ignored, ["/keep_alive", "/options/temperature"]);
    }

    #[test]
    fn a_request_without_prompt_and_picture_only_loads() {
        let loads = |body: Value| request(body).unwrap().1.only_loads;
        assert!(loads(json!({"model": "emoji"})) && loads(json!({"prompt": "", "stream": false})));
        assert!(!loads(json!({"prompt": "a"})) && !loads(json!({"images": ["AAAA"]})));
        assert!(!loads(json!({"model": "unknown"})), "it is an error later");
        assert_eq!(request(json!({"prompt": "a", "seed": -1})).unwrap().0, json!({"prompt": "a", "model": "emoji"}));
    }

    #[test]
    fn impossible_requests_are_refused() {
        for (body, pointer) in [
            (json!({"prompt": "a", "n": 2}), "/n"),
            (json!({"prompt": "a", "images": ["AAAA", "BBBB"]}), "/images"),
            (json!({"prompt": "a", "images": [1]}), "/images"),
            (json!({"prompt": "a", "images": "AAAA"}), "/images"),
            (json!({"prompt": "a", "stream": "yes"}), "/stream"),
            (json!({"prompt": "a", "options": 1}), "/options"),
            (json!({"prompt": "a", "model": 1}), "/model"),
        ] {
            let Err(ApiError::Invalid(Invalid { errors })) = request(body.clone()) else { panic!("{body}") };
            assert_eq!(errors[0].pointer, pointer, "{body}");
        }
    }
}
