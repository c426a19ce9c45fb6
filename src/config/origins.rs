//! The origins of pages that may use the API from a browser.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An origin as browsers send it: `https://app.example`, or `*` for every origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// Whether this is `*`.
    pub fn is_every(&self) -> bool {
        self.0 == "*"
    }

    /// Whether this is exactly the origin that a browser has sent.
    pub fn is(&self, sent: &str) -> bool {
        !self.is_every() && self.0 == sent
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        if lower == "*" {
            return Ok(Origin(lower));
        }
        let (scheme, host) = lower.split_once("://").unwrap_or_default();
        // Browsers leave out the usual port.
        let host = match scheme {
            "http" => host.strip_suffix(":80").unwrap_or(host),
            "https" => host.strip_suffix(":443").unwrap_or(host),
            _ => host,
        };
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '[' | ']');
        match is_scheme && !host.is_empty() && host.chars().all(is_host) {
            true => Ok(Origin(format!("{scheme}://{host}"))),
            false => Err(format!(
                "{text:?} is not the origin of a page; write https://app.example or http://localhost:3000, without a path \
                 and without a slash at the end, or * for every origin"
            )),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_exactly_what_browsers_send() {
        for (listed, sent, expected) in [
            ("https://app.example", "https://app.example", true),
            ("HTTPS://App.Example:443", "https://app.example", true),
            ("http://localhost:80", "http://localhost", true),
            ("http://localhost:3000", "http://localhost:3000", true),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("chrome-extension://abcdef", "chrome-extension://abcdef", true),
            ("https://app.example", "http://app.example", false),
            ("https://app.example", "https://app.example.evil.example", false),
            ("https://app.example", "https://www.app.example", false),
            ("http://localhost:3000", "http://localhost:30000", false),
            ("*", "https://app.example", false),
            ("*", "*", false),
        ] {
            assert_eq!(listed.parse::<Origin>().unwrap().is(sent), expected, "{listed} {sent}");
        }
        assert!("*".parse::<Origin>().unwrap().is_every());
    }

    #[test]
    fn texts_that_are_no_origins_are_refused() {
        for text in [
            "",
            "null",
            "app.example",
            "https://",
            "://app.example",
            "https://app.example/",
            "https://app.example/page",
            "https://*.example",
            "https://user@app.example",
            "https://app.example, https://b.example",
            "https://a b",
            "1http://a",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
