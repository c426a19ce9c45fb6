//! The report of the API and of the command line about the watermark of a file.

use serde::Serialize;

use super::detect;
use crate::decode;

/// The watermark of a file.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// The payload as 16 lower-case hexadecimal digits, as in the answer of the generation.
    pub payload: String,
    /// Whether the first half of the payload names the owner of this server (`provenance.watermark_owner`).
    pub by_this_server: bool,
    /// How many of the 192 bits of the error-correcting code were wrong.
    pub corrected_bits: u32,
    /// By how many standard deviations the markers exceed what a picture without a watermark gives.
    pub score: f32,
    /// The size of the picture in relation to its size when it was marked.
    pub scale: f32,
}

/// The watermark of a PNG, JPEG or WebP file, if it has one. `owner` is the owner of this server. `None` if the file
/// cannot be decoded. Takes up to half a second, so call this function on a blocking thread.
pub fn find(file: &[u8], owner: &str) -> Option<Found> {
    // Transparent parts become white, as in input pictures.
    let found = detect(&decode(file, 255).ok()?)?;
    Some(Found {
        payload: found.payload.to_string(),
        by_this_server: found.payload.is_of(owner),
        corrected_bits: found.corrected,
        score: found.score,
        scale: found.scale,
    })
}
