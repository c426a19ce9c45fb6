//! Patterns of the host names under which a listener accepts requests.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A pattern in lower case, without a port: `images.example.com`, `*.example.com` for every name below `example.com`,
/// or `*` for every name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(String);

impl HostPattern {
    /// Whether the pattern matches `host`, a name in lower case without a port.
    pub fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some("") => true,
            Some(below) => host.len() > below.len() && host.ends_with(below),
            None => self.0 == host,
        }
    }

    /// Whether the pattern is `*`.
    pub fn is_every(&self) -> bool {
        self.0 == "*"
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let is_name =
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
        match is_name || text == "*" {
            true => Ok(HostPattern(text.to_ascii_lowercase())),
            false => Err(format!(
                "{text:?} is no name of a host; write images.example.com (without scheme and port), *.example.com for \
                 every name below example.com, or * for every name"
            )),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_one_name_or_all_below_it() {
        let cases = [
            ("images.example.com", "images.example.com", true),
            ("Images.Example.com", "images.example.com", true),
            ("example.com", "images.example.com", false),
            ("*.example.com", "images.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", "evilexample.com", false),
            ("*", "anything", true),
        ];
        for (pattern, host, expected) in cases {
            assert_eq!(pattern.parse::<HostPattern>().unwrap().matches(host), expected, "{pattern} {host}");
        }
        for text in ["", "*.", "https://a", "a:8080", "a b", "a.*", "**", "*a"] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
    }
}
