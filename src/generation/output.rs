//! The file that a finished picture becomes.

use serde::{Deserialize, Serialize};

/// A file format of pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Png,
    Jpeg,
    Webp,
}

impl Format {
    /// In the order of preference.
    pub const ALL: [Format; 3] = [Format::Png, Format::Jpeg, Format::Webp];

    /// As requests name it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Jpeg => "jpeg",
            Format::Webp => "webp",
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Format::Png => "image/png",
            Format::Jpeg => "image/jpeg",
            Format::Webp => "image/webp",
        }
    }

    /// The extension of a file's name, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Jpeg => "jpg",
            Format::Webp => "webp",
        }
    }

    /// The format of files with this extension (without the dot, in any case): `.jpeg` is another one of JPEG.
    pub fn of_extension(extension: &str) -> Option<Format> {
        let extension = extension.to_ascii_lowercase();
        let is_of = |format: &Format| [format.extension(), format.name()].contains(&extension.as_str());
        Format::ALL.into_iter().find(is_of)
    }

    /// The longest side that its readers take, in pixels; `None` where no request reaches it. libjpeg's
    /// `JPEG_MAX_DIMENSION` and libwebp's `WEBP_MAX_DIMENSION`.
    pub fn max_side(self) -> Option<u32> {
        match self {
            Format::Png => None,
            Format::Jpeg => Some(65_500),
            Format::Webp => Some(16_383),
        }
    }
}

/// A file format with its settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "lowercase")]
pub enum Encoding {
    #[default]
    Png,
    Jpeg {
        /// In 1..=100, of libjpeg's scale.
        quality: u8,
    },
    /// Lossless.
    Webp,
}

impl Encoding {
    /// The quality of a JPEG where the request names none: the lowest at which the color is kept at full resolution.
    pub const DEFAULT_QUALITY: u8 = 90;

    pub fn format(self) -> Format {
        match self {
            Encoding::Png => Format::Png,
            Encoding::Jpeg { .. } => Format::Jpeg,
            Encoding::Webp => Format::Webp,
        }
    }
}
