//! Writing PNG files.

use ::png::{BitDepth, ColorType, DeflateCompression, Encoder, Filter, SrgbRenderingIntent};
use serde_json::{Map, Value};

use super::{RgbImage, infotext::infotext};
use crate::{
    diffusion::SamplerLabel,
    generation::{Generation, MetadataLevel, SeedMode},
};

/// The picture cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("a picture of {width} × {height} pixels has {expected} bytes, not {bytes}")]
    Length { width: u32, height: u32, expected: u64, bytes: usize },
    #[error("the picture cannot be encoded: {0}")]
    Png(#[from] ::png::EncodingError),
}

/// Encodes image `index` of a generation as an RGB PNG with 8 bits a sample. The bytes are a function of the arguments
/// alone; `label` is what other programs call its sampler.
///
/// Text chunks (iTXt, uncompressed, before the pixels) by [`MetadataLevel`]: `Full` writes `parameters`, the lines that
/// image tools show, and `latentd`, the JSON of a request that makes this very picture again; `Seed` only `seed`.
///
/// # Errors
/// [`EncodeError::Length`] where the pixels do not fit the size; [`EncodeError::Png`] where a side is 0.
pub fn encode_png(
    image: &RgbImage,
    generation: &Generation,
    label: &SamplerLabel,
    index: u32,
) -> Result<Vec<u8>, EncodeError> {
    let texts = match generation.metadata_level {
        MetadataLevel::Full => vec![
            ("parameters", infotext(generation, label, index)),
            ("latentd", Value::Object(request(generation, index)).to_string()),
        ],
        MetadataLevel::Seed => vec![("seed", seed(generation, index).to_string())],
        MetadataLevel::None => Vec::new(),
    };
    // An eighth (smooth pictures) to two thirds (noise) of the time of level 6, the usual one, for at most a fifth more
    // bytes: the processor has pictures to draw.
    encode(image, &texts, DeflateCompression::Level(2))
}

/// Encodes a picture that a client sent, for this program to read again: the fastest way, and nothing but the pixels.
///
/// # Errors
/// As [`encode_png`].
pub fn encode_input(image: &RgbImage) -> Result<Vec<u8>, EncodeError> {
    encode(image, &[], DeflateCompression::FdeflateUltraFast)
}

/// Encodes with an adaptive filter and these texts.
pub(super) fn encode(
    image: &RgbImage,
    texts: &[(&str, String)],
    compression: DeflateCompression,
) -> Result<Vec<u8>, EncodeError> {
    let (width, height, expected) = (image.width, image.height, image.expected_bytes());
    if image.pixels.len() as u64 != expected {
        return Err(EncodeError::Length { width, height, expected, bytes: image.pixels.len() });
    }
    let mut file = Vec::with_capacity(image.pixels.len() / 2);
    let mut encoder = Encoder::new(&mut file, width, height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_source_srgb(SrgbRenderingIntent::Perceptual);
    encoder.set_deflate_compression(compression);
    encoder.set_filter(Filter::Adaptive);
    for (keyword, text) in texts {
        encoder.add_itxt_chunk((*keyword).to_owned(), text.clone())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&image.pixels)?;
    writer.finish()?;
    Ok(file)
}

/// What to POST for this very picture. Images of [`SeedMode::Batch`] cannot be had one by one, so their request is the
/// whole generation's.
fn request(generation: &Generation, index: u32) -> Map<String, Value> {
    let mut params = generation.params();
    if generation.seed_mode == SeedMode::PerImage {
        params.insert("n".to_owned(), 1.into());
    }
    params.insert("seed".to_owned(), seed(generation, index).into());
    params
}

/// The image's seed as a request may name it. Requests end at 2⁶³ − 1, where the seed of a later image may lie beyond;
/// generators look at the low 32 bits only, which the top bit is not among.
pub(super) fn seed(generation: &Generation, index: u32) -> u64 {
    generation.seed_of(index) & i64::MAX as u64
}
