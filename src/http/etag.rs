//! Evaluates `If-None-Match` (RFC 9110, section 13.1.2).

use axum::http::{HeaderMap, header};

/// Whether the client has the version that `tag` names. The comparison is weak, as the RFC requires for this header.
pub fn matches(headers: &HeaderMap, tag: &str) -> bool {
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|candidate| candidate.trim() == "*" || strong(candidate) == strong(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_tags_is_searched() {
        let cases =
            [("\"a\"", true), ("W/\"a\"", true), ("\"b\", \"a\"", true), ("*", true), ("\"b\"", false), ("a", false)];
        for (value, expected) in cases {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, value.parse().unwrap())]);
            assert_eq!(matches(&headers, "\"a\""), expected, "{value}");
        }
        assert!(!matches(&HeaderMap::new(), "\"a\""));
    }
}
