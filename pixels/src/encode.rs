//! Encodes pictures into files: pixels and metadata, as PNG, JPEG or WebP.

mod exif;
mod jpeg;
pub(super) mod png;
mod webp;
pub(super) mod xmp;

use super::RgbImage;

/// Why a picture cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("a picture of {width} × {height} pixels has {expected} bytes, not {bytes}")]
    Length { width: u32, height: u32, expected: u64, bytes: usize },
    #[error("a JPEG has at most 65535 pixels per side, not {width} × {height}")]
    TooLarge { width: u32, height: u32 },
    #[error("{0} is not a format of this kind of result")]
    Format(&'static str),
    #[error("the picture cannot be encoded: {0}")]
    Png(#[from] ::png::EncodingError),
    #[error("the picture cannot be encoded: {0}")]
    Jpeg(#[from] jpeg_encoder::EncodingError),
    #[error("the picture cannot be encoded: {0}")]
    Webp(#[from] image_webp::EncodingError),
}

/// The metadata texts of one picture. Each format stores them in different places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metadata {
    Full {
        /// The text that other image tools display and read.
        parameters: String,
        /// The JSON of a request that draws exactly this picture again.
        request: String,
    },
    /// Only the seed.
    Seed(String),
    None,
}

/// Encodes an sRGB picture as a PNG. Equal arguments give equal bytes on every machine.
///
/// # Errors
/// [`EncodeError::Length`] if the number of pixels does not match the size; [`EncodeError::Png`] if a side is 0.
pub fn encode_png(image: &RgbImage, metadata: &Metadata) -> Result<Vec<u8>, EncodeError> {
    png::encode_finished(image, metadata)
}

/// Encodes an sRGB picture as a JPEG. Equal arguments give equal bytes on every machine.
///
/// # Errors
/// [`EncodeError::Length`] if the number of pixels does not match the size, [`EncodeError::TooLarge`] if a side is too
/// long for JPEG, and [`EncodeError::Jpeg`] if a side is 0.
pub fn encode_jpeg(image: &RgbImage, quality: u8, metadata: &Metadata) -> Result<Vec<u8>, EncodeError> {
    image.check_length()?;
    jpeg::encode(&image.pixels, [image.width, image.height], quality, metadata)
}

/// Encodes an sRGB picture as a lossless WebP. Equal arguments give equal bytes on every machine.
///
/// # Errors
/// [`EncodeError::Length`] if the number of pixels does not match the size; [`EncodeError::Webp`] if a side is 0 or too
/// long for WebP.
pub fn encode_webp(image: &RgbImage, metadata: &Metadata) -> Result<Vec<u8>, EncodeError> {
    image.check_length()?;
    webp::encode(&image.pixels, [image.width, image.height], metadata)
}

impl RgbImage {
    /// Checks that the number of bytes matches the size.
    pub(super) fn check_length(&self) -> Result<(), EncodeError> {
        let (width, height, expected) = (self.width, self.height, self.expected_bytes());
        match self.pixels.len() {
            bytes if bytes as u64 == expected => Ok(()),
            bytes => Err(EncodeError::Length { width, height, expected, bytes }),
        }
    }
}
