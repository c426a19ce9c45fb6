//! The units of ControlNet: the entries of `alwayson_scripts.ControlNet.args`, each with a ControlNet and its picture.

use serde_json::{Map, Value, json};

use super::idle;
use crate::generation::{Draw, Fields};

/// The path of the units in a request.
pub(super) const UNITS: [&str; 3] = ["alwayson_scripts", "ControlNet", "args"];

/// The ControlNets of a request.
#[derive(Debug, Default)]
pub(super) struct Units {
    /// The value of the field `controls`.
    pub controls: Vec<Value>,
    /// The index of the unit that each entry of `controls` comes from.
    pub places: Vec<usize>,
    /// The indices of the entries of `controls` whose units ask to crop or fill their picture if it does not have the
    /// shape of the picture to draw.
    pub fitted: Vec<usize>,
    pub notes: Vec<String>,
}

/// Reads the units. Units that are switched off are skipped. A unit without a picture of its own uses `source`, the
/// picture of the request. Errors are added to `fields`.
pub(super) fn units(script: Value, source: Option<&Value>, fields: &mut Fields) -> Units {
    let mut units = Units::default();
    let args = match script {
        Value::Object(mut script) => script.remove("args").unwrap_or_default(),
        other => other,
    };
    let args = match args {
        Value::Null => Vec::new(),
        Value::Array(args) => args,
        _ => {
            fields.error_at(&UNITS, "wrong_type", "must be a list of objects");
            return units;
        }
    };
    for (place, unit) in args.into_iter().enumerate() {
        match unit {
            Value::Object(unit) if is_off(&unit) => {}
            // The web interface's own page sends true or false before the units of some scripts.
            Value::Bool(_) | Value::Null => {}
            Value::Object(unit) => {
                if is_fitted(&unit) {
                    units.fitted.push(units.controls.len());
                }
                let control = control(unit, place, source, &mut units.notes, fields);
                units.controls.push(Value::Object(control));
                units.places.push(place);
            }
            _ => error(fields, place, None, "wrong_type", "must be an object"),
        }
    }
    units
}

/// Whether the unit does nothing: it is not enabled, or it names no model.
fn is_off(unit: &Map<String, Value>) -> bool {
    let model = unit.get("model").and_then(Value::as_str).unwrap_or("None");
    unit.get("enabled") == Some(&Value::Bool(false)) || model.is_empty() || model.eq_ignore_ascii_case("none")
}

fn control(
    mut unit: Map<String, Value>,
    place: usize,
    source: Option<&Value>,
    notes: &mut Vec<String>,
    fields: &mut Fields,
) -> Map<String, Value> {
    let mut control = Map::new();
    if let Some(model) = unit.remove("model").as_ref().and_then(Value::as_str) {
        control.insert("model".to_owned(), without_hash(model).into());
    }
    let has_mask = ["image", "input_image"]
        .iter()
        .any(|name| unit.get(*name).and_then(|image| image.get("mask")).is_some_and(is_given));
    let given = picture(unit.remove("image")).or(picture(unit.remove("input_image"))).or(source.cloned());
    if let Some(given) = given {
        control.insert("image".to_owned(), given);
    }
    for (theirs, ours) in [("weight", "scale"), ("guidance_start", "start"), ("guidance_end", "end")] {
        if let Some(value) = unit.remove(theirs) {
            control.insert(ours.to_owned(), value);
        }
    }
    let mode = unit.remove("control_mode").unwrap_or_default();
    match control_mode(&mode) {
        Some(ControlMode::Balanced) => {}
        Some(ControlMode::Prompt) => {
            notes.push(note(place, "control_mode", "\"My prompt is more important\" counts as \"Balanced\""))
        }
        Some(ControlMode::ControlNet) => {
            control.insert("guess_mode".to_owned(), true.into());
        }
        None => {
            let detail = "must be Balanced, My prompt is more important or ControlNet is more important, or 0, 1 or 2";
            error(fields, place, Some("control_mode"), "invalid_value", detail);
        }
    }
    let module = unit.remove("module").unwrap_or_default();
    match module.as_str().map(str::to_ascii_lowercase).as_deref() {
        None if module.is_null() => {}
        Some("none") => {}
        Some("canny") => {
            control.insert("preprocess".to_owned(), "canny".into());
            // -1 stands for the default of the preprocessor.
            let mut is_other = |name: &str, used: f64| {
                let value = unit.remove(name).filter(|value| !value.is_null());
                value.is_some_and(|value| ![Some(used), Some(-1.0)].contains(&value.as_f64()))
            };
            if [is_other("threshold_a", 100.0), is_other("threshold_b", 200.0)].contains(&true) {
                notes.push(note(place, "threshold_a and threshold_b", "canny uses 100 and 200"));
            }
        }
        _ => error(fields, place, Some("module"), "invalid_value", "must be none or canny"),
    }
    if !control.contains_key("preprocess") {
        // These settings have no effect without a preprocessor.
        ["processor_res", "threshold_a", "threshold_b"].iter().for_each(|name| drop(unit.remove(*name)));
    }
    if unit.remove("mask").as_ref().is_some_and(is_given) || has_mask {
        notes.push(note(place, "mask", "this server does not support it"));
    }
    notes.extend(unit.iter().filter_map(|(name, value)| idle::unit_note(name, value)).map(|why| about(place, &why)));
    control
}

/// Whether the unit wants its picture cropped or filled.
fn is_fitted(unit: &Map<String, Value>) -> bool {
    unit.get("resize_mode").is_some_and(|mode| !mode.is_null() && *mode != json!("Just Resize") && *mode != json!(0))
}

/// The note about unit `place`, which asks to crop or fill the picture of entry `index` of `controls`. `None` if that
/// picture already has the shape of the picture to draw.
pub(super) fn stretched(draw: &Draw, index: usize, place: usize) -> Option<String> {
    let image = &draw.controls.get(index)?.image;
    let has_shape = u64::from(image.width) * u64::from(draw.height) == u64::from(image.height) * u64::from(draw.width);
    (!has_shape).then(|| note(place, "resize_mode", "the picture is resized without cropping or filling"))
}

fn is_given(value: &Value) -> bool {
    !value.is_null() && *value != json!("")
}

/// A picture as base64 or data URL, or in an object with a mask.
fn picture(value: Option<Value>) -> Option<Value> {
    match value? {
        Value::Object(mut object) => picture(object.remove("image")),
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        other => Some(other),
    }
}

/// The name of a model without the hash in brackets after it.
pub(super) fn without_hash(name: &str) -> &str {
    match name.rsplit_once(" [") {
        Some((start, hash)) if hash.ends_with(']') => start.trim_end(),
        _ => name,
    }
}

enum ControlMode {
    Balanced,
    Prompt,
    ControlNet,
}

fn control_mode(value: &Value) -> Option<ControlMode> {
    match (value.as_str(), value.as_u64()) {
        (Some("Balanced"), _) | (_, Some(0)) => Some(ControlMode::Balanced),
        (Some("My prompt is more important"), _) | (_, Some(1)) => Some(ControlMode::Prompt),
        (Some("ControlNet is more important"), _) | (_, Some(2)) => Some(ControlMode::ControlNet),
        _ if value.is_null() => Some(ControlMode::Balanced),
        _ => None,
    }
}

fn note(place: usize, field: &str, why: &str) -> String {
    about(place, &format!("{field} is ignored: {why}"))
}

fn about(place: usize, why: &str) -> String {
    format!("ControlNet unit {place}: {why}")
}

fn error(fields: &mut Fields, place: usize, key: Option<&str>, code: &'static str, detail: &str) {
    let place = place.to_string();
    let path: Vec<&str> = UNITS.into_iter().chain([place.as_str()]).chain(key).collect();
    fields.error_at(&path, code, detail);
}
