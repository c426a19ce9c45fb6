//! Frames: the results of a run before they are encoded as files.

use crate::imaging::RgbImage;

/// A result of a run, or a preview of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Picture(RgbImage),
}

impl Frame {
    /// A picture of `width` × `height` pixels. `pixels` holds 3 bytes (red, green, blue) for each pixel, line by line
    /// from the top.
    pub fn picture(width: usize, height: usize, pixels: Vec<u8>) -> Frame {
        Frame::Picture(RgbImage { width: width as u32, height: height as u32, pixels })
    }
}
