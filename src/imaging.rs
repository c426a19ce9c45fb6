//! Encodes pictures and films. The crate `latentd-pixels` decodes and encodes files, and computes with pixels. This
//! module adds what depends on generations: the format of a file, and the metadata that say how the result was made.

mod clip;
mod infotext;
mod metadata;

use latentd_pixels::{encode_jpeg, encode_png, encode_webp};

use crate::{
    diffusion::SamplerLabel,
    generation::{Encoding, Format, Job},
};

pub use clip::encode_clip;
pub use latentd_pixels::{
    ClipError, DecodeError, EncodeError, Filter, GreyImage, MAX_PIXELS, Metadata, Note, Pixels, RgbImage,
    alpha_channel, canny, composite, decode, decode_transparency, encode_fast, encode_preview, grey, infotext_of,
    resize, resize_with, size, upscale,
};
pub use metadata::{metadata_of, note_of, request_text};

/// The format of [`encode_fast`].
pub const FAST_FORMAT: Format = Format::Png;

/// Encodes image `index` of a generation with the format and the metadata that its request chooses. `label` has the
/// names that other programs give to the sampler.
///
/// # Errors
/// As [`encode`].
pub fn encode_picture(image: &RgbImage, job: &Job, label: &SamplerLabel, index: u32) -> Result<Vec<u8>, EncodeError> {
    encode(image, job.output.encoding, &metadata_of(job, label, index))
}

/// Encodes an sRGB picture with 8 bits per channel. Equal arguments give equal bytes on every machine.
///
/// # Errors
/// [`EncodeError::Length`] if the number of pixels does not match the size; [`EncodeError::TooLarge`] if a side is too
/// long for JPEG; [`EncodeError::Format`] if the format is for sounds or films. Other errors, such as the error of a
/// side of 0, come from the encoder of the format.
pub fn encode(image: &RgbImage, encoding: Encoding, metadata: &Metadata) -> Result<Vec<u8>, EncodeError> {
    match encoding {
        Encoding::Png => encode_png(image, metadata),
        Encoding::Jpeg { quality } => encode_jpeg(image, quality, metadata),
        Encoding::Webp => encode_webp(image, metadata),
        _ => Err(EncodeError::Format(encoding.format().name())),
    }
}
