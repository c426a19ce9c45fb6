//! The format of a file: its names, its media type and its bounds.

use serde::{Deserialize, Serialize};

use super::{Fields, WorkKind};

/// The format of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Png,
    Jpeg,
    /// A picture, or an animation.
    Webp,
    Wav,
    Flac,
    /// Opus in an Ogg file.
    Opus,
    Mp4,
    /// Numbered PNG files.
    Zip,
    Apng,
    Gif,
}

impl Format {
    /// All formats of pictures in the order of preference.
    pub const PICTURES: [Format; 3] = [Format::Png, Format::Jpeg, Format::Webp];
    /// All formats of sounds in the order of preference.
    pub const SOUNDS: [Format; 3] = [Format::Wav, Format::Flac, Format::Opus];

    /// All formats of films in the order of preference.
    pub const FILMS: [Format; 5] = [Format::Mp4, Format::Zip, Format::Apng, Format::Gif, Format::Webp];

    /// The format in the field `output.format` of a request for work of this kind. `None` if the field is absent or
    /// invalid.
    pub fn named_in(fields: &Fields, kind: WorkKind) -> Option<Format> {
        let named = Format::deserialize(fields.peek("output")?.get("format")?).ok();
        named.filter(|format| kind.formats().contains(format))
    }

    /// The name in requests.
    pub fn name(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Jpeg => "jpeg",
            Format::Webp => "webp",
            Format::Wav => "wav",
            Format::Flac => "flac",
            Format::Opus => "opus",
            Format::Mp4 => "mp4",
            Format::Zip => "zip",
            Format::Apng => "apng",
            Format::Gif => "gif",
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Format::Png => "image/png",
            Format::Jpeg => "image/jpeg",
            Format::Webp => "image/webp",
            Format::Wav => "audio/wav",
            Format::Flac => "audio/flac",
            Format::Opus => "audio/ogg",
            Format::Mp4 => "video/mp4",
            Format::Zip => "application/zip",
            Format::Apng => "image/apng",
            Format::Gif => "image/gif",
        }
    }

    /// The kind of work that makes files of this format. A WebP file can be an animation too; here it is a picture.
    pub fn work_kind(self) -> WorkKind {
        match self {
            Format::Png | Format::Jpeg | Format::Webp => WorkKind::Draw,
            Format::Wav | Format::Flac | Format::Opus => WorkKind::Sound,
            Format::Mp4 | Format::Zip | Format::Apng | Format::Gif => WorkKind::Film,
        }
    }

    /// Whether files of this format can contain content credentials.
    pub fn is_signable(self) -> bool {
        !matches!(self, Format::Zip | Format::Opus)
    }

    /// The extension of a file name, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Jpeg => "jpg",
            other => other.name(),
        }
    }

    /// The format of files with this extension (without the dot, in any letter case). For JPEG files, `jpeg` is
    /// accepted besides `jpg`; for Opus, `ogg` and `oga` besides `opus`. Pictures and films share the extensions `png`
    /// and `webp`; here, these are the formats of pictures.
    pub fn of_extension(extension: &str) -> Option<Format> {
        let extension = match extension.to_ascii_lowercase() {
            name if name == "ogg" || name == "oga" => "opus".to_owned(),
            name => name,
        };
        let is_of = |format: &Format| [format.extension(), format.name()].contains(&extension.as_str());
        Format::PICTURES.into_iter().chain(Format::SOUNDS).chain(Format::FILMS).find(is_of)
    }

    /// The longest side of a file of this format, in pixels: `JPEG_MAX_DIMENSION` of libjpeg and `WEBP_MAX_DIMENSION`
    /// of libwebp. `None` if no request can reach the limit.
    pub fn max_side(self) -> Option<u32> {
        match self {
            Format::Jpeg => Some(65_500),
            Format::Webp => Some(16_383),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_known_by_its_extension() {
        for (extension, format) in [
            ("png", Some(Format::Png)),
            ("jpg", Some(Format::Jpeg)),
            ("JPEG", Some(Format::Jpeg)),
            ("WebP", Some(Format::Webp)),
            ("wav", Some(Format::Wav)),
            ("flac", Some(Format::Flac)),
            ("opus", Some(Format::Opus)),
            ("Ogg", Some(Format::Opus)),
            ("gif", Some(Format::Gif)),
            ("apng", Some(Format::Apng)),
            ("bmp", None),
            ("", None),
        ] {
            assert_eq!(Format::of_extension(extension), format, "{extension}");
        }
    }
}
