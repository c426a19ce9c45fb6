//! Encodes pictures into files: pixels and metadata, in the format that a request chooses.

mod exif;
mod jpeg;
pub(super) mod png;
mod webp;
mod xmp;

use super::{Metadata, RgbImage};
use crate::{
    diffusion::SamplerLabel,
    generation::{Encoding, Job},
};

/// Why a picture cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("a picture of {width} × {height} pixels has {expected} bytes, not {bytes}")]
    Length { width: u32, height: u32, expected: u64, bytes: usize },
    #[error("a JPEG has at most 65535 pixels per side, not {width} × {height}")]
    TooLarge { width: u32, height: u32 },
    #[error("the picture cannot be encoded: {0}")]
    Png(#[from] ::png::EncodingError),
    #[error("the picture cannot be encoded: {0}")]
    Jpeg(#[from] jpeg_encoder::EncodingError),
    #[error("the picture cannot be encoded: {0}")]
    Webp(#[from] image_webp::EncodingError),
}

/// Encodes image `index` of a generation with the format and the metadata that its request chooses. `label` has the
/// names that other programs give to the sampler.
///
/// # Errors
/// As [`encode`].
pub fn encode_picture(image: &RgbImage, job: &Job, label: &SamplerLabel, index: u32) -> Result<Vec<u8>, EncodeError> {
    encode(image, job.output.encoding, &Metadata::of(job, label, index))
}

/// Encodes an sRGB picture with 8 bits per channel. Equal arguments give equal bytes on every machine.
///
/// # Errors
/// [`EncodeError::Length`] if the number of pixels does not match the size, [`EncodeError::TooLarge`] if a side is too
/// long for JPEG, and otherwise the error of the format, such as for a side of 0.
pub fn encode(image: &RgbImage, encoding: Encoding, metadata: &Metadata) -> Result<Vec<u8>, EncodeError> {
    image.check_length()?;
    match encoding {
        Encoding::Png => png::encode_finished(image, metadata),
        Encoding::Jpeg { quality } => jpeg::encode(image, quality, metadata),
        Encoding::Webp => webp::encode(&image.pixels, [image.width, image.height], metadata),
    }
}

impl RgbImage {
    /// Checks that the number of bytes matches the size.
    fn check_length(&self) -> Result<(), EncodeError> {
        let (width, height, expected) = (self.width, self.height, self.expected_bytes());
        match self.pixels.len() {
            bytes if bytes as u64 == expected => Ok(()),
            bytes => Err(EncodeError::Length { width, height, expected, bytes }),
        }
    }
}
