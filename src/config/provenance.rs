//! The section `[provenance]`: how pictures, sounds and films are marked as made by a model.

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::{ConfigError, Secret};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Whether the files of pictures, sounds and films are signed.
    pub credentials: bool,
    /// A PEM file, or PEM text. If this and `private_key` are empty, the server makes its own certificate.
    pub certificate: String,
    /// A PEM file, or PEM text.
    pub private_key: Secret,
    /// A PEM file, or PEM text; may be empty.
    pub trust_anchors: String,
    /// Whether a request may ask for unsigned files without a watermark.
    pub opt_out: bool,
    /// Whether pictures and the frames of films have an invisible watermark.
    pub watermark: Watermark,
    /// The owner whom the watermark names. The first half of the payload is the first 32 bits of the SHA-256 of this
    /// text.
    pub watermark_owner: String,
}

/// Whether pictures and the frames of films have an invisible watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Watermark {
    /// Nobody has chosen: no watermark, and a server that other machines can reach says so when it starts.
    #[serde(rename = "")]
    Unset,
    #[serde(rename = "on")]
    On,
    #[serde(rename = "off")]
    Off,
}

impl Watermark {
    pub fn is_on(self) -> bool {
        self == Watermark::On
    }
}

impl<'de> Deserialize<'de> for Watermark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "" => Ok(Watermark::Unset),
            "on" => Ok(Watermark::On),
            "off" => Ok(Watermark::Off),
            _ => Err(D::Error::custom(format_args!("must be on, off or empty, not {text:?}"))),
        }
    }
}

impl Provenance {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.certificate.is_empty() != self.private_key.is_empty() {
            let detail = "and provenance.private_key belong together: set both or neither";
            return ConfigError::bound("provenance.certificate", detail);
        }
        Ok(())
    }
}
