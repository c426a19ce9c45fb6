//! Pictures as pixels and as bytes: decoding of input pictures, encoding of finished pictures, clips and previews,
//! resizing, masks, edges and the invisible [`watermark`].
//!
//! Loops over pixels are here and not in latentd's main crate, because this crate compiles with full optimization in
//! every build profile. It knows nothing of generations: latentd's module `imaging` chooses the format and the metadata
//! of a file.

mod canny;
mod clip;
mod encode;
mod exif;
mod input;
mod jpeg;
mod mask;
mod orientation;
mod preview;
mod resize;
mod simd;
mod texts;
pub mod watermark;

pub use canny::canny;
pub use clip::{ClipError, Note, encode_animated_webp, encode_apng, encode_gif, encode_mp4, encode_zip};
pub use encode::{EncodeError, Metadata, encode_jpeg, encode_png, encode_webp, png::encode_fast};
pub use input::{DecodeError, MAX_PIXELS, alpha_channel, decode, decode_transparency, size};
pub use mask::{composite, grey};
pub use preview::{encode_preview, upscale};
pub use resize::{Filter, resize, resize_with};
pub use texts::infotext_of;

/// A picture with 8 bits per channel. Rows run from top to bottom, and the C channels of a pixel are adjacent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels<const C: usize> {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `C · width · height` bytes.
    pub pixels: Vec<u8>,
}

/// A picture with red, green and blue channels (sRGB).
pub type RgbImage = Pixels<3>;
/// A picture with one channel.
pub type GreyImage = Pixels<1>;

impl GreyImage {
    /// The picture with the same level in all three channels.
    pub fn to_rgb(&self) -> RgbImage {
        let pixels = self.pixels.iter().flat_map(|level| [*level; 3]).collect();
        RgbImage { width: self.width, height: self.height, pixels }
    }
}

impl<const C: usize> Pixels<C> {
    /// The number of bytes that `pixels` must have; saturates for sizes that no memory holds.
    fn expected_bytes(&self) -> u64 {
        (u64::from(self.width) * u64::from(self.height)).saturating_mul(C as u64)
    }

    /// Replaces the rectangle whose upper left corner is (x, y) by `part`, which must fit.
    pub fn with_part(mut self, [x, y]: [u32; 2], part: &Pixels<C>) -> Pixels<C> {
        let line = C * self.width as usize;
        let (from, to) = (C * x as usize, C * (x + part.width) as usize);
        let lines = self.pixels.chunks_exact_mut(line).skip(y as usize);
        for (line, new) in lines.zip(part.pixels.chunks_exact(C * part.width as usize)) {
            line[from..to].copy_from_slice(new);
        }
        self
    }

    /// The rectangle whose upper left corner is (x, y); it must lie inside the picture.
    pub fn cropped(&self, [x, y, width, height]: [u32; 4]) -> Pixels<C> {
        let line = C * self.width as usize;
        let (from, to) = (C * x as usize, C * (x + width) as usize);
        let lines = self.pixels.chunks_exact(line).skip(y as usize).take(height as usize);
        Pixels { width, height, pixels: lines.flat_map(|line| &line[from..to]).copied().collect() }
    }
}
