//! Parses `Content-Disposition` of a form's part (RFC 7578, section 4.2): the names of the field and of the file.

use axum::http::{HeaderMap, header};

use super::urlencoded;

/// The parameters of a part. Their names are case-insensitive (RFC 2183).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Disposition {
    pub name: Option<String>,
    pub filename: Option<String>,
}

impl Disposition {
    /// Reads the header of a part. Some clients write non-ASCII names as `name*=UTF-8''…` (RFC 8187); these count if
    /// the plain parameter is absent.
    pub fn of(headers: &HeaderMap) -> Disposition {
        let value = headers.get(header::CONTENT_DISPOSITION).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let (mut plain, mut extended) = (Disposition::default(), Disposition::default());
        for (name, value) in parameters(value.as_deref().unwrap_or_default()) {
            match name.as_str() {
                "name" => plain.name = plain.name.or(Some(value)),
                "filename" => plain.filename = plain.filename.or(Some(value)),
                "name*" => extended.name = extended.name.or_else(|| decoded(&value)),
                "filename*" => extended.filename = extended.filename.or_else(|| decoded(&value)),
                _ => {}
            }
        }
        Disposition { name: plain.name.or(extended.name), filename: plain.filename.or(extended.filename) }
    }
}

/// The parameters after the type, with names in lower case and values without quotes.
fn parameters(header: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = header.split_once(';').map_or("", |(_, rest)| rest);
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = value(after.trim_start());
        // A parameter without a value may precede the name.
        let name = name.rsplit(';').next().unwrap_or(name).trim().to_ascii_lowercase();
        found.push((name, value));
        rest = after.split_once(';').map_or("", |(_, rest)| rest);
    }
    found
}

/// A token or a quoted string, and the text after it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match (c, chars.peek()) {
            ('"', _) => return (value, &quoted[at + 1..]),
            // Any other backslash belongs to a Windows path.
            ('\\', Some((_, escaped @ ('"' | '\\')))) => {
                value.push(*escaped);
                chars.next();
            }
            _ => value.push(c),
        }
    }
    (value, "")
}

/// Decodes `UTF-8'LANGUAGE'TEXT`, whose text is percent-encoded. `None` if the value is malformed or in another
/// character set.
fn decoded(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, text) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    urlencoded::decoded(text.replace('+', "%2B").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_however_they_are_written() {
        for (header, name, filename) in [
            (r#"form-data; name="image""#, Some("image"), None),
            (r#"FORM-DATA; NAME="image"; FileName="a.png""#, Some("image"), Some("a.png")),
            ("form-data; name=image", Some("image"), None),
            ("form-data;name=image;filename=", Some("image"), Some("")),
            (r#"form-data; name="a;b=\"c\""; filename="C:\\x\y.png""#, Some("a;b=\"c\""), Some(r"C:\x\y.png")),
            ("form-data; name*=UTF-8''b%C3%A4r; filename*=utf-8'en'%F0%9F%A6%8A.png", Some("bär"), Some("🦊.png")),
            (r#"form-data; name="a"; name*=UTF-8''b"#, Some("a"), None),
            ("form-data; name*=latin1''b%E4r", None, None),
            (r#"form-data; x; name="image"#, Some("image"), None),
            ("form-data", None, None),
            ("", None, None),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_DISPOSITION, header.parse().unwrap())]);
            let found = Disposition::of(&headers);
            assert_eq!((found.name.as_deref(), found.filename.as_deref()), (name, filename), "{header}");
        }
        assert_eq!(Disposition::of(&HeaderMap::new()), Disposition::default());
    }
}
