//! Reading a request field by field, so that the answer can name every bad one at once.

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

/// The fields of a request that were not read yet, and the errors found so far.
#[derive(Debug)]
pub struct Fields {
    pub(super) map: Map<String, Value>,
    /// The files of a multipart body by the names of their parts.
    pub(super) files: BTreeMap<String, Bytes>,
    pub(super) faults: Faults,
    prefix: String,
    /// What the fields can be, where the table says it.
    known: &'static [&'static Field],
    /// Length of the body that they came in.
    body_bytes: usize,
    /// See [`Fields::of_body`]. Stays behind the fields above, since it is to be dropped after them.
    hold: Option<Box<dyn Any + Send + Sync>>,
}

impl Fields {
    pub fn new(map: Map<String, Value>) -> Fields {
        Fields {
            map,
            files: BTreeMap::new(),
            faults: Faults::default(),
            prefix: String::new(),
            known: &[],
            body_bytes: 0,
            hold: None,
        }
    }

    /// The fields among which an unknown one is looked for.
    pub(super) fn expect(&mut self, known: &'static [&'static Field]) {
        self.known = known;
    }

    /// Notes the length of the request's body, and keeps `hold`, the right to have such a body in memory, until all that was
    /// in the body is gone.
    pub fn of_body(self, body_bytes: usize, hold: Option<Box<dyn Any + Send + Sync>>) -> Fields {
        Fields { body_bytes, hold, ..self }
    }

    /// Length of the request's body in bytes; 0 where the fields came otherwise.
    pub fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Takes over what [`Fields::of_body`] was given, for a caller that has parts of the body longer than the fields.
    pub fn take_hold(&mut self) -> Option<Box<dyn Any + Send + Sync>> {
        self.hold.take()
    }

    pub(super) fn take_file(&mut self, name: &str) -> Option<Bytes> {
        self.files.remove(name)
    }

    /// Whether the request names the field, and not null for it.
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

    /// An error of a key inside the field `name`.
    pub fn error_below(&mut self, name: &str, key: &str, code: &'static str, detail: impl Into<String>) {
        self.error_at(&[name, key], code, detail);
    }

    /// An error of the field that this path of names and indices leads to.
    pub fn error_at(&mut self, path: &[&str], code: &'static str, detail: impl Into<String>) {
        self.faults.push(&self.prefix, path, code, detail.into());
    }

    /// Whether something is wrong with this field or below it.
    pub fn is_faulty(&self, name: &str) -> bool {
        self.faults.touch(&format!("{}/{name}", self.prefix))
    }

    /// Gives a taken value back, to be read under another name or by another reader.
    pub fn put_back(&mut self, name: &str, value: Value) {
        self.map.insert(name.to_owned(), value);
    }

    /// Gives a field a value where the request gives none.
    pub fn put_default(&mut self, name: &str, value: impl Into<Value>) {
        if !self.has(name) {
            self.map.insert(name.to_owned(), value.into());
        }
    }

    /// Gives a key inside the field `name` a value where the request gives none. A field that is no object stays as it is.
    pub fn put_default_below(&mut self, name: &str, key: &str, value: impl Into<Value>) {
        self.put_default(name, Map::new());
        if let Some(Value::Object(map)) = self.map.get_mut(name)
            && map.get(key).is_none_or(Value::is_null)
        {
            map.insert(key.to_owned(), value.into());
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
                self.error(name, "out_of_range", format!("must be {}, not {value}", range(min, max)));
                None
            }
        }
    }

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

    /// A text that has to be there; `what` it is, for the error where it is not.
    pub fn required_text(&mut self, name: &str, max_chars: usize, what: &str) -> Option<String> {
        if !self.has(name) {
            self.error(name, "required", format!("is required: {what}"));
            return None;
        }
        self.text(name, max_chars)
    }

    /// One of a few words.
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

    /// Reads a field that is an object of keys; its errors and unknown keys count here.
    pub(super) fn nested<T>(&mut self, field: &Field, read: impl FnOnce(&mut Fields) -> T) -> Option<T> {
        let map = self.object(field.name)?;
        let prefix = format!("{}/{}", self.prefix, field.name);
        let mut inner = Fields { prefix, known: field.kind.keys(), ..Fields::new(map) };
        let value = read(&mut inner);
        self.faults.append(inner.close());
        Some(value)
    }

    /// Reads a field that is a list of objects; their errors and unknown keys count here.
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

    /// Whether anything read so far was wrong.
    pub fn has_errors(&self) -> bool {
        !self.faults.is_empty()
    }

    pub fn wrong_type<T>(&mut self, name: &str, expected: &str, value: &Value) -> Option<T> {
        self.error(name, "wrong_type", format!("must be {expected}, not {}", shortened(value)));
        None
    }

    /// All errors, of which `Faults` bounds the number; what was never read is an unknown field.
    pub fn finish(self) -> Vec<FieldError> {
        self.close().listed()
    }

    fn close(self) -> Faults {
        let Fields { map, files, mut faults, prefix, known, .. } = self;
        // The entries of faulty `controls` were not read, so nothing is known of the files that they name.
        let unclaimed = files.into_keys().filter(|_| !faults.touch("/controls")).collect::<Vec<_>>();
        for name in map.into_iter().map(|(name, _)| name).chain(unclaimed) {
            // No name is looked for in vain: there may be thousands of unknown ones.
            let near = if faults.is_full() { None } else { nearest(&name, known) };
            let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            faults.push(&prefix, &[&name], "unknown_field", format!("is not a field of this request{hint}"));
        }
        faults
    }
}

/// The known name that this one was meant to be, as far as its letters tell.
fn nearest(name: &str, known: &[&'static Field]) -> Option<&'static str> {
    const LONGEST: usize = 40;
    if name.len() > LONGEST {
        return None;
    }
    let distance = |field: &&Field| strsim::osa_distance(&name.to_lowercase(), field.name);
    let (near, field) = known.iter().map(|field| (distance(field), field.name)).min()?;
    (near <= name.len() / 3).then_some(field)
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
