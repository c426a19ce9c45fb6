//! Translates the fields of OpenAI's requests for films into fields of a generation. All other fields stay, so a
//! request may have every field of `POST /v1/videos` in addition to OpenAI's.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    generation::{Fields, Invalid, Limits, ModelCard},
    http::{error::ApiError, openai::request::UNSUPPORTED},
};

/// The beginning of the names of OpenAI's own models, which stand for a model of this server.
const OPENAI_MODELS: &str = "sora-";

/// The fields that only OpenAI's form has.
const OWN: [&str; 3] = ["seconds", "input_reference", IN_FORM];
/// The keys of `input_reference` in OpenAI's protocol.
const KEYS: [&str; 2] = ["image_url", "file_id"];
/// The key `image_url` of `input_reference`, as OpenAI's SDKs write it in a form.
const IN_FORM: &str = "input_reference[image_url]";

/// Whether the request has a field that only OpenAI's form has.
pub fn is_openai(fields: &Fields) -> bool {
    OWN.iter().any(|name| fields.has(name) || fields.has_file(name))
}

/// Removes OpenAI's fields that are null, and therefore count as absent, from a request in the native form.
pub fn drop_absent(fields: &mut Fields) {
    for name in OWN.iter().filter(|name| !fields.has(name)).collect::<Vec<_>>() {
        fields.take(name);
    }
}

/// How errors about the request name its fields: unless the request itself has the field `image`, errors of the picture
/// belong to `input_reference`.
pub fn names_of(fields: &Fields) -> fn(ApiError) -> ApiError {
    if fields.has("image") || fields.has_file("image") { |error| error } else { of_reference }
}

fn of_reference(error: ApiError) -> ApiError {
    let ApiError::Invalid(Invalid { mut errors }) = error else { return error };
    for error in &mut errors {
        let below = error.pointer.strip_prefix("/image").filter(|below| below.is_empty() || below.starts_with('/'));
        let Some(below) = below else { continue };
        error.pointer = format!("/input_reference{below}");
        if let Some(rest) = error.detail.strip_prefix("image") {
            error.detail = format!("input_reference{rest}");
        }
    }
    ApiError::Invalid(Invalid { errors })
}

/// Replaces OpenAI's fields by fields of a generation. `models` are the cards of all models that can be used. Errors
/// are added to `fields`.
pub fn read(fields: &mut Fields, models: &[Arc<ModelCard>], default: &str, limits: &Limits) {
    picture(fields);
    let card = model(fields, models, default);
    seconds(fields, card, limits);
}

/// Moves the picture that the film begins with to the field `image`.
fn picture(fields: &mut Fields) {
    if let Some(url) = fields.take(IN_FORM) {
        fields.put_default("input_reference", url);
    }
    let has_image = fields.has("image") || fields.has_file("image");
    let has_reference = fields.has("input_reference") || fields.has_file("input_reference");
    if has_image && has_reference {
        fields.take_part("input_reference");
        fields.error("input_reference", "conflict", "excludes image");
    } else if fields.has_file("input_reference") {
        if let Some(file) = fields.take_part("input_reference") {
            fields.put_file("image", file);
        }
    } else if let Some(value) = fields.take("input_reference") {
        reference(fields, value);
    }
}

/// Reads the picture in `input_reference`: `{"image_url": …}`, or one of the native forms of a picture.
fn reference(fields: &mut Fields, value: Value) {
    const NAME: &str = "input_reference";
    let mut map = match value {
        Value::Array(_) => return fields.error(NAME, "wrong_type", "must be one picture, not a list"),
        Value::Object(map) if KEYS.iter().any(|key| map.contains_key(*key)) => map,
        picture => return fields.put_back("image", picture),
    };
    map.retain(|_, value| !value.is_null());
    let picture = map.remove(KEYS[0]);
    if map.remove(KEYS[1]).is_some() {
        fields.error(NAME, UNSUPPORTED, "cannot be a file_id: send the picture itself");
    } else if picture.is_none() {
        fields.error_below(NAME, KEYS[0], "required", "is required");
    }
    for key in map.keys() {
        fields.error_below(NAME, key, "unknown_field", "is not a key of input_reference, only image_url is");
    }
    if let Some(picture) = picture.filter(|_| !fields.is_faulty(NAME)) {
        fields.put_back("image", picture);
    }
}

/// The card of the request's model. If the request names no model, or one of OpenAI's models, it gets the default model
/// if the default model makes such films, and otherwise the only model that makes such films.
fn model<'a>(fields: &mut Fields, models: &'a [Arc<ModelCard>], default: &str) -> Option<&'a ModelCard> {
    let find = |name: &str| models.iter().find(|card| card.name == name).map(AsRef::as_ref);
    let named = fields.take("model");
    let text = named.as_ref().and_then(Value::as_str).unwrap_or_default();
    let is_open = named.is_none() || (text.starts_with(OPENAI_MODELS) && find(text).is_none());
    if !is_open {
        let card = find(text);
        fields.put_back("model", named.unwrap_or_default());
        return card;
    }
    // A film with a motion adapter begins with no picture.
    let begins = fields.has("image") || fields.has_file("image");
    let makes = |card: &&ModelCard| card.film.is_some() && (!begins || card.motion_adapters.is_empty());
    let mut films = models.iter().map(AsRef::as_ref).filter(makes);
    let chosen = find(default).filter(makes).or_else(|| films.next().filter(|_| films.next().is_none()));
    match chosen {
        Some(card) => fields.put_back("model", card.name.clone().into()),
        None => {
            let detail = "is required, because the default model makes no films; GET /v1/models lists the models";
            fields.error("model", "required", detail);
        }
    }
    chosen
}

/// Replaces `seconds` by the nearest number of frames that the model can make, at the rate of the request.
fn seconds(fields: &mut Fields, card: Option<&ModelCard>, limits: &Limits) {
    let Some(value) = fields.take("seconds") else { return };
    let text = value.as_str().and_then(|text| text.trim().parse().ok());
    let Some(seconds) = value.as_f64().or(text).filter(|seconds: &f64| *seconds > 0.0 && seconds.is_finite()) else {
        fields.error("seconds", "wrong_type", "must be a number above 0, such as \"4\"");
        return;
    };
    if fields.has("frames") {
        fields.error("seconds", "conflict", "excludes frames");
        return;
    }
    let Some((card, film)) = card.and_then(|card| Some((card, card.film?))) else { return };
    let rate = fields.take("fps");
    let fps = rate.as_ref().and_then(Value::as_f64).unwrap_or(f64::from(film.default_fps));
    if let Some(rate) = rate {
        fields.put_back("fps", rate);
    }
    let multiple = f64::from(film.frames_multiple.max(1));
    let frames = ((seconds * fps - 1.0) / multiple).round().max(1.0) * multiple + 1.0;
    // The largest number that the model can make.
    let most = (f64::from(card.most_frames(limits).saturating_sub(1)) / multiple).floor() * multiple + 1.0;
    match frames <= most {
        true => fields.put_back("frames", (frames as u64).into()),
        false => {
            let detail = format!("must be at most {} here: {most} frames at {fps} frames per second", most / fps);
            fields.error("seconds", "out_of_range", detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::generation::FilmCard;

    const LIMITS: Limits = Limits {
        max_side_pixels: 2048,
        max_pixels: 1 << 22,
        max_images: 8,
        max_steps: 30,
        max_seconds: 30.0,
        max_frames: 121,
        max_prompt_chars: 100,
    };

    fn card(name: &str, frames_multiple: Option<u32>) -> Arc<ModelCard> {
        let film = frames_multiple.map(|frames_multiple| FilmCard {
            default_frames: 14,
            frames_multiple,
            default_fps: 7,
            motion: None,
            has_second_guidance: false,
            decodes_in_chunks: true,
        });
        Arc::new(ModelCard { name: name.to_owned(), film, ..ModelCard::default() })
    }

    /// The fields after the translation, and the faults as `(pointer, code)`.
    fn translated(models: &[Arc<ModelCard>], request: Value) -> (Value, Vec<(String, &'static str)>) {
        let Value::Object(map) = request else { panic!("a request is an object") };
        let mut fields = Fields::new(map);
        read(&mut fields, models, "emoji", &LIMITS);
        let all: Map<String, Value> = fields.take_all();
        (Value::Object(all), fields.finish().into_iter().map(|error| (error.pointer, error.code)).collect())
    }

    #[test]
    fn fields_of_openai_become_those_of_a_film() {
        let models = [card("emoji", None), card("svd", Some(1))];
        for (request, expected) in [
            (json!({"prompt": "a", "seconds": "2"}), json!({"prompt": "a", "model": "svd", "frames": 14})),
            (json!({"model": "sora-2", "seconds": 1}), json!({"model": "svd", "frames": 7})),
            (json!({"model": "svd", "seconds": "2", "fps": 10}), json!({"model": "svd", "frames": 20, "fps": 10})),
            (json!({"model": "svd", "seconds": 0.01}), json!({"model": "svd", "frames": 2})),
            (json!({"model": "emoji", "seconds": 2}), json!({"model": "emoji"})),
            (json!({"input_reference": {"image_url": "a"}}), json!({"model": "svd", "image": "a"})),
            (json!({"input_reference[image_url]": "a"}), json!({"model": "svd", "image": "a"})),
            (json!({"input_reference": {"image_url": "a", "file_id": null}}), json!({"model": "svd", "image": "a"})),
            (json!({"input_reference": null, "seconds": null}), json!({"model": "svd"})),
            (json!({"input_reference": "a", "size": "64x32"}), json!({"model": "svd", "image": "a", "size": "64x32"})),
        ] {
            assert_eq!(translated(&models, request.clone()), (expected, Vec::new()), "{request}");
        }
        let (wan, _) = translated(&[card("wan", Some(4))], json!({"seconds": 2}));
        assert_eq!(wan["frames"], 13, "the nearest number of frames that is one more than a multiple of 4");
    }

    #[test]
    fn what_films_cannot_have_is_an_error() {
        let models = [card("svd", Some(1))];
        for (request, pointer, code) in [
            (json!({"seconds": "long"}), "/seconds", "wrong_type"),
            (json!({"seconds": -1}), "/seconds", "wrong_type"),
            (json!({"seconds": 100}), "/seconds", "out_of_range"),
            (json!({"seconds": 1, "frames": 7}), "/seconds", "conflict"),
            (json!({"input_reference": "a", "image": "b"}), "/input_reference", "conflict"),
            (json!({"input_reference": {"file_id": "f"}}), "/input_reference", UNSUPPORTED),
            (json!({"input_reference": ["a"]}), "/input_reference", "wrong_type"),
            (json!({"input_reference": {"image_url": null}}), "/input_reference/image_url", "required"),
            (json!({"input_reference": {"image_url": "a", "size": 1}}), "/input_reference/size", "unknown_field"),
        ] {
            assert_eq!(translated(&models, request.clone()).1, [(pointer.to_owned(), code)], "{request}");
        }
        // The bound is the longest film that the model can make: 9 frames at 7 frames per second.
        let Value::Object(map) = json!({"seconds": 9}) else { unreachable!("the text is an object") };
        let mut fields = Fields::new(map);
        read(&mut fields, &[card("wan", Some(4))], "emoji", &Limits { max_frames: 12, ..LIMITS });
        let errors = fields.finish();
        assert!(errors[0].detail.contains("9 frames at 7 frames per second"), "{errors:?}");
        let two = [card("svd", Some(1)), card("wan", Some(4))];
        assert_eq!(translated(&two, json!({"prompt": "a"})).1, [("/model".to_owned(), "required")]);
    }
}
