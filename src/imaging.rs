//! Pictures as bytes: what clients send, what they get, previews.

mod canny;
mod encode;
mod infotext;
mod input;
mod jpeg;
mod mask;
mod metadata;
mod orientation;
pub mod preview;
mod resize;

pub use canny::canny;
pub use encode::{
    EncodeError, encode, encode_picture,
    png::{FAST_FORMAT, encode_fast},
};
pub use input::{DecodeError, MAX_PIXELS, decode, size};
pub use mask::{grey, laid_over};
pub use metadata::Metadata;
pub use preview::{encode_preview, upscale};
pub use resize::resize;

/// A picture of 8 bits a channel, rows from the top, the C channels of a pixel side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels<const C: usize> {
    pub width: u32,
    pub height: u32,
    /// `C · width · height` bytes.
    pub pixels: Vec<u8>,
}

pub type RgbImage = Pixels<3>;
pub type GreyImage = Pixels<1>;

impl GreyImage {
    /// The same levels in all channels.
    pub fn to_rgb(&self) -> RgbImage {
        let pixels = self.pixels.iter().flat_map(|level| [*level; 3]).collect();
        RgbImage { width: self.width, height: self.height, pixels }
    }
}

impl<const C: usize> Pixels<C> {
    /// How many bytes `pixels` must have; for absurd sizes more than any memory has.
    fn expected_bytes(&self) -> u64 {
        (u64::from(self.width) * u64::from(self.height)).saturating_mul(C as u64)
    }

    /// The picture with `part` set into it, its upper left corner at (x, y); it must fit.
    pub fn with_part(mut self, [x, y]: [u32; 2], part: &Pixels<C>) -> Pixels<C> {
        let line = C * self.width as usize;
        let (from, to) = (C * x as usize, C * (x + part.width) as usize);
        let lines = self.pixels.chunks_exact_mut(line).skip(y as usize);
        for (line, new) in lines.zip(part.pixels.chunks_exact(C * part.width as usize)) {
            line[from..to].copy_from_slice(new);
        }
        self
    }

    /// The part with its upper left corner at (x, y), which must lie inside.
    pub fn cropped(&self, [x, y, width, height]: [u32; 4]) -> Pixels<C> {
        let line = C * self.width as usize;
        let (from, to) = (C * x as usize, C * (x + width) as usize);
        let lines = self.pixels.chunks_exact(line).skip(y as usize).take(height as usize);
        Pixels { width, height, pixels: lines.flat_map(|line| &line[from..to]).copied().collect() }
    }
}
