//! The output settings of a request: file format, quality and metadata of the files.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Fields, Film, Format, SampleFormat, SoundCard,
    field::Bounds,
    table::{
        self, FILM_FORMAT, FILM_PROVENANCE, OUTPUT_FORMAT, OUTPUT_METADATA, OUTPUT_PROVENANCE, OUTPUT_QUALITY,
        SAMPLE_FORMAT, SOUND_FORMAT, SOUND_METADATA, SOUND_PROVENANCE,
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

    /// Reads the field `output` of a request for sounds.
    pub(super) fn read_sound(fields: &mut Fields, on: &Bounds<'_>) -> Output {
        let read = fields.nested(&table::SOUND_OUTPUT, |output| Output {
            encoding: Encoding::read_sound(output, on),
            metadata_level: output.get_or_default(&SOUND_METADATA, on),
            provenance: output.get_or_default(&SOUND_PROVENANCE, on),
        });
        let encoding = Encoding::Wav { sample_format: SampleFormat::default() };
        read.unwrap_or(Output { encoding, metadata_level: MetadataLevel::Full, provenance: true })
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
        field[OUTPUT_METADATA.name] = json!(self.metadata_level);
        // The default is left out, so that the files of a request contain the same text as files of versions without
        // this field.
        if !self.provenance {
            field[OUTPUT_PROVENANCE.name] = false.into();
        }
        field
    }
}

/// How much of the request a file contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetadataLevel {
    Full,
    Seed,
    None,
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
    /// A sound without compression.
    Wav { sample_format: SampleFormat },
    /// A sound with integers of 16 bits, compressed without loss.
    Flac,
    /// A sound, compressed with loss.
    Opus,
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

    /// Maximum frames per second of a GIF: browsers slow down faster films.
    pub const GIF_MAX_FPS: u32 = 50;

    /// The largest rate of a FLAC file, in samples per second and channel: the encoder writes no larger rate.
    pub const FLAC_MAX_RATE: u32 = 96_000;

    /// The rates that can be resampled to a rate of Opus, in samples per second and channel.
    pub const OPUS_RATES: RangeInclusive<u32> = 1_000..=192_000;

    /// Maximum number of channels of an Opus file without a table of channels.
    pub const OPUS_MAX_CHANNELS: u32 = 2;

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
            Format::Jpeg => Encoding::Jpeg { quality: quality.unwrap_or(Encoding::DEFAULT_QUALITY) },
            Format::Webp => Encoding::Webp,
            // The bounds of the field exclude all formats but PNG.
            _ => Encoding::Png,
        }
    }

    fn read_sound(output: &mut Fields, on: &Bounds<'_>) -> Encoding {
        let format: Format = output.get_or_default(&SOUND_FORMAT, on);
        let encoding = match format {
            Format::Flac => Encoding::Flac,
            Format::Opus => Encoding::Opus,
            // The bounds of the field exclude all formats but WAV.
            _ => return Encoding::Wav { sample_format: output.get_or_default(&SAMPLE_FORMAT, on) },
        };
        if output.take(SAMPLE_FORMAT.name).is_some() {
            let detail = format!("is only for the format wav: {} has samples of its own", format.name());
            output.error(SAMPLE_FORMAT.name, "conflict", detail);
        }
        encoding
    }

    /// The encoding of a film in this format.
    fn of_film(format: Format) -> Encoding {
        match format {
            Format::Zip => Encoding::Zip,
            Format::Apng => Encoding::Apng,
            Format::Gif => Encoding::Gif,
            Format::Webp => Encoding::Webp,
            // The bounds of the field exclude pictures and sounds.
            _ => Encoding::Mp4,
        }
    }

    pub fn format(self) -> Format {
        match self {
            Encoding::Png => Format::Png,
            Encoding::Jpeg { .. } => Format::Jpeg,
            Encoding::Webp => Format::Webp,
            Encoding::Wav { .. } => Format::Wav,
            Encoding::Flac => Format::Flac,
            Encoding::Opus => Format::Opus,
            Encoding::Mp4 => Format::Mp4,
            Encoding::Zip => Format::Zip,
            Encoding::Apng => Format::Apng,
            Encoding::Gif => Format::Gif,
        }
    }

    /// Adds an error if the format does not allow the rate or the channels of the model's sounds.
    pub(super) fn check_sound(self, fields: &mut Fields, sound: &SoundCard) {
        let SoundCard { sample_rate, channels, .. } = *sound;
        let (rates, most) = match self {
            Encoding::Flac => (1..=Encoding::FLAC_MAX_RATE, 8),
            Encoding::Opus => (Encoding::OPUS_RATES, Encoding::OPUS_MAX_CHANNELS),
            _ => return,
        };
        let name = self.format().name();
        if !rates.contains(&sample_rate) {
            let (least, most) = (rates.start(), rates.end());
            let detail = format!(
                "must not be {name} for this model, whose sounds have {sample_rate} samples per second: the format takes \
                 {least} to {most}"
            );
            fields.error_below("output", "format", "unsupported_for_model", detail);
        }
        if channels > most {
            let detail = format!(
                "must not be {name} for this model, whose sounds have {channels} channels: the format takes at most {most}"
            );
            fields.error_below("output", "format", "unsupported_for_model", detail);
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
    fn a_sound_that_no_file_can_have_is_refused() {
        let said = |encoding: Encoding, sample_rate, channels| {
            let sound = SoundCard { sample_rate, channels, default_seconds: 1.0, least_seconds: 0.1, log_snr: None };
            let mut fields = Fields::new(Map::new());
            encoding.check_sound(&mut fields, &sound);
            fields.finish().into_iter().map(|error| error.detail).collect::<String>()
        };
        let wav = Encoding::Wav { sample_format: SampleFormat::S16 };
        for (encoding, rate, channels, part) in [
            (wav, 1 << 20, 9, ""),
            (Encoding::Flac, 96_000, 8, ""),
            (
                Encoding::Flac,
                96_001,
                1,
                "flac for this model, whose sounds have 96001 samples per second: the format takes 1 to 96000",
            ),
            (Encoding::Flac, 1, 9, "flac for this model, whose sounds have 9 channels: the format takes at most 8"),
            (Encoding::Opus, 44_100, 2, ""),
            (Encoding::Opus, 999, 1, "the format takes 1000 to 192000"),
            (Encoding::Opus, 48_000, 3, "the format takes at most 2"),
        ] {
            let said = said(encoding, rate, channels);
            assert!(said.contains(part) && said.is_empty() == part.is_empty(), "{said}");
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
