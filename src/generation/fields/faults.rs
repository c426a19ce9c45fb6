//! The list of a request's errors, with a bound on its length.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

/// One error of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer to the field, such as `/steps`.
    pub pointer: String,
    /// The code of the error, such as `required`, `unknown_field` or `out_of_range`. The last entry of a shortened list
    /// has the code [`FieldError::MORE`].
    pub code: &'static str,
    /// A sentence that says what is wrong and names the bound.
    pub detail: String,
}

impl FieldError {
    /// Maximum number of errors in a list, not counting the entry that counts the rest.
    pub const MOST: usize = 100;
    /// The code of the entry that counts the rest. The pointer of this entry is empty.
    pub const MORE: &str = "more_errors";
    /// The code of a prompt that contains a refused word or phrase.
    pub const PROMPT_BLOCKED: &str = "prompt_blocked";

    /// The first error and the number of further ones, for programs that show a single line.
    pub fn summary(listed: &[FieldError]) -> String {
        let Some(first) = listed.first() else { return String::new() };
        match listed {
            [_] => first.detail.clone(),
            [.., last] if last.code == FieldError::MORE => {
                format!("{} (more than {} more in errors)", first.detail, FieldError::MOST - 1)
            }
            _ => format!("{} ({} more in errors)", first.detail, listed.len() - 1),
        }
    }

    /// An error of the field at this path of names and indices. Names and detail are cut to a bounded length, because
    /// they may quote the request.
    pub fn at(path: &[&str], code: &'static str, detail: &str) -> FieldError {
        FieldError::below("", path, code, detail)
    }

    fn below(prefix: &str, path: &[&str], code: &'static str, detail: &str) -> FieldError {
        const NAME_CHARS: usize = 64;
        const DETAIL_CHARS: usize = 500;
        let names: Vec<String> = path.iter().map(|name| cut(name, NAME_CHARS)).collect();
        let pointer = names.iter().fold(prefix.to_owned(), |pointer, name| format!("{pointer}/{}", escaped(name)));
        FieldError { pointer, code, detail: cut(&format!("{} {detail}", names.join(".")), DETAIL_CHARS) }
    }
}

/// The errors found so far: the first [`FieldError::MOST`] without duplicates, and the number of further ones.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    errors: Vec<FieldError>,
    more: usize,
}

impl Faults {
    pub fn push(&mut self, prefix: &str, path: &[&str], code: &'static str, detail: String) {
        if self.errors.len() == FieldError::MOST {
            self.more += 1;
            return;
        }
        let error = FieldError::below(prefix, path, code, &detail);
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    pub fn append(&mut self, other: Faults) {
        for error in other.errors {
            match self.errors.len() {
                FieldError::MOST => self.more += 1,
                _ => self.errors.push(error),
            }
        }
        self.more += other.more;
    }

    /// Whether the list is full, so that further errors are only counted.
    pub fn is_full(&self) -> bool {
        self.errors.len() >= FieldError::MOST
    }

    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// Whether the field with this pointer, or a key inside it, has an error.
    pub fn touch(&self, pointer: &str) -> bool {
        let below = |error: &FieldError| {
            error.pointer.strip_prefix(pointer).map(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.errors.iter().any(|error| below(error) == Some(true))
    }

    pub fn iter(&self) -> impl Iterator<Item = &FieldError> {
        self.errors.iter()
    }

    /// The errors. If the list was shortened, the last entry says how many are missing.
    pub fn listed(self) -> Vec<FieldError> {
        let Faults { mut errors, more } = self;
        if more > 0 {
            let detail = format!("and {more} more errors");
            errors.push(FieldError { pointer: String::new(), code: FieldError::MORE, detail });
        }
        errors
    }
}

/// Escapes a name for a JSON pointer (RFC 6901).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Cuts a text to `chars` characters. A text that is cut ends with an ellipsis.
pub fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A short form of a value for error messages. Long values are not serialized completely.
pub fn shortened(value: &Value) -> String {
    const CHARS: usize = 60;
    let mut head = Head { bytes: Vec::new(), most: 4 * (CHARS + 1) };
    // As intended, the serializer stops with an error when the head is full.
    let _ = serde_json::to_writer(&mut head, value);
    cut(&String::from_utf8_lossy(&head.bytes), CHARS)
}

/// A writer that accepts the first `most` bytes only.
struct Head {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Head {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.most - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_of_errors_ends_after_a_hundred_and_says_how_many_more_there_are() {
        let mut faults = Faults::default();
        for n in 0..FieldError::MOST {
            faults.push("", &[&n.to_string()], "unknown_field", "is not a field".to_owned());
        }
        assert_eq!(faults.clone().listed().len(), 100);
        let mut nested = Faults::default();
        (0..130).for_each(|n| nested.push("/in", &[&n.to_string()], "required", "is required".to_owned()));
        faults.append(nested);
        let listed = faults.listed();
        assert_eq!(listed.len(), 101);
        assert_eq!((listed[100].code, listed[100].detail.as_str()), ("more_errors", "and 130 more errors"));
    }

    #[test]
    fn quotations_in_errors_are_short() {
        let long = "狐".repeat(10_000);
        let error = FieldError::at(&["metadata", &long], "invalid_value", &long);
        assert!(error.pointer.chars().count() <= 75 && error.detail.chars().count() <= 501, "{error:?}");
        for value in [json!(long), json!([long, long]), json!({ long.as_str(): 1 }), json!(vec![0; 100_000])] {
            assert_eq!(shortened(&value).chars().count(), 61);
        }
        assert_eq!(shortened(&json!({"a": [1, "狐"]})), r#"{"a":[1,"狐"]}"#);
    }

    #[test]
    fn an_error_is_told_once() {
        let mut faults = Faults::default();
        (0..3).for_each(|_| faults.push("", &["prompt"], "conflict", "is given more than once".to_owned()));
        assert_eq!(faults.iter().count(), 1);
        assert!(faults.touch("/prompt") && !faults.touch("/prom") && !faults.touch("/prompt_2"));
    }
}
