//! Frames: the results of a run before they are encoded as files.

use std::slice;

use crate::{audio::Waveform, imaging::RgbImage};

/// A result of a run, or a preview of a result.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    Picture(RgbImage),
    Sound(Waveform),
    Clip(Clip),
}

/// The pictures of a film, all of one size, in the order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Clip {
    pub frames: Vec<RgbImage>,
    /// Frames per second.
    pub fps: u32,
}

impl Clip {
    /// Adds a picture of `width` × `height` pixels, as of [`Frame::picture`].
    pub fn add(&mut self, width: usize, height: usize, pixels: Vec<u8>) {
        self.frames.push(RgbImage { width: width as u32, height: height as u32, pixels });
    }
}

impl Frame {
    /// A picture of `width` × `height` pixels. `pixels` holds 3 bytes (red, green, blue) for each pixel, line by line
    /// from the top.
    pub fn picture(width: usize, height: usize, pixels: Vec<u8>) -> Frame {
        Frame::Picture(RgbImage { width: width as u32, height: height as u32, pixels })
    }

    /// The picture, the pictures of a clip, or none for a sound.
    pub fn pictures(&self) -> &[RgbImage] {
        match self {
            Frame::Picture(picture) => slice::from_ref(picture),
            Frame::Clip(clip) => &clip.frames,
            Frame::Sound(_) => &[],
        }
    }

    /// [`Frame::pictures`], to change them.
    pub fn pictures_mut(&mut self) -> &mut [RgbImage] {
        match self {
            Frame::Picture(picture) => slice::from_mut(picture),
            Frame::Clip(clip) => &mut clip.frames,
            Frame::Sound(_) => &mut [],
        }
    }

    /// Changes a picture; a sound or a clip stays as it is.
    pub fn map_picture(self, change: impl FnOnce(RgbImage) -> RgbImage) -> Frame {
        match self {
            Frame::Picture(picture) => Frame::Picture(change(picture)),
            other @ (Frame::Sound(_) | Frame::Clip(_)) => other,
        }
    }
}
