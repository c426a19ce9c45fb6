//! PNG: pixels to the bit, metadata as texts.

use ::png::{BitDepth, ColorType, DeflateCompression, Encoder, Filter, SrgbRenderingIntent};

use super::EncodeError;
use crate::{
    generation::Format,
    imaging::{Metadata, RgbImage},
};

/// What [`encode_fast`] writes.
pub const FAST_FORMAT: Format = Format::Png;

/// A finished picture. Its texts are iTXt chunks, uncompressed, before the pixels: `parameters` and `latentd`, or `seed`.
pub(super) fn encode_finished(image: &RgbImage, metadata: &Metadata) -> Result<Vec<u8>, EncodeError> {
    let texts: &[(&str, &str)] = match metadata {
        Metadata::Full { parameters, request } => &[("parameters", parameters), ("latentd", request)],
        Metadata::Seed(seed) => &[("seed", seed)],
        Metadata::None => &[],
    };
    // An eighth (smooth pictures) to two thirds (noise) of the time of level 6, the usual one, for at most a fifth more
    // bytes: the processor has pictures to draw.
    encode(image, texts, DeflateCompression::Level(2))
}

/// A picture for this program to read again, or for a client to look at for a moment: the fastest way, and nothing but
/// the pixels.
///
/// # Errors
/// [`EncodeError::Length`] where the pixels do not fit the size; [`EncodeError::Png`] where a side is 0.
pub fn encode_fast(image: &RgbImage) -> Result<Vec<u8>, EncodeError> {
    encode(image, &[], DeflateCompression::FdeflateUltraFast)
}

/// Encodes with an adaptive filter and these texts.
fn encode(image: &RgbImage, texts: &[(&str, &str)], compression: DeflateCompression) -> Result<Vec<u8>, EncodeError> {
    image.check_length()?;
    let mut file = Vec::with_capacity(image.pixels.len() / 2);
    let mut encoder = Encoder::new(&mut file, image.width, image.height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_source_srgb(SrgbRenderingIntent::Perceptual);
    encoder.set_deflate_compression(compression);
    encoder.set_filter(Filter::Adaptive);
    for (keyword, text) in texts {
        encoder.add_itxt_chunk((*keyword).to_owned(), (*text).to_owned())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&image.pixels)?;
    writer.finish()?;
    Ok(file)
}
