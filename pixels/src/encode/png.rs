//! PNG files: lossless, with metadata as text chunks.

use ::png::{BitDepth, ColorType, DeflateCompression, Encoder, Filter, SrgbRenderingIntent};

use super::{EncodeError, Metadata};
use crate::RgbImage;

/// Encodes a finished picture. Its texts are uncompressed iTXt chunks before the pixels: `parameters` and `latentd`, or
/// `seed`.
pub(super) fn encode_finished(image: &RgbImage, metadata: &Metadata) -> Result<Vec<u8>, EncodeError> {
    let texts: &[(&str, &str)] = match metadata {
        Metadata::Full { parameters, request } => &[("parameters", parameters), ("latentd", request)],
        Metadata::Seed(seed) => &[("seed", seed)],
        Metadata::None => &[],
    };
    // Level 2 takes from an eighth (smooth pictures) to two thirds (noise) of the time of the usual level 6, and its
    // files are at most a fifth larger. Drawing gains more from the saved processor time than clients would gain from
    // smaller files.
    encode(image, texts, DeflateCompression::Level(2))
}

/// Encodes a picture in the fastest way and without texts, for files that this program reads again and for previews.
///
/// # Errors
/// [`EncodeError::Length`] if the number of pixels does not match the size; [`EncodeError::Png`] if a side is 0.
pub fn encode_fast(image: &RgbImage) -> Result<Vec<u8>, EncodeError> {
    encode(image, &[], DeflateCompression::FdeflateUltraFast)
}

/// Encodes with adaptive filters and these texts.
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
