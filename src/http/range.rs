//! Evaluates `Range` with a single range of bytes (RFC 9110, section 14).

use std::ops::Range;

use axum::http::{HeaderMap, header};

use super::error::ApiError;

/// The part of a file that a request wants. `None` means the whole file: the request has no range, several ranges, an
/// invalid range, a range in other units, or a range of another version of the file (`If-Range`).
///
/// # Errors
/// `range_not_satisfiable` if the range begins at or after the end of the file, or selects no bytes.
pub fn wanted(headers: &HeaderMap, length: usize, tag: &str) -> Result<Option<Range<usize>>, ApiError> {
    let text = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    if text(header::IF_RANGE).is_some_and(|version| version.trim() != tag) {
        return Ok(None);
    }
    // Names of units are case-insensitive (RFC 9110, section 14.1).
    let bytes = |range: &'_ str| {
        let (unit, set) = range.split_once('=')?;
        unit.trim().eq_ignore_ascii_case("bytes").then_some(())?;
        parse(set)
    };
    match text(header::RANGE).and_then(bytes) {
        None => Ok(None),
        Some((Some(first), last)) if first < length && last.is_none_or(|last| last >= first) => {
            Ok(Some(first..last.map_or(length, |last| length.min(last.saturating_add(1)))))
        }
        // A range that ends before it begins is invalid, and invalid ranges are ignored.
        Some((Some(first), Some(last))) if last < first => Ok(None),
        Some((None, Some(count))) if count > 0 && length > 0 => Ok(Some(length.saturating_sub(count)..length)),
        Some(_) => Err(ApiError::RangeNotSatisfiable { length }),
    }
}

/// Parses `first-last`, `first-` or `-count`, which is a number of bytes from the end.
fn parse(range: &str) -> Option<(Option<usize>, Option<usize>)> {
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| match text.trim() {
        "" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(Some(digits.parse().unwrap_or(usize::MAX))),
        _ => None,
    };
    match (number(first)?, number(last)?) {
        (None, None) => None,
        range => Some(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_to_the_file() {
        let cases = [
            ("bytes=0-3", Ok(Some(0..4))),
            ("bytes=2-", Ok(Some(2..10))),
            ("Bytes=2-3", Ok(Some(2..4))),
            ("bytes=-3", Ok(Some(7..10))),
            ("bytes=-30", Ok(Some(0..10))),
            ("bytes=9-9", Ok(Some(9..10))),
            ("bytes=5-99999999999999999999", Ok(Some(5..10))),
            ("bytes=10-", Err(())),
            ("bytes=99999999999999999999-", Err(())),
            ("bytes=-0", Err(())),
            ("bytes=5-2", Ok(None)),
            ("bytes=0-1,4-5", Ok(None)),
            ("bytes=-", Ok(None)),
            ("bytes=x-y", Ok(None)),
            ("bytes=+1-2", Ok(None)),
            ("items=0-1", Ok(None)),
        ];
        for (value, expected) in cases {
            let headers = HeaderMap::from_iter([(header::RANGE, value.parse().unwrap())]);
            assert_eq!(wanted(&headers, 10, "\"a\"").map_err(|_| ()), expected, "{value}");
        }
    }

    #[test]
    fn a_range_of_another_version_is_the_whole_file() {
        let headers = |tag: &str| {
            HeaderMap::from_iter([
                (header::RANGE, "bytes=0-3".parse().unwrap()),
                (header::IF_RANGE, tag.parse().unwrap()),
            ])
        };
        assert_eq!(wanted(&headers("\"a\""), 10, "\"a\"").unwrap(), Some(0..4));
        assert_eq!(wanted(&headers("\"b\""), 10, "\"a\"").unwrap(), None);
    }
}
