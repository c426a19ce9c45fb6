//! What a run ends with, before it is encoded.

use crate::imaging::RgbImage;

/// One raw result of a run, or a rough look at one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Picture(RgbImage),
}

impl Frame {
    /// A picture of `width` × `height` pixels. `pixels` holds 3 bytes (red, green, blue) for each, rows from the top.
    pub fn picture(width: usize, height: usize, pixels: Vec<u8>) -> Frame {
        Frame::Picture(RgbImage { width: width as u32, height: height as u32, pixels })
    }
}
