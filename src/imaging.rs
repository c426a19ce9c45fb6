//! Pictures as bytes: PNG with its parameters, previews.

mod infotext;
pub mod png;
pub mod preview;

pub use png::{EncodeError, encode_png};
pub use preview::{encode_preview, upscale};

/// An 8-bit RGB picture, rows from the top, three bytes a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    pub width: u32,
    pub height: u32,
    /// `3 · width · height` bytes.
    pub pixels: Vec<u8>,
}

impl RgbImage {
    /// How many bytes `pixels` must have; for absurd sizes more than any memory has.
    fn expected_bytes(&self) -> u64 {
        (u64::from(self.width) * u64::from(self.height)).saturating_mul(3)
    }
}
