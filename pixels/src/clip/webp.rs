//! Animated lossless WebP files: the lossless chunks of single pictures in the chunks of an animation (RFC 9649, 2.7).

use image_webp::{ColorType, WebPEncoder};

use super::{ClipError, Note, durations};
use crate::{EncodeError, RgbImage, encode::xmp};

/// The flags of the chunk VP8X.
const ANIMATION: u8 = 1 << 1;
const XMP: u8 = 1 << 2;
/// The header of a WebP file with one picture, before its first chunk: `RIFF`, the size and `WEBP`.
const RIFF_HEADER: usize = 12;
/// A frame overwrites the previous one, and does not blend with it.
const REPLACE: u8 = 1 << 1;
/// The longest side that the lossless encoder takes.
const LONGEST: u32 = 16_384;

pub(super) fn encode(
    frames: &[RgbImage],
    [width, height]: [u32; 2],
    fps: u32,
    note: Option<&Note>,
) -> Result<Vec<u8>, ClipError> {
    if fps > 1000 {
        return Err(ClipError::Rate(fps));
    }
    if width.min(height) == 0 || width.max(height) > LONGEST {
        return Err(ClipError::Sides { width, height });
    }
    let mut body = b"WEBP".to_vec();
    let flags = ANIMATION | if note.is_some() { XMP } else { 0 };
    push(&mut body, *b"VP8X", &[&[flags, 0, 0, 0][..], &less_one(width), &less_one(height)])?;
    // A background that readers may ignore, and 0 for endless repetition.
    push(&mut body, *b"ANIM", &[&[0; 4], &[0; 2]])?;
    for (frame, milliseconds) in frames.iter().zip(durations(frames.len(), fps, 1000)) {
        let mut still = Vec::new();
        let encoded = WebPEncoder::new(&mut still).encode(&frame.pixels, width, height, ColorType::Rgb8);
        encoded.map_err(EncodeError::Webp)?;
        let place = [0; 6];
        let duration = u24(milliseconds as u32); // at most 1000, as fps is at least 1
        let header: &[&[u8]] =
            &[&place, &less_one(width), &less_one(height), &duration, &[REPLACE], &still[RIFF_HEADER..]];
        push(&mut body, *b"ANMF", header)?;
    }
    if let Some(note) = note {
        push(&mut body, *b"XMP ", &[xmp::packet(note.property(), note.json()).as_bytes()])?;
    }
    let mut file = Vec::with_capacity(8 + body.len());
    push(&mut file, *b"RIFF", &[&body])?;
    Ok(file)
}

/// Appends a chunk: its name, its length, its parts, and a zero if the length is odd.
fn push(file: &mut Vec<u8>, name: [u8; 4], parts: &[&[u8]]) -> Result<(), ClipError> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    file.extend(name);
    file.extend(u32::try_from(length).map_err(|_| ClipError::Long)?.to_le_bytes());
    parts.iter().for_each(|part| file.extend(*part));
    file.extend((length % 2 == 1).then_some(0));
    Ok(())
}

fn less_one(side: u32) -> [u8; 3] {
    u24(side - 1)
}

fn u24(number: u32) -> [u8; 3] {
    let [a, b, c, _] = number.to_le_bytes();
    [a, b, c]
}
