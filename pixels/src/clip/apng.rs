//! Animated PNG files: exact, with delays that are fractions of a second.

use ::png::{BitDepth, ColorType, DeflateCompression, Encoder, Filter, SrgbRenderingIntent};

use super::{ClipError, Note};
use crate::{EncodeError, RgbImage};

pub(super) fn encode(frames: &[RgbImage], fps: u32, note: Option<&Note>) -> Result<Vec<u8>, ClipError> {
    let rate = u16::try_from(fps).map_err(|_| ClipError::Rate(fps))?;
    Ok(write(frames, rate, note).map_err(EncodeError::Png)?)
}

/// Writes frames of one size, at least one.
fn write(frames: &[RgbImage], fps: u16, note: Option<&Note>) -> Result<Vec<u8>, png::EncodingError> {
    let (width, height) = frames.first().map_or((0, 0), |frame| (frame.width, frame.height));
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, width, height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_source_srgb(SrgbRenderingIntent::Perceptual);
    // The compression of finished pictures.
    encoder.set_deflate_compression(DeflateCompression::Level(2));
    encoder.set_filter(Filter::Adaptive);
    encoder.set_animated(u32::try_from(frames.len()).unwrap_or(u32::MAX), 0)?;
    encoder.set_frame_delay(1, fps)?;
    encoder.validate_sequence(true);
    if let Some(note) = note {
        let keyword = match note {
            Note::Request(_) => "latentd",
            Note::Seed(_) => "seed",
        };
        encoder.add_itxt_chunk(keyword.to_owned(), note.json().to_owned())?;
    }
    let mut writer = encoder.write_header()?;
    for frame in frames {
        writer.write_image_data(&frame.pixels)?;
    }
    writer.finish()?;
    Ok(file)
}
