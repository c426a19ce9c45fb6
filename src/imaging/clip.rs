//! Encodes clips, with the metadata that say how they were made.

use latentd_pixels::{
    ClipError, EncodeError, RgbImage, encode_animated_webp, encode_apng, encode_gif, encode_mp4, encode_zip,
};

use super::note_of;
use crate::generation::{Encoding, Job};

/// Encodes the frames of clip `index` of a generation with the format and the metadata that its request chooses. Equal
/// arguments give equal bytes on every machine.
///
/// # Errors
/// There are no frames, the format does not support their size or rate, or the format is not one for films.
pub fn encode_clip(frames: &[RgbImage], fps: u32, job: &Job, index: u32) -> Result<Vec<u8>, ClipError> {
    let encode = match job.output.encoding {
        Encoding::Mp4 => encode_mp4,
        Encoding::Zip => encode_zip,
        Encoding::Apng => encode_apng,
        Encoding::Gif => encode_gif,
        Encoding::Webp => encode_animated_webp,
        encoding => return Err(EncodeError::Format(encoding.format().name()).into()),
    };
    encode(frames, fps, note_of(job, index).as_ref())
}
