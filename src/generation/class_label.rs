//! Reads `class_label`, the classes that a class-conditional model draws.

use serde_json::Value;

use super::{Fields, field::Bounds, table};

/// Reads `class_label` for `n` pictures: one number or name for all of them, or a list with one for each. Returns one
/// class number for each picture, or nothing for a model without classes.
pub(super) fn read(fields: &mut Fields, on: &Bounds<'_>, n: u32) -> Vec<u32> {
    let (name, classes) = (table::CLASS_LABEL.name, &on.card.classes);
    if classes.is_empty() {
        return Vec::new();
    }
    match fields.take(name) {
        None => {
            let detail = format!("is required: the model {:?} draws one of {} classes", on.card.name, classes.len());
            fields.error(name, "required", detail);
            Vec::new()
        }
        Some(Value::Array(list)) if list.len() == n as usize => {
            let labels = list.iter().enumerate();
            labels.filter_map(|(i, value)| label(fields, classes, &[name, &i.to_string()], value)).collect()
        }
        Some(Value::Array(list)) => {
            let detail = format!("must have one entry for each of the {n} pictures, not {}", list.len());
            fields.error(name, "out_of_range", detail);
            Vec::new()
        }
        Some(value) => label(fields, classes, &[name], &value).map(|label| vec![label; n as usize]).unwrap_or_default(),
    }
}

/// Parses one class number or class name. An invalid value is an error at `path`.
fn label(fields: &mut Fields, classes: &[String], path: &[&str], value: &Value) -> Option<u32> {
    let most = classes.len() - 1;
    let (code, detail) = match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0);
            match whole.filter(|number| (0.0..=most as f64).contains(number)) {
                Some(label) => return Some(label as u32),
                None => ("out_of_range", format!("must be a whole number from 0 to {most}, not {number}")),
            }
        }
        Value::String(name) => match by_name(classes, name.trim()) {
            Some(label) => return Some(label),
            None if classes.iter().all(String::is_empty) => {
                ("invalid_value", format!("must be a number from 0 to {most}, as the classes have no names"))
            }
            None => {
                let shown: String = name.chars().take(80).collect();
                ("invalid_value", format!("must be the name of a class or a number from 0 to {most}, not {shown:?}"))
            }
        },
        _ => ("wrong_type", "must be a number or a name, or a list with one entry for each picture".to_owned()),
    };
    fields.error_at(path, code, detail);
    None
}

/// The number of the class with this name. A class may have several names, separated by commas.
fn by_name(classes: &[String], name: &str) -> Option<u32> {
    let is_it = |names: &String| names == name || names.split(',').any(|one| one.trim() == name);
    let found = classes.iter().position(is_it).filter(|_| !name.is_empty());
    found.and_then(|class| u32::try_from(class).ok())
}
