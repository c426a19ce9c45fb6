//! The warnings about a request as the header `Latentd-Warnings`, for answers that are pictures.

use axum::http::{HeaderName, HeaderValue};

use crate::generation::Warning;

/// The header: a list of strings with a parameter (RFC 9651), such as `"prompt_cut";pointer="/prompt"`. `None` if there
/// are no warnings.
pub fn header(warnings: &[Warning]) -> Option<(HeaderName, HeaderValue)> {
    let shown =
        warnings.iter().map(|Warning { code, pointer, .. }| format!("{};pointer={}", string(code), string(pointer)));
    let value = shown.collect::<Vec<_>>().join(", ");
    let header = (HeaderName::from_static("latentd-warnings"), HeaderValue::try_from(value).ok()?);
    (!warnings.is_empty()).then_some(header)
}

/// A string of a structured field: in quotes, with a backslash before quotes and backslashes, in ASCII.
fn string(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            ' '..='~' => quoted.push(letter),
            _ => quoted.push('?'),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_a_list_of_codes_with_pointers() {
        let warning = |code: &str, pointer: &str| Warning::new(code, pointer, "a sentence".to_owned());
        let value = |warnings: &[Warning]| header(warnings).map(|(_, value)| value.to_str().unwrap().to_owned());
        assert_eq!(value(&[]), None);
        let two = [warning("prompt_cut", "/prompt"), warning("size_not_native", "/width")];
        assert_eq!(value(&two).unwrap(), r#""prompt_cut";pointer="/prompt", "size_not_native";pointer="/width""#);
        assert_eq!(value(&[warning("x", "/a\"\\é\n")]).unwrap(), r#""x";pointer="/a\"\\??""#);
    }
}
