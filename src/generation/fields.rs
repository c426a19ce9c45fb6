//! Reads a request field by field and collects all errors, so that the answer can report them together.

mod faults;
mod form;
mod typed;

use std::{any::Any, collections::BTreeMap};

use bytes::Bytes;
use serde_json::{Map, Value};

pub use faults::FieldError;
pub use faults::cut;
use faults::{Faults, shortened};

use super::field::{Field, Kind, range};

/// The unread fields of a request, and the errors found so far.
#[derive(Debug)]
pub struct Fields {
    pub(super) map: Map<String, Value>,
    /// The files of a multipart body, by part name.
    pub(super) files: BTreeMap<String, Bytes>,
    /// The parameters of a query as they were sent, for parameters that are texts; empty for other requests.
    parameters: BTreeMap<String, String>,
    pub(super) faults: Faults,
    prefix: String,
    /// The fields that a request can have, for hints about misspelled names.
    known: &'static [&'static Field],
    /// See [`Fields::read_mask_by_transparency`].
    pub(super) mask_is_transparency: bool,
    /// Length of the request's body in bytes.
    body_bytes: usize,
    /// See [`Fields::of_body`]. This is the last field of the struct, so that it is dropped after the others.
    hold: Option<Box<dyn Any + Send + Sync>>,
}

impl Fields {
    pub fn new(map: Map<String, Value>) -> Fields {
        Fields {
            map,
            files: BTreeMap::new(),
            parameters: BTreeMap::new(),
            faults: Faults::default(),
            prefix: String::new(),
            known: &[],
            mask_is_transparency: false,
            body_bytes: 0,
            hold: None,
        }
    }

    /// Sets the known fields, for hints about misspelled names.
    pub(super) fn expect(&mut self, known: &'static [&'static Field]) {
        self.known = known;
    }

    /// Stores the length of the request's body and `hold`, a permit to keep a body of this size in memory. `hold` is
    /// dropped after the contents of the body.
    pub fn of_body(self, body_bytes: usize, hold: Option<Box<dyn Any + Send + Sync>>) -> Fields {
        Fields { body_bytes, hold, ..self }
    }

    /// Length of the request's body in bytes; 0 if the fields do not come from a body.
    pub fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Takes the `hold` of [`Fields::of_body`], for a caller that keeps parts of the body longer than the fields.
    pub fn take_hold(&mut self) -> Option<Box<dyn Any + Send + Sync>> {
        self.hold.take()
    }

    /// Takes the file of a multipart body's part, and removes the field of the same name.
    pub fn take_part(&mut self, name: &str) -> Option<Bytes> {
        self.map.remove(name);
        self.take_file(name)
    }

    /// Whether the multipart body has a file in a part of this name.
    pub fn has_file(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    pub(super) fn take_file(&mut self, name: &str) -> Option<Bytes> {
        self.files.remove(name)
    }

    /// Whether the request contains the field with a value other than null.
    pub fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
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

    /// Adds an error for a key inside the field `name`.
    pub fn error_below(&mut self, name: &str, key: &str, code: &'static str, detail: impl Into<String>) {
        self.error_at(&[name, key], code, detail);
    }

    /// Adds an error for the field at this path of names and indices.
    pub fn error_at(&mut self, path: &[&str], code: &'static str, detail: impl Into<String>) {
        self.faults.push(&self.prefix, path, code, detail.into());
    }

    /// Whether this field, or a key inside it, has an error.
    pub fn is_faulty(&self, name: &str) -> bool {
        self.faults.touch(&format!("{}/{name}", self.prefix))
    }

    /// Takes all values. The reader of another protocol translates the values and puts back the fields of a generation.
    pub fn take_all(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.map)
    }

    /// Puts a taken value back, so that it can be read under another name or by another reader.
    pub fn put_back(&mut self, name: &str, value: Value) {
        self.map.insert(name.to_owned(), value);
    }

    /// Sets a field that is absent or null.
    pub fn put_default(&mut self, name: &str, value: impl Into<Value>) {
        if !self.has(name) {
            self.map.insert(name.to_owned(), value.into());
        }
    }

    /// Sets a key inside the field `name` if the key is absent or null. A field that is not an object stays unchanged.
    pub fn put_default_below(&mut self, name: &str, key: &str, value: impl Into<Value>) {
        self.put_default(name, Map::new());
        if let Some(Value::Object(map)) = self.map.get_mut(name)
            && map.get(key).is_none_or(Value::is_null)
        {
            map.insert(key.to_owned(), value.into());
        }
    }

    /// Takes a field's raw value. A null counts as absent.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a string of at most `max_chars` characters.
    pub fn text(&mut self, name: &str, max_chars: usize) -> Option<String> {
        let value = self.take(name)?;
        match self.parameters.remove(name).map_or(value, Value::String) {
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

    /// Takes an integer from `min` to `max`, both included.
    pub fn integer(&mut self, name: &str, min: u64, max: u64) -> Option<u64> {
        let value = self.take(name)?;
        let Some(number) = integral(&value) else { return self.wrong_type(name, "an integer", &value) };
        match u64::try_from(number) {
            Ok(number) if (min..=max).contains(&number) => Some(number),
            _ => {
                self.error(name, "out_of_range", format!("must be {}, not {value}", range(min, max)));
                None
            }
        }
    }

    /// Takes a number from `min` to `max`, both included.
    pub fn number(&mut self, name: &str, min: f64, max: f64) -> Option<f64> {
        let value = self.take(name)?;
        let Some(number) = value.as_f64() else { return self.wrong_type(name, "a number", &value) };
        if !(min..=max).contains(&number) {
            self.error(name, "out_of_range", format!("must be {}, not {value}", range(min, max)));
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

    /// Takes a required string; `what` describes it in the error message.
    pub fn required_text(&mut self, name: &str, max_chars: usize, what: &str) -> Option<String> {
        if !self.has(name) {
            self.error(name, "required", format!("is required: {what}"));
            return None;
        }
        self.text(name, max_chars)
    }

    /// Takes a word and converts it to `T`; `words` lists the valid words in the error message.
    pub fn choice<T: serde::de::DeserializeOwned>(&mut self, name: &str, words: &[&str]) -> Option<T> {
        let value = self.take(name)?;
        if let Ok(choice) = T::deserialize(&value) {
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

    /// Reads a field that is an object. Errors and unknown keys of the object become errors of this request.
    pub(super) fn nested<T>(&mut self, field: &Field, read: impl FnOnce(&mut Fields) -> T) -> Option<T> {
        let map = self.object(field.name)?;
        let prefix = format!("{}/{}", self.prefix, field.name);
        let mut inner = Fields { prefix, known: field.kind.keys(), ..Fields::new(map) };
        let value = read(&mut inner);
        self.faults.append(inner.close());
        Some(value)
    }

    /// Reads a field that is a list of objects. Errors and unknown keys of the objects become errors of this request.
    pub(super) fn list<T>(&mut self, field: &Field, mut read: impl FnMut(&mut Fields) -> T) -> Option<Vec<T>> {
        let (name, known) = (field.name, field.kind.keys());
        let most = match field.kind {
            Kind::List { most, .. } => most,
            _ => usize::MAX,
        };
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
            let prefix = format!("{}/{name}/{at}", self.prefix);
            let mut inner = Fields { prefix, known, ..Fields::new(map) };
            values.push(read(&mut inner));
            self.faults.append(inner.close());
        }
        Some(values)
    }

    /// Whether an error was found so far.
    pub fn has_errors(&self) -> bool {
        !self.faults.is_empty()
    }

    pub fn wrong_type<T>(&mut self, name: &str, expected: &str, value: &Value) -> Option<T> {
        self.error(name, "wrong_type", format!("must be {expected}, not {}", shortened(value)));
        None
    }

    /// Returns all errors, at most [`FieldError::MOST`] and a count of the rest. Fields that were never read are
    /// errors.
    pub fn finish(self) -> Vec<FieldError> {
        self.close().listed()
    }

    fn close(self) -> Faults {
        let Fields { map, files, mut faults, prefix, known, .. } = self;
        // If `controls` has an error, its entries may not have been read, so unused files are not reported as unknown.
        let unclaimed = files.into_keys().filter(|_| !faults.touch("/controls")).collect::<Vec<_>>();
        for name in map.into_iter().map(|(name, _)| name).chain(unclaimed) {
            // A request may have thousands of unknown fields, so hints are computed only for errors that are kept.
            let near = if faults.is_full() { None } else { nearest(&name, known) };
            let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            faults.push(&prefix, &[&name], "unknown_field", format!("is not a field of this request{hint}"));
        }
        faults
    }
}

/// The known name that is most similar to a misspelled one, if it is similar enough.
fn nearest(name: &str, known: &[&'static Field]) -> Option<&'static str> {
    const LONGEST: usize = 40;
    if name.len() > LONGEST {
        return None;
    }
    let distance = |field: &&Field| strsim::osa_distance(&name.to_lowercase(), field.name);
    let (near, field) = known.iter().map(|field| (distance(field), field.name)).min()?;
    (near <= name.len() / 3).then_some(field)
}

/// Converts a number to an integer. A number written as 20.0 is accepted, because some languages print all numbers with
/// a fraction.
fn integral(value: &Value) -> Option<i128> {
    if let Some(number) = value.as_u64() {
        return Some(i128::from(number));
    }
    if let Some(number) = value.as_i64() {
        return Some(i128::from(number));
    }
    value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15).map(|number| number as i128)
}
