//! Parses `application/x-www-form-urlencoded` bodies and queries.

use super::error::ApiError;
use crate::generation::Fields;

/// The parameters of a query.
///
/// # Errors
/// As [`pairs`].
pub fn query(query: Option<&str>) -> Result<Fields, ApiError> {
    pairs(query.unwrap_or_default().as_bytes()).map(Fields::from_query)
}

/// The names and values of a form. A `%` without two hexadecimal digits stands for itself, as in browsers, so that
/// `curl -d prompt='50% off'` works.
///
/// # Errors
/// `malformed_form` if a decoded name or value is not UTF-8, or if there are more than [`Fields::MOST_IN_FORM`] fields.
/// Invalid bytes are not replaced, because that would silently change a prompt.
pub fn pairs(form: &[u8]) -> Result<Vec<(String, String)>, ApiError> {
    const MOST: usize = Fields::MOST_IN_FORM;
    let parts = || form.split(|byte| *byte == b'&').filter(|part| !part.is_empty());
    if parts().nth(MOST).is_some() {
        return Err(ApiError::MalformedForm(format!("the form has more than {MOST} fields")));
    }
    let pair = |part: &[u8]| {
        let end = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
        let name = decoded(&part[..end]).ok_or_else(|| ApiError::MalformedForm("a name is not UTF-8".into()))?;
        let value = decoded(part.get(end + 1..).unwrap_or_default())
            .ok_or_else(|| ApiError::MalformedForm(format!("the value of {name} is not UTF-8")))?;
        Ok((name, value))
    };
    parts().map(pair).collect()
}

/// Decodes plus and percent signs; `None` if the result is not UTF-8.
pub(super) fn decoded(text: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                bytes.push(digit(*high) << 4 | digit(*low));
                rest = after;
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).ok()
}

/// The value of a hexadecimal digit.
fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_as_curl_and_browsers_send_them() {
        let cases = [
            ("prompt=a red fox", vec![("prompt", "a red fox")]),
            ("prompt=a+red%20fox&n=2", vec![("prompt", "a red fox"), ("n", "2")]),
            ("prompt=50% off%2", vec![("prompt", "50% off%2")]),
            ("prompt=a=b&&x", vec![("prompt", "a=b"), ("x", "")]),
            ("metadata%5Bk%5D=%C3%A9", vec![("metadata[k]", "é")]),
            ("", vec![]),
        ];
        for (form, expected) in cases {
            let read = pairs(form.as_bytes()).unwrap();
            let read: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(read, expected, "{form}");
        }
    }

    #[test]
    fn the_number_of_fields_is_bounded() {
        assert_eq!(pairs("a&".repeat(100).as_bytes()).unwrap().len(), 100);
        let error = pairs("a&".repeat(101).as_bytes()).unwrap_err();
        assert!(matches!(error, ApiError::MalformedForm(detail) if detail.contains("more than 100 fields")));
    }

    #[test]
    fn a_field_that_is_not_utf8_is_refused_with_its_name() {
        let error = pairs(b"prompt=%FF").unwrap_err();
        assert!(matches!(error, ApiError::MalformedForm(detail) if detail.contains("prompt")));
    }
}
