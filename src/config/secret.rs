//! Secret settings, which are never printed.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is hidden in logs, in errors and in `latentd config print`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

/// The text that is printed instead of a secret.
const HIDDEN: &str = "(hidden)";

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The secret text, for the code that uses it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "(none)" } else { HIDDEN })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_empty() { "" } else { HIDDEN })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // Otherwise, printed settings that are read again would use a secret that everybody knows.
        if text == HIDDEN {
            return Err(serde::de::Error::custom(
                "the secret was hidden when these settings were printed; set it again",
            ));
        }
        Ok(Secret(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_to_nobody() {
        let secret = Secret::new("swordfish");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "(hidden) Some((hidden))");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"(hidden)\"");
        assert_eq!(secret.expose(), "swordfish");
        assert_eq!(serde_json::to_string(&Secret::default()).unwrap(), "\"\"");
    }

    #[test]
    fn the_printed_placeholder_is_refused_as_a_secret() {
        assert_eq!(serde_json::from_str::<Secret>("\"swordfish\"").unwrap(), Secret::new("swordfish"));
        let error = serde_json::from_str::<Secret>("\"(hidden)\"").unwrap_err().to_string();
        assert!(error.contains("set it again"), "{error}");
    }
}
