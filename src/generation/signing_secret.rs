//! The secret that signs webhook messages.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer};

/// A symmetric key in the form of Standard Webhooks 1.0.0: `whsec_` and 24 to 64 bytes in base64. The `Debug` form
/// hides the key, so logs cannot contain the key.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Vec<u8>);

/// The text is not a signing secret. The error does not repeat the text.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("must be whsec_ and 24 to 64 bytes in base 64")]
pub struct InvalidSecret;

const PREFIX: &str = "whsec_";

impl SigningSecret {
    /// Makes a secret from a binary key.
    ///
    /// # Errors
    /// The key is shorter than 24 bytes or longer than 64.
    pub fn from_key(key: Vec<u8>) -> Result<SigningSecret, InvalidSecret> {
        if (24..=64).contains(&key.len()) { Ok(SigningSecret(key)) } else { Err(InvalidSecret) }
    }

    /// Parses the text of a secret.
    ///
    /// # Errors
    /// The prefix is wrong, the base64 is invalid, or the key has a wrong length.
    pub fn parse(text: &str) -> Result<SigningSecret, InvalidSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidSecret)?;
        SigningSecret::from_key(STANDARD.decode(encoded).map_err(|_| InvalidSecret)?)
    }

    pub fn key(&self) -> &[u8] {
        &self.0
    }

    /// The text of the secret. The owner sees the text once, and the ledger stores the text.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whsec_…")
    }
}

impl<'de> Deserialize<'de> for SigningSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        SigningSecret::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_24_to_64_bytes() {
        for (length, valid) in [(0, false), (23, false), (24, true), (64, true), (65, false)] {
            let key: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let text = format!("whsec_{}", STANDARD.encode(&key));
            let parsed = SigningSecret::parse(&text).ok();
            assert_eq!(parsed.is_some(), valid, "{length}");
            if let Some(secret) = parsed {
                assert_eq!((secret.key(), secret.reveal()), (key.as_slice(), text));
            }
        }
    }

    #[test]
    fn texts_that_are_no_secrets_are_refused_and_not_printed() {
        let encoded = STANDARD.encode([7; 32]);
        for text in [String::new(), encoded.clone(), format!("whsk_{encoded}"), format!("whsec_{encoded}!")] {
            let refused = SigningSecret::parse(&text).unwrap_err();
            assert!(!refused.to_string().contains(&encoded));
        }
        let secret = SigningSecret::parse(&format!("whsec_{encoded}")).unwrap();
        assert_eq!(format!("{secret:?}"), "whsec_…");
    }
}
