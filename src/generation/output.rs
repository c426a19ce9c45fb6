//! The output settings of a request: file format, quality and metadata of the files.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Fields, Film, SampleFormat, WorkKind,
    field::Bounds,
    table::{
        self, FILM_FORMAT, FILM_PROVENANCE, OUTPUT_FORMAT, OUTPUT_METADATA, OUTPUT_PROVENANCE, OUTPUT_QUALITY,
        SAMPLE_FORMAT, SOUND_FORMAT, SOUND_PROVENANCE,
    },
};

/// The format of the files, and how much of the request they contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    #[serde(default)]
    pub encoding: Encoding,
    pub metadata_level: MetadataLevel,
    /// Whether the files may be signed with content credentials, and pictures marked with a watermark.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub provenance: bool,
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_yes(flag: &bool) -> bool {
    *flag
}

impl Output {
    /// Reads the field `output`.
    pub(super) fn read(fields: &mut Fields, on: &Bounds<'_>) -> Output {
        let read = fields.nested(&table::OUTPUT, |output| Output {
            encoding: Encoding::read(output, on),
            metadata_level: output.get_or_default(&OUTPUT_METADATA, on),
            provenance: output.get_or_default(&OUTPUT_PROVENANCE, on),
        });
        read.unwrap_or(Output { encoding: Encoding::Png, metadata_level: MetadataLevel::Full, provenance: true })
    }

    /// Reads the field `output` of a request for sounds, whose files contain no metadata.
    pub(super) fn read_sound(fields: &mut Fields, on: &Bounds<'_>) -> Output {
        let read = fields.nested(&table::SOUND_OUTPUT, |output| {
            let _: Format = output.get_or_default(&SOUND_FORMAT, on);
            let sample_format = output.get_or_default(&SAMPLE_FORMAT, on);
            (sample_format, output.get_or_default(&SOUND_PROVENANCE, on))
        });
        let (sample_format, provenance) = read.unwrap_or((SampleFormat::default(), true));
        Output { encoding: Encoding::Wav { sample_format }, metadata_level: MetadataLevel::None, provenance }
    }

    /// Reads the field `output` of a request for films.
    pub(super) fn read_film(fields: &mut Fields, on: &Bounds<'_>) -> Output {
        let read = fields.nested(&table::FILM_OUTPUT, |output| Output {
            encoding: Encoding::of_film(output.get_or_default(&FILM_FORMAT, on)),
            metadata_level: output.get_or_default(&OUTPUT_METADATA, on),
            provenance: output.get_or_default(&FILM_PROVENANCE, on),
        });
        read.unwrap_or(Output { encoding: Encoding::Mp4, metadata_level: MetadataLevel::Full, provenance: true })
    }

    /// The value of the request's field `output`.
    pub(super) fn field(&self) -> Value {
        let mut field = json!(self.encoding);
        if self.encoding.format() != Format::Wav {
            field[OUTPUT_METADATA.name] = json!(self.metadata_level);
        }
        // Absent if it has the default, so that the same request has the same text in its files as before the field.
        if !self.provenance {
            field[OUTPUT_PROVENANCE.name] = false.into();
        }
        field
    }
}

/// How much of the request the file of a picture contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetadataLevel {
    Full,
    Seed,
    None,
}

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
    pub const SOUNDS: [Format; 1] = [Format::Wav];

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
            Format::Wav => WorkKind::Sound,
            Format::Mp4 | Format::Zip | Format::Apng | Format::Gif => WorkKind::Film,
        }
    }

    /// Whether files of this format can contain content credentials.
    pub fn is_signable(self) -> bool {
        self != Format::Zip
    }

    /// The extension of a file name, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Jpeg => "jpg",
            Format::Webp => "webp",
            Format::Wav => "wav",
            Format::Mp4 => "mp4",
            Format::Zip => "zip",
            Format::Apng => "apng",
            Format::Gif => "gif",
        }
    }

    /// The format of files with this extension (without the dot, in any letter case). For JPEG files, `jpeg` is accepted
    /// besides `jpg`. The files of films that are also the names of pictures, `png` and `webp`, are those of pictures here.
    pub fn of_extension(extension: &str) -> Option<Format> {
        let extension = extension.to_ascii_lowercase();
        let is_of = |format: &Format| [format.extension(), format.name()].contains(&extension.as_str());
        Format::PICTURES.into_iter().chain(Format::SOUNDS).chain(Format::FILMS).find(is_of)
    }

    /// The longest side of a file of this format, in pixels: `JPEG_MAX_DIMENSION` of libjpeg and `WEBP_MAX_DIMENSION`
    /// of libwebp. `None` if no request can reach the limit.
    pub fn max_side(self) -> Option<u32> {
        match self {
            Format::Png | Format::Wav | Format::Mp4 | Format::Zip | Format::Apng | Format::Gif => None,
            Format::Jpeg => Some(65_500),
            Format::Webp => Some(16_383),
        }
    }
}

/// A file format with its quality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "lowercase")]
pub enum Encoding {
    #[default]
    Png,
    Jpeg {
        /// Quality on libjpeg's scale, 1..=100.
        quality: u8,
    },
    /// Lossless.
    Webp,
    /// A sound.
    Wav { sample_format: SampleFormat },
    /// A film as AV1.
    Mp4,
    /// A film as numbered PNG files.
    Zip,
    /// A film as an animated PNG.
    Apng,
    /// A film as an animated GIF.
    Gif,
}

impl Encoding {
    /// The default quality of a JPEG: the lowest quality at which the encoder keeps the color at full resolution.
    pub const DEFAULT_QUALITY: u8 = 90;

    /// The shortest side of an MP4 file, in pixels: the encoder of AV1 takes no smaller frames.
    pub const MP4_LEAST_SIDE: u32 = 16;

    /// The most frames per second of a GIF: browsers slow down faster ones.
    pub const GIF_MAX_FPS: u32 = 50;

    fn read(output: &mut Fields, on: &Bounds<'_>) -> Encoding {
        let format: Format = output.get_or_default(&OUTPUT_FORMAT, on);
        let quality = if format == Format::Jpeg || output.is_faulty("format") {
            Some(output.get_or_default(&OUTPUT_QUALITY, on))
        } else {
            if output.take("quality").is_some() {
                let detail = format!("is only for the format jpeg: {} is written lossless", format.name());
                output.error("quality", "conflict", detail);
            }
            None
        };
        match format {
            // The bounds of the field exclude all other formats.
            Format::Png | Format::Wav | Format::Mp4 | Format::Zip | Format::Apng | Format::Gif => Encoding::Png,
            Format::Jpeg => Encoding::Jpeg { quality: quality.unwrap_or(Encoding::DEFAULT_QUALITY) },
            Format::Webp => Encoding::Webp,
        }
    }

    /// The encoding of a film in this format.
    fn of_film(format: Format) -> Encoding {
        match format {
            Format::Zip => Encoding::Zip,
            Format::Apng => Encoding::Apng,
            Format::Gif => Encoding::Gif,
            Format::Webp => Encoding::Webp,
            // The bounds of the field exclude pictures and sounds.
            Format::Mp4 | Format::Png | Format::Jpeg | Format::Wav => Encoding::Mp4,
        }
    }

    pub fn format(self) -> Format {
        match self {
            Encoding::Png => Format::Png,
            Encoding::Jpeg { .. } => Format::Jpeg,
            Encoding::Webp => Format::Webp,
            Encoding::Wav { .. } => Format::Wav,
            Encoding::Mp4 => Format::Mp4,
            Encoding::Zip => Format::Zip,
            Encoding::Apng => Format::Apng,
            Encoding::Gif => Format::Gif,
        }
    }

    /// Adds an error if the format does not allow the size or the rate of the film.
    pub(super) fn check_film(self, fields: &mut Fields, film: &Film) {
        let Film { frames, width, height, fps, .. } = *film;
        let detail = match self {
            Encoding::Mp4 if frames < 2 => "must not be mp4 for a single frame, which has no duration".to_owned(),
            Encoding::Mp4 if width.min(height) < Encoding::MP4_LEAST_SIDE => {
                let (side, least) = (width.min(height), Encoding::MP4_LEAST_SIDE);
                format!("must not be mp4 for a side of {side} pixels: the format needs at least {least}")
            }
            Encoding::Gif if fps > Encoding::GIF_MAX_FPS => {
                let most = Encoding::GIF_MAX_FPS;
                format!("must not be gif for {fps} frames per second: the format allows at most {most}")
            }
            encoding => return encoding.check_size(fields, width, height),
        };
        fields.error_below("output", "format", "out_of_range", detail);
    }

    /// Adds an error if a side is longer than the format allows.
    pub(super) fn check_size(self, fields: &mut Fields, width: u32, height: u32) {
        let (format, side) = (self.format(), width.max(height));
        if let Some(longest) = format.max_side().filter(|longest| side > *longest) {
            let name = format.name();
            let detail = format!("must not be {name} for a side of {side} pixels: the format allows at most {longest}");
            fields.error_below("output", "format", "out_of_range", detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::generation::{ModelCard, SchedulerChoice, SeedMode, limits::LIMITS};

    #[test]
    fn a_format_is_known_by_its_extension() {
        for (extension, format) in [
            ("png", Some(Format::Png)),
            ("jpg", Some(Format::Jpeg)),
            ("JPEG", Some(Format::Jpeg)),
            ("WebP", Some(Format::Webp)),
            ("wav", Some(Format::Wav)),
            ("gif", Some(Format::Gif)),
            ("apng", Some(Format::Apng)),
            ("bmp", None),
            ("", None),
        ] {
            assert_eq!(Format::of_extension(extension), format, "{extension}");
        }
    }

    #[test]
    fn a_stored_encoding_is_the_request_for_it() {
        for (encoding, stored) in [
            (Encoding::Png, json!({"format": "png"})),
            (Encoding::Jpeg { quality: 7 }, json!({"format": "jpeg", "quality": 7})),
            (Encoding::Webp, json!({"format": "webp"})),
        ] {
            assert_eq!(json!(encoding), stored);
            assert_eq!(Encoding::deserialize(&stored).unwrap(), encoding);
            let mut fields = Fields::new(Map::from_iter([("output".to_owned(), stored)]));
            let card = ModelCard::default();
            let read = Output::read(&mut fields, &Bounds { card: &card, limits: &LIMITS });
            assert_eq!(read, Output { encoding, metadata_level: MetadataLevel::Full, provenance: true });
            assert!(fields.finish().is_empty());
        }
    }

    #[test]
    fn a_film_that_no_file_can_have_is_refused() {
        let said = |encoding: Encoding, width, fps| {
            let film = Film {
                prompt: String::new(),
                negative_prompt: String::new(),
                loras: Vec::new(),
                motion_adapter: None,
                image: None,
                frames: 2,
                fps,
                width,
                height: 64,
                n: 1,
                steps: 1,
                guidance_scale: 1.0,
                guidance_scale_2: None,
                motion: None,
                decode_chunk_size: None,
                max_sequence_length: None,
                scheduler: SchedulerChoice::Name("euler".to_owned()),
                seed: 1,
                seed_mode: SeedMode::PerImage,
            };
            let mut fields = Fields::new(Map::new());
            encoding.check_film(&mut fields, &film);
            fields.finish().into_iter().map(|error| error.detail).collect::<String>()
        };
        for (encoding, width, fps, part) in [
            (Encoding::Mp4, 16, 60, ""),
            (Encoding::Mp4, 8, 7, "mp4 for a side of 8 pixels: the format needs at least 16"),
            (Encoding::Gif, 8, 50, ""),
            (Encoding::Gif, 64, 51, "gif for 51 frames per second: the format allows at most 50"),
            (Encoding::Webp, 16_384, 60, "webp for a side of 16384 pixels: the format allows at most 16383"),
            (Encoding::Apng, 100_000, 60, ""),
            (Encoding::Zip, 8, 60, ""),
        ] {
            let said = said(encoding, width, fps);
            assert!(said.contains(part) && said.is_empty() == part.is_empty(), "{said}");
        }
    }

    #[test]
    fn a_side_that_no_file_can_have_is_refused() {
        let errors = |encoding: Encoding, width, height| {
            let mut fields = Fields::new(Map::new());
            encoding.check_size(&mut fields, width, height);
            fields.finish().into_iter().map(|error| (error.pointer, error.detail)).collect::<Vec<_>>()
        };
        let error = |format: &str, most: u32, side: u32| {
            let detail = format!(
                "output.format must not be {format} for a side of {side} pixels: the format allows at most {most}"
            );
            ("/output/format".to_owned(), detail)
        };
        let jpeg = Encoding::Jpeg { quality: 90 };
        assert_eq!(errors(Encoding::Webp, 16_383, 16_383), []);
        assert_eq!(errors(Encoding::Webp, 16_383, 16_384), [error("webp", 16_383, 16_384)]);
        assert_eq!(errors(jpeg, 65_501, 65_500), [error("jpeg", 65_500, 65_501)]);
        assert_eq!(errors(Encoding::Png, 100_000, 100_000), []);
    }
}
