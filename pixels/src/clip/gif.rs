//! GIF files, with one palette per frame.

use ::gif::{AnyExtension, Encoder, Extension, Frame, Repeat};

use super::{ClipError, Note, durations};
use crate::RgbImage;

/// Maximum frames per second of a GIF: browsers show frames of less than 1/50 s for 1/10 s.
const GIF_FPS: u32 = 50;

/// The compromise of NeuQuant between quality (1) and speed (30) that the crate recommends.
const SPEED: i32 = 10;

pub(super) fn encode(
    frames: &[RgbImage],
    [width, height]: [u16; 2],
    fps: u32,
    note: Option<&Note>,
) -> Result<Vec<u8>, ClipError> {
    if fps > GIF_FPS {
        return Err(ClipError::Rate(fps));
    }
    if width == 0 || height == 0 {
        return Err(ClipError::Sides { width: width.into(), height: height.into() });
    }
    let mut encoder = Encoder::new(Vec::new(), width, height, &[])?;
    encoder.set_repeat(Repeat::Infinite)?;
    if let Some(note) = note {
        encoder.write_raw_extension(AnyExtension(Extension::Comment as u8), &[note.json().as_bytes()])?;
    }
    for (frame, delay) in frames.iter().zip(durations(frames.len(), fps, 100)) {
        let mut frame = Frame::from_rgb_speed(width, height, &frame.pixels, SPEED);
        frame.delay = delay as u16; // at most 100 hundredths, as fps is at least 1
        encoder.write_frame(&frame)?;
    }
    Ok(encoder.into_inner()?)
}
