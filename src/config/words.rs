//! Reads settings that are one of a few words, or an address, with plain error messages.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, de::Error};

/// Reads one of the words in `words`, of which there are at least two, and returns its meaning.
pub(super) fn one_of<'de, T: Copy, D: Deserializer<'de>>(deserializer: D, words: &[(&str, T)]) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
    found.ok_or_else(|| {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let (last, first) = names.split_last().unwrap_or((&"", &[]));
        D::Error::custom(format_args!("must be {} or {last}, not {text:?}", first.join(", ")))
    })
}

/// Reads an address with a port.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        let like = "127.0.0.1:8080 or [::1]:8080";
        D::Error::custom(format_args!("must be an IP address and a port, such as {like}, not {text:?}"))
    })
}
