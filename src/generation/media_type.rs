//! The media type of an artifact.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use super::Format;

/// A media type without parameters, such as `image/png`; always a valid value of a `Content-Type` header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct MediaType(Cow<'static, str>);

/// The text is not a media type of the form `type/subtype`.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a media type")]
pub struct InvalidMediaType(String);

impl MediaType {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Format> for MediaType {
    fn from(format: Format) -> MediaType {
        MediaType(Cow::Borrowed(format.media_type()))
    }
}

/// Types that this version does not write are accepted, because a newer version may have stored them.
impl TryFrom<String> for MediaType {
    type Error = InvalidMediaType;

    fn try_from(text: String) -> Result<Self, InvalidMediaType> {
        let is_name = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
        };
        match text.split_once('/') {
            Some((kind, subtype)) if text.len() <= 127 && is_name(kind) && is_name(subtype) => {
                Ok(MediaType(Cow::Owned(text)))
            }
            _ => Err(InvalidMediaType(text)),
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_is_two_names() {
        for text in ["image/png", "image/svg+xml", "video/mp4", "application/vnd.safetensors"] {
            assert_eq!(MediaType::try_from(text.to_owned()).unwrap().as_str(), text);
        }
        for text in ["", "png", "/png", "image/", "image/png; q=1", "image/p\r\nng", "image/png/x", "bild/größe"] {
            assert!(MediaType::try_from(text.to_owned()).is_err(), "{text:?}");
        }
        assert!(MediaType::try_from(format!("image/{}", "x".repeat(200))).is_err());
        assert_eq!(serde_json::from_str::<MediaType>("\"image/png\"").unwrap(), Format::Png.into());
        for format in Format::PICTURES.into_iter().chain(Format::SOUNDS).chain(Format::FILMS) {
            assert!(MediaType::try_from(format.media_type().to_owned()).is_ok());
        }
    }
}
