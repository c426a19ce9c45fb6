//! Reads JSON bodies more strictly than serde_json and reports the place of every error.

use serde_json::{Map, Value};

use super::error::{ApiError, invalid};
use crate::generation::{JsonError, ValueBudget};

/// Parses a body that must be a JSON object.
///
/// # Errors
/// `malformed_json`, with the place, if the body is not UTF-8, not JSON, nested deeper than 127 levels, or gives a key
/// twice; `validation_failed` if the body is JSON but not an object, or has more values than a request may have.
pub fn object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        ApiError::MalformedJson(format!("the body is not UTF-8: byte {} is invalid", error.valid_up_to()))
    })?;
    // Some editors put a byte order mark before the text; RFC 8259 allows a parser to ignore it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match ValueBudget::default().parse(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(invalid("", "wrong_type", format!("the body must be an object, not {}", name(&other)))),
        Err(error @ JsonError::TooManyValues) => Err(invalid("", "out_of_range", format!("the body {error}"))),
        Err(error @ JsonError::Malformed(_)) => Err(ApiError::MalformedJson(format!("the body is not JSON: {error}"))),
    }
}

fn name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_as_serde_json_reads_it() {
        let text =
            "\u{feff}{\"a\": [1, -2, 3.5, true, null, \"x\\n\"], \"b\": {\"c\": {}}, \"n\": 18446744073709551615}";
        let plain: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap();
        assert_eq!(Value::Object(object(text.as_bytes()).unwrap()), plain);
    }

    #[test]
    fn every_malformed_body_says_where() {
        let deep = "[".repeat(200);
        let cases: [(&[u8], &str); 10] = [
            (b"", "EOF while parsing a value at line 1 column 0"),
            (b"{\"a\": NaN}", "expected value at line 1 column 7"),
            (b"{\"a\": 1,}", "trailing comma at line 1 column 9"),
            (b"{\"a\": 1} x", "trailing characters at line 1 column 10"),
            (b"{\"a\": 1e999}", "number out of range"),
            (b"{\n  \"a\": 1,\n  \"a\": 2}", "the key \"a\" is given twice at line 3 column 5"),
            (b"{\"o\": {\"b\": 1, \"b\": 1}}", "the key \"b\" is given twice"),
            (b"{\"a\": \"\xff\"}", "not UTF-8: byte 7 is invalid"),
            (b"{\"a\": \"\\ud800\"}", "line 1 column"),
            (deep.as_bytes(), "recursion limit exceeded"),
        ];
        for (body, expected) in cases {
            match object(body) {
                Err(ApiError::MalformedJson(detail)) => {
                    assert!(detail.contains(expected), "{detail} / {expected}")
                }
                other => panic!("{:?} became {other:?}", String::from_utf8_lossy(body)),
            }
        }
    }

    #[test]
    fn json_that_is_no_object_is_invalid() {
        for body in ["null", "1", "\"prompt\"", "[{}]", "true"] {
            assert!(matches!(object(body.as_bytes()), Err(ApiError::Invalid(_))), "{body}");
        }
    }
}
