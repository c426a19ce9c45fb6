//! Pictures as bytes: PNG with its parameters, previews.

pub mod png;

pub use png::{EncodeError, encode_png};

/// An 8-bit RGB picture, rows from the top, three bytes a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    pub width: u32,
    pub height: u32,
    /// `3 · width · height` bytes.
    pub pixels: Vec<u8>,
}
