//! Reading a request field by field, so that the answer can name every bad one at once.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

/// One thing wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer to the field, such as `/steps`.
    pub pointer: String,
    /// `required`, `unknown_field`, `wrong_type`, `out_of_range`, `invalid_value`, `conflict`, `unknown_model`,
    /// `unknown_lora`.
    pub code: &'static str,
    /// A sentence that names the bound.
    pub detail: String,
}

/// The fields of a request that were not read yet, and the errors found so far.
#[derive(Debug)]
pub struct Fields {
    pub(super) map: Map<String, Value>,
    /// The files of a multipart body by the names of their parts.
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) errors: Vec<FieldError>,
    prefix: String,
}

impl Fields {
    pub fn new(map: Map<String, Value>) -> Fields {
        Fields { map, files: BTreeMap::new(), errors: Vec::new(), prefix: String::new() }
    }

    /// Fields of an HTML form. A form knows only texts: those that read as JSON are taken for it where the field is not a
    /// text.
    pub fn from_form(pairs: impl IntoIterator<Item = (String, String)>) -> Fields {
        let mut fields = Fields::new(Map::new());
        for (name, text) in pairs {
            // A scheduler is a name or an object.
            let is_object = name == "scheduler" && text.trim_start().starts_with('{');
            let value = if is_text(&name) && !is_object { Value::String(text) } else { scalar(text) };
            if fields.map.contains_key(&name) {
                fields.error(&name, "conflict", "is given more than once");
            } else if let Some(key) = name.strip_prefix("metadata[").and_then(|rest| rest.strip_suffix(']')) {
                let entry = fields.map.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(metadata) = entry {
                    let text = match value {
                        Value::String(text) => text,
                        other => other.to_string(),
                    };
                    metadata.insert(key.to_owned(), Value::String(text));
                }
            } else {
                fields.map.insert(name, value);
            }
        }
        fields
    }

    /// Fields of a multipart form: texts as in [`Fields::from_form`], and files by the names of their parts, to which a field
    /// may point with `{"file": NAME}`; `image` and `mask` point to the files of their own names.
    pub fn from_multipart(texts: Vec<(String, String)>, files: Vec<(String, Vec<u8>)>) -> Fields {
        let mut fields = Fields::from_form(texts);
        for (name, bytes) in files {
            if fields.files.contains_key(&name) || fields.map.contains_key(&name) {
                fields.error(&name, "conflict", "is given more than once");
                continue;
            }
            if matches!(name.as_str(), "image" | "mask") {
                fields.map.insert(name.clone(), Value::Object(Map::from_iter([("file".into(), name.clone().into())])));
            }
            fields.files.insert(name, bytes);
        }
        fields
    }

    pub(super) fn take_file(&mut self, name: &str) -> Option<Vec<u8>> {
        self.files.remove(name)
    }

    pub(super) fn peek(&self, name: &str) -> Option<&Value> {
        self.map.get(name)
    }

    pub(super) fn peek_mut(&mut self, name: &str) -> Option<&mut Value> {
        self.map.get_mut(name)
    }

    pub fn error(&mut self, name: &str, code: &'static str, detail: impl Into<String>) {
        self.error_at(&[name], code, detail);
    }

    /// An error of a key inside the field `name`.
    pub fn error_below(&mut self, name: &str, key: &str, code: &'static str, detail: impl Into<String>) {
        self.error_at(&[name, key], code, detail);
    }

    /// An error of the field that this path of names and indices leads to.
    pub fn error_at(&mut self, path: &[&str], code: &'static str, detail: impl Into<String>) {
        let below: String = path.iter().map(|name| format!("/{}", escaped(name))).collect();
        let pointer = format!("{}{below}", self.prefix);
        self.errors.push(FieldError { pointer, code, detail: format!("{} {}", path.join("."), detail.into()) });
    }

    /// Gives a taken value back, to be read under another name or by another reader.
    pub fn put_back(&mut self, name: &str, value: Value) {
        self.map.insert(name.to_owned(), value);
    }

    /// Gives a field a value where the request gives none.
    pub fn put_default(&mut self, name: &str, value: impl Into<Value>) {
        if self.map.get(name).is_none_or(Value::is_null) {
            self.map.insert(name.to_owned(), value.into());
        }
    }

    /// Takes a field's raw value; absent and null are the same.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    pub fn text(&mut self, name: &str, max_chars: usize) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => {
                let chars = text.chars().count();
                if chars > max_chars {
                    self.error(name, "out_of_range", format!("must have at most {max_chars} characters, not {chars}"));
                    return None;
                }
                if text.contains('\0') {
                    self.error(name, "invalid_value", "must not contain the character U+0000");
                    return None;
                }
                Some(text)
            }
            other => self.wrong_type(name, "a string", &other),
        }
    }

    pub fn integer(&mut self, name: &str, min: u64, max: u64) -> Option<u64> {
        let value = self.take(name)?;
        let Some(number) = integral(&value) else { return self.wrong_type(name, "an integer", &value) };
        match u64::try_from(number) {
            Ok(number) if (min..=max).contains(&number) => Some(number),
            _ => {
                self.error(name, "out_of_range", format!("must be between {min} and {max}, not {value}"));
                None
            }
        }
    }

    pub fn number(&mut self, name: &str, min: f64, max: f64) -> Option<f64> {
        let value = self.take(name)?;
        let Some(number) = value.as_f64() else { return self.wrong_type(name, "a number", &value) };
        if !(min..=max).contains(&number) {
            self.error(name, "out_of_range", format!("must be between {min} and {max}, not {value}"));
            return None;
        }
        Some(number)
    }

    pub fn flag(&mut self, name: &str) -> Option<bool> {
        let value = self.take(name)?;
        match value {
            Value::Bool(flag) => Some(flag),
            other => self.wrong_type::<bool>(name, "true or false", &other),
        }
    }

    /// One of a few words.
    pub fn choice<T: serde::de::DeserializeOwned>(&mut self, name: &str, words: &[&str]) -> Option<T> {
        let value = self.take(name)?;
        if let Ok(choice) = serde_json::from_value(value.clone()) {
            return Some(choice);
        }
        self.error(name, "invalid_value", format!("must be one of {}, not {}", words.join(", "), shortened(&value)));
        None
    }

    pub fn object(&mut self, name: &str) -> Option<Map<String, Value>> {
        match self.take(name)? {
            Value::Object(map) => Some(map),
            other => self.wrong_type(name, "an object", &other),
        }
    }

    /// Reads the fields of a nested object; its errors and unknown fields count here.
    pub fn nested<T>(&mut self, name: &str, read: impl FnOnce(&mut Fields) -> T) -> Option<T> {
        let map = self.object(name)?;
        let mut inner = Fields { prefix: format!("{}/{name}", self.prefix), ..Fields::new(map) };
        let value = read(&mut inner);
        self.errors.extend(inner.finish());
        Some(value)
    }

    /// Reads the objects of a list; their errors and unknown fields count here.
    pub fn list<T>(&mut self, name: &str, most: usize, mut read: impl FnMut(&mut Fields) -> T) -> Option<Vec<T>> {
        let items = match self.take(name)? {
            Value::Array(items) if items.len() <= most => items,
            Value::Array(items) => {
                self.error(name, "out_of_range", format!("must have at most {most} entries, not {}", items.len()));
                return None;
            }
            other => return self.wrong_type(name, "a list", &other),
        };
        let mut values = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            let Value::Object(map) = item else {
                let detail = format!("must be an object, not {}", shortened(&item));
                self.error_at(&[name, &at.to_string()], "wrong_type", detail);
                continue;
            };
            let mut inner = Fields { prefix: format!("{}/{name}/{at}", self.prefix), ..Fields::new(map) };
            values.push(read(&mut inner));
            self.errors.extend(inner.finish());
        }
        Some(values)
    }

    /// Whether anything read so far was wrong.
    pub fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    pub fn wrong_type<T>(&mut self, name: &str, expected: &str, value: &Value) -> Option<T> {
        self.error(name, "wrong_type", format!("must be {expected}, not {}", shortened(value)));
        None
    }

    /// All errors; what was never read is an unknown field.
    pub fn finish(mut self) -> Vec<FieldError> {
        let unknown: Vec<String> = self.map.keys().chain(self.files.keys()).cloned().collect();
        for name in unknown {
            self.error(&name, "unknown_field", "is not a field of this request");
        }
        self.errors
    }
}

/// A name as it stands in a JSON pointer (RFC 6901).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn is_text(name: &str) -> bool {
    matches!(
        name,
        "prompt"
            | "negative_prompt"
            | "prompt_2"
            | "negative_prompt_2"
            | "model"
            | "size"
            | "scheduler"
            | "tenant"
            | "user"
    )
}

fn scalar(text: String) -> Value {
    match serde_json::from_str::<Value>(text.trim()) {
        Ok(value) if !value.is_string() => value,
        _ if text.trim().is_empty() => Value::Null,
        _ => Value::String(text),
    }
}

/// An integer, also where it is written as 20.0, as some languages print every number.
fn integral(value: &Value) -> Option<i128> {
    if let Some(number) = value.as_u64() {
        return Some(i128::from(number));
    }
    if let Some(number) = value.as_i64() {
        return Some(i128::from(number));
    }
    value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15).map(|number| number as i128)
}

/// A value as it can stand in an error message: never longer than a line.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
