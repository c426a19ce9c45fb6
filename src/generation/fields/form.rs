//! Reads the fields of HTML forms, whose values are all texts.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::Fields;
use crate::generation::{
    field::{Field, Kind},
    json::{JsonError, ValueBudget},
    table,
};

impl Fields {
    /// Maximum number of fields in a form, including files. A request has fewer fields.
    pub const MOST_IN_FORM: usize = 100;

    /// Reads the fields of a form. A text that is valid JSON becomes the JSON value, unless the field takes texts or
    /// the JSON value is a string. `NAME.KEY` is a key of a field that is an object, such as `output.format`. The texts
    /// of labels (`metadata[KEY]` or `metadata.KEY`) stay unchanged.
    pub fn from_form(pairs: impl IntoIterator<Item = (String, String)>) -> Fields {
        let budget = ValueBudget::default();
        let mut fields = Fields::new(Map::new());
        for (name, text) in pairs {
            let label = name.strip_prefix("metadata[").and_then(|rest| rest.strip_suffix(']'));
            if let Some(key) = label.or_else(|| name.strip_prefix("metadata.")) {
                fields.put_below("metadata", key, text.into());
            } else if let Some((name, key)) = name.split_once('.').filter(|(name, key)| ![name, key].contains(&&"")) {
                match typed(Some(name), key, text, &budget) {
                    Ok(value) => fields.put_below(name, key, value),
                    Err(error) => fields.error_below(name, key, "out_of_range", error.to_string()),
                }
            } else if fields.map.contains_key(&name) {
                fields.error(&name, "conflict", "is given more than once");
            } else {
                match typed(None, &name, text, &budget) {
                    Ok(value) => {
                        fields.map.insert(name, value);
                    }
                    Err(error) => fields.error(&name, "out_of_range", error.to_string()),
                }
            }
        }
        fields
    }

    /// Reads the parameters of a query: as the fields of a form, except that an empty text and the text `null` stay
    /// texts. No parameter can be null, and `?limit=` and `?limit=null` are mistakes of the client. A parameter that is
    /// read as a text has the text that was sent, even if that is a number.
    pub fn from_query(pairs: Vec<(String, String)>) -> Fields {
        let is_null = |(_, text): &&(String, String)| matches!(text.trim(), "" | "null");
        let texts: Vec<(String, String)> = pairs.iter().filter(is_null).cloned().collect();
        let parameters = pairs.iter().cloned().collect();
        let mut fields = Fields { parameters, ..Fields::from_form(pairs) };
        for (name, text) in texts {
            if let Some(value) = fields.map.get_mut(&name) {
                *value = text.trim().into();
            }
        }
        fields
    }

    /// Reads the fields of a multipart form: texts as in [`Fields::from_form`], and files by part name. A field can
    /// refer to a file with `{"file": NAME}`; the files `image` and `mask` become the fields of these names.
    pub fn from_multipart(
        texts: impl IntoIterator<Item = (String, String)>,
        files: impl IntoIterator<Item = (String, Bytes)>,
    ) -> Fields {
        let mut fields = Fields::from_form(texts);
        for (name, bytes) in files {
            if fields.files.contains_key(&name) || fields.map.contains_key(&name) {
                fields.error(&name, "conflict", "is given more than once");
                continue;
            }
            if is_text(None, &name, "") {
                fields.error(&name, "wrong_type", "must be a text, not a file: send the part without a filename");
                if name == "prompt" {
                    // An empty prompt, so that no second error says that the prompt is missing.
                    fields.map.insert(name, Value::String(String::new()));
                }
                continue;
            }
            if Field::find(table::FIELDS, &name)
                .is_some_and(|field| matches!(field.kind, Kind::Picture | Kind::Pictures(_)))
            {
                fields.map.insert(name.clone(), Value::Object(Map::from_iter([("file".into(), name.clone().into())])));
            }
            fields.files.insert(name, bytes);
        }
        fields
    }

    /// Puts one key into a field that is an object.
    fn put_below(&mut self, name: &str, key: &str, value: Value) {
        let entry = self.map.entry(name).or_insert(Value::Null);
        // A null counts as absent.
        if entry.is_null() {
            *entry = Value::Object(Map::new());
        }
        match entry {
            Value::Object(map) if !map.contains_key(key) => {
                map.insert(key.to_owned(), value);
            }
            _ => self.error_below(name, key, "conflict", "is given more than once"),
        }
    }
}

/// Text fields of webhook endpoints, keys, queries and other protocols, which are not in the table.
const OTHER_TEXTS: [&str; 5] = ["tenant", "user", "url", "description", "safety_identifier"];

/// The kind of the field `name`. If `within` is set, it names a field that is an object, and `name` is a key of this
/// object.
fn kind_of(within: Option<&str>, name: &str) -> Option<Kind> {
    // A field of sounds or films has the kind of the field of pictures of the same name, if there is one.
    let of = |fields: &'static [&'static Field]| {
        let known = match within {
            None => fields,
            Some(within) => Field::find(fields, within).map_or(&[][..], |field| field.kind.keys()),
        };
        Field::find(known, name).map(|field| field.kind)
    };
    of(table::FIELDS).or_else(|| of(table::SOUND_FIELDS)).or_else(|| of(table::FILM_FIELDS))
}

/// Converts a number of an HTML form to JSON. Texts such as `.5` and `007` are valid floating-point numbers in HTML,
/// but not in JSON. Any other text stays unchanged.
fn as_json(text: &str) -> Cow<'_, str> {
    let (sign, digits) = text.split_at(usize::from(text.starts_with('-')));
    let whole = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let (whole, rest) = digits.split_at(whole);
    let has_digit =
        !whole.is_empty() || rest.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    match whole.trim_start_matches('0') {
        least if has_digit && least.is_empty() => Cow::Owned(format!("{sign}0{rest}")),
        least if least.len() < whole.len() => Cow::Owned(format!("{sign}{least}{rest}")),
        _ => Cow::Borrowed(text),
    }
}

/// Whether the form's text is used unchanged as the value of this field. `within` is the object that contains the
/// field.
fn is_text(within: Option<&str>, name: &str, text: &str) -> bool {
    match kind_of(within, name) {
        Some(Kind::Scheduler) => !text.starts_with('{'),
        Some(kind) => kind.is_text(),
        None => within.is_none() && OTHER_TEXTS.contains(&name),
    }
}

fn typed(within: Option<&str>, name: &str, text: String, budget: &ValueBudget) -> Result<Value, JsonError> {
    let trimmed = text.trim();
    if is_text(within, name, trimmed) {
        return Ok(Value::String(text));
    }
    if trimmed.is_empty() {
        return Ok(Value::Null);
    }
    let trimmed = match kind_of(within, name) {
        Some(Kind::Integer(_) | Kind::Number(_) | Kind::Seconds(_)) => as_json(trimmed),
        _ => Cow::Borrowed(trimmed),
    };
    match budget.parse(&trimmed) {
        Ok(value) if !value.is_string() => Ok(value),
        Err(JsonError::TooManyValues) => Err(JsonError::TooManyValues),
        Ok(_) | Err(JsonError::Malformed(_)) => Ok(Value::String(text)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn form(pairs: &[(&str, &str)]) -> Fields {
        Fields::from_form(pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())))
    }

    fn errors(fields: Fields) -> Vec<(String, &'static str)> {
        fields.faults.iter().map(|error| (error.pointer.clone(), error.code)).collect()
    }

    #[test]
    fn labels_and_texts_stay_as_they_were_sent() {
        for text in ["007", "1.0", "1e3", "true", "null", "", " a ", "[1]", "{\"a\": 1}", "12345678901234567890123"] {
            let mut fields =
                form(&[("metadata[k]", text), ("metadata.l", text), ("prompt", text), ("description", text)]);
            assert_eq!(fields.take("metadata"), Some(json!({"k": text, "l": text})), "{text}");
            assert_eq!((fields.take("prompt"), fields.take("description")), (Some(json!(text)), Some(json!(text))));
        }
        let mut both = form(&[("metadata", "{\"a\": \"1\"}"), ("metadata[b]", "2")]);
        assert_eq!(both.take("metadata"), Some(json!({"a": "1", "b": "2"})));
    }

    #[test]
    fn numbers_are_read_as_pages_send_them() {
        for (text, number) in [
            (".5", json!(0.5)),
            ("-.5", json!(-0.5)),
            ("007", json!(7)),
            ("00", json!(0)),
            ("0", json!(0)),
            ("-0", json!(-0.0)),
            ("01.50", json!(1.5)),
            (".5e1", json!(5.0)),
            ("10", json!(10)),
            ("1.", json!("1.")),
            (".", json!(".")),
            ("-", json!("-")),
            ("0x10", json!("0x10")),
            ("7,5", json!("7,5")),
        ] {
            let mut fields =
                form(&[("guidance_scale", text), ("steps", text), ("output.quality", text), ("prompt", text)]);
            assert_eq!(
                (fields.take("guidance_scale"), fields.take("steps")),
                (Some(number.clone()), Some(number.clone()))
            );
            assert_eq!(fields.take("output"), Some(json!({"quality": number})), "{text}");
            assert_eq!(fields.take("prompt"), Some(json!(text)));
        }
    }

    #[test]
    fn a_text_that_is_sent_as_a_file_is_one_error() {
        for name in ["prompt", "negative_prompt", "size"] {
            let fields = Fields::from_multipart([], [(name.to_owned(), Bytes::from_static(b"a fox"))]);
            assert_eq!(errors(fields), [(format!("/{name}"), "wrong_type")]);
        }
    }

    #[test]
    fn a_label_given_twice_is_a_conflict() {
        for pairs in
            [[("metadata[k]", "1"), ("metadata[k]", "2")], [("metadata", "{\"k\": \"1\"}"), ("metadata[k]", "2")]]
        {
            assert_eq!(errors(form(&pairs)), [("/metadata/k".to_owned(), "conflict")], "{pairs:?}");
        }
    }

    #[test]
    fn a_key_of_an_object_is_given_by_its_name() {
        let mut fields = form(&[
            ("output.format", "jpeg"),
            ("output.quality", "80"),
            ("refiner.model", "7"),
            ("refiner.negative_prompt", "null"),
            ("scheduler.steps_offset", "1"),
        ]);
        assert_eq!(errors(form(&[("output.format", "jpeg"), ("output", "")])), [("/output".to_owned(), "conflict")]);
        assert_eq!(fields.take("output"), Some(json!({"format": "jpeg", "quality": 80})));
        assert_eq!(fields.take("refiner"), Some(json!({"model": "7", "negative_prompt": "null"})));
        assert_eq!(fields.take("scheduler"), Some(json!({"steps_offset": 1})));
        let mut both = form(&[("output", "{\"metadata\": \"none\"}"), ("output.format", "webp")]);
        assert_eq!(both.take("output"), Some(json!({"format": "webp", "metadata": "none"})));
        // A dot at the beginning or end of a name does not split the name.
        for name in [".", "a.", ".a"] {
            assert_eq!(form(&[(name, "1")]).take(name), Some(json!(1)));
        }
    }

    #[test]
    fn a_key_given_twice_or_beside_a_text_is_a_conflict() {
        for pairs in [
            [("output.format", "png"), ("output.format", "png")],
            [("output", "{\"format\": \"png\"}"), ("output.format", "png")],
            [("output", "5"), ("output.format", "png")],
        ] {
            assert_eq!(errors(form(&pairs)), [("/output/format".to_owned(), "conflict")], "{pairs:?}");
        }
        let beside = form(&[("scheduler", "euler"), ("scheduler.steps_offset", "1")]);
        assert_eq!(errors(beside), [("/scheduler/steps_offset".to_owned(), "conflict")]);
    }

    #[test]
    fn json_in_a_form_has_the_bounds_of_a_body() {
        let list = format!("[{}]", vec!["[]"; 10_000].join(","));
        let mut fields = form(&[("sigmas", &list)]);
        assert!(fields.take("sigmas").is_some_and(|value| value.is_array()));
        assert_eq!(
            errors(form(&[("sigmas", &list), ("timesteps", &list)])),
            [("/timesteps".to_owned(), "out_of_range")]
        );
    }

    #[test]
    fn a_parameter_of_a_query_is_a_number_or_a_text_as_it_is_read() {
        for text in ["0", "007", "true", "[1]", "1e3", "abc"] {
            let mut fields = Fields::from_query(vec![("after".into(), text.into())]);
            assert_eq!(fields.text("after", 64).as_deref(), Some(text));
            assert_eq!(errors(fields), []);
        }
        let mut fields = Fields::from_query(vec![("limit".into(), "7".into()), ("after".into(), "null".into())]);
        assert_eq!((fields.integer("limit", 1, 10), fields.text("after", 64)), (Some(7), Some("null".into())));
        let mut twice = Fields::from_query(vec![("after".into(), "1".into()), ("after".into(), "2".into())]);
        twice.text("after", 64);
        assert_eq!(errors(twice), [("/after".to_owned(), "conflict")]);
    }

    proptest! {
        #[test]
        fn every_label_is_kept(text in any::<String>()) {
            let mut fields = form(&[("metadata[k]", text.as_str())]);
            prop_assert_eq!(fields.take("metadata"), Some(json!({"k": text})));
        }
    }
}
