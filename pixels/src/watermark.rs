//! An invisible watermark: 64 bits in the pixels of a picture, which survive JPEG, WebP, resizing, cropping, and
//! changes of brightness and contrast.
//!
//! The scheme is dither modulation (Chen and Wornell, "Quantization index modulation", IEEE Transactions on Information
//! Theory 47, 2001) of the three lowest frequencies that are not constant, in blocks of 8 × 8 pixels of the luminance.
//! Each of the three coefficients is moved to the nearest point of a lattice with a step of 34. There are two lattices,
//! half a step apart: a point of the first stands for the bit 0, a point of the second for the bit 1. So the content of
//! the picture is no noise for the detector, as it would be with an added pattern. A pseudorandom offset (the dither)
//! moves the lattices of each coefficient. The offsets repeat every 72 pixels, so a crop is a shift of the tile, and
//! the detector finds the shift by the markers, which are the coefficients that always stand for 0. `docs/watermark.md`
//! has the figures.

mod code;
mod detect;
mod embed;
mod fold;
mod found;
mod layout;
mod plane;
mod search;
mod transform;
mod trellis;

use std::fmt;

use sha2::{Digest, Sha256};

use crate::RgbImage;
use plane::Plane;

pub use found::{Found, find};

/// The distance between two lattice points of the same bit, in levels of luminance times 8 (the coefficients come from
/// the orthonormal discrete cosine transform of 8 × 8 pixels). The mean squared error of the mark is about `3 · STEP² /
/// 12 / 64`, which is a PSNR of 41 dB.
const STEP: f32 = 34.0;

/// What the watermark says: 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Payload(u64);

impl Payload {
    /// The payload of a picture that `owner` made for `request`: the first 32 bits of the SHA-256 of each text.
    pub fn of(owner: &str, request: &str) -> Payload {
        Payload(u64::from(prefix(owner)) << 32 | u64::from(prefix(request)))
    }

    /// The payload with these 64 bits.
    pub fn from_bits(bits: u64) -> Payload {
        Payload(bits)
    }

    /// All 64 bits: the owner's first, then the request's.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Whether the first half names this owner. By chance, this is so for one of 2³² other owners.
    pub fn is_of(self, owner: &str) -> bool {
        (self.0 >> 32) as u32 == prefix(owner)
    }
}

/// 16 lower-case hexadecimal digits.
impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The first 32 bits of the SHA-256 of a text.
fn prefix(text: &str) -> u32 {
    Sha256::digest(text).iter().take(4).fold(0, |bits, byte| bits << 8 | u32::from(*byte))
}

/// A watermark that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detected {
    pub payload: Payload,
    /// How many of the 192 bits of the error-correcting code were wrong.
    pub corrected: u32,
    /// By how many standard deviations the markers exceed what a picture without a watermark gives.
    pub score: f32,
    /// The size of the picture in relation to its size when it was marked: 0.5 for half the width.
    pub scale: f32,
}

/// Writes the watermark into the pixels. The PSNR is about 41 dB. The result depends on the picture and the payload
/// alone: not on the machine or the number of threads. Columns and rows beyond a multiple of 8 stay unchanged. Pictures
/// that are smaller than 72 × 72 pixels get an incomplete mark, which [`detect`] may not find.
pub fn embed(picture: &mut RgbImage, payload: Payload) {
    embed::embed([picture.width, picture.height].map(|side| side as usize), &mut picture.pixels, payload);
}

/// The watermark of the picture, if it has one. The probability that this function finds one in a picture that has none
/// is at most 32 · 2⁻³² (8 · 10⁻⁹), because at most 32 candidates are decoded, and each must pass a check of 32 bits.
pub fn detect(picture: &RgbImage) -> Option<Detected> {
    search::search(&Plane::luminance(picture.width as usize, &picture.pixels))
}

#[cfg(test)]
mod tests;
