//! Encodes clips, which are frames of one size and rate, into files: MP4, APNG, GIF, animated WebP, or a zip archive of
//! PNG files.

mod apng;
mod av1;
mod gif;
mod level;
mod mp4;
mod webp;
mod yuv;
mod zip;

use crate::{EncodeError, RgbImage};

/// The text in the file of a clip or of a sound about its request, as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The request that makes exactly this clip or this sound again.
    Request(String),
    /// Only the seed.
    Seed(String),
}

impl Note {
    pub fn json(&self) -> &str {
        match self {
            Note::Request(json) | Note::Seed(json) => json,
        }
    }

    /// The name of this note in XMP and in other lists of named texts.
    pub fn property(&self) -> &'static str {
        match self {
            Note::Request(_) => "request",
            Note::Seed(_) => "seed",
        }
    }
}

/// Why a clip cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    #[error("a clip of {frames} frames cannot be encoded in this format, which needs at least {least}")]
    Frames { frames: usize, least: usize },
    #[error("a clip of {0} frames per second cannot be encoded in this format")]
    Rate(u32),
    #[error("frame {index} has {width} × {height} pixels, and frame 0 has another size")]
    Size { index: usize, width: u32, height: u32 },
    #[error("a clip of {width} × {height} pixels cannot be encoded in this format")]
    Sides { width: u32, height: u32 },
    #[error(transparent)]
    Picture(#[from] EncodeError),
    #[error("the clip cannot be encoded: {0}")]
    Gif(#[from] ::gif::EncodingError),
    #[error("the clip cannot be encoded: {0}")]
    Av1(String),
    #[error("the clip cannot be encoded: {0}")]
    Mp4(#[from] muxide::api::MuxerError),
    #[error("the clip cannot be encoded: {0}")]
    Zip(#[from] ::zip::result::ZipError),
    #[error("the clip cannot be encoded: its file would have more than 4 GiB")]
    Long,
}

/// The shortest side of a clip in an MP4 file, in pixels: rav1e encodes no smaller frames.
const MP4_LEAST_SIDE: u32 = 16;

/// Encodes at least two frames as an MP4 file with AV1 video (4:2:0, 8 bits, BT.709, limited range), in which `moov`
/// comes before the frames. The file is lossy. The note is XMP in a `uuid` box at the end. Equal arguments give equal
/// bytes.
///
/// # Errors
/// There are fewer than two frames, a side has fewer than 16 or more than 65535 pixels, the rate is 0,
/// or the frames differ in size.
pub fn encode_mp4(frames: &[RgbImage], fps: u32, note: Option<&Note>) -> Result<Vec<u8>, ClipError> {
    let [width, height] = check(frames, fps, 2)?;
    if width.min(height) < MP4_LEAST_SIDE || width.max(height) > u32::from(u16::MAX) {
        return Err(ClipError::Sides { width, height });
    }
    mp4::encode(frames, fps, note)
}

/// Encodes frames as an animated PNG file, which is exact and repeats forever. The note is a text chunk. Equal
/// arguments give equal bytes.
///
/// # Errors
/// There is no frame, the rate is 0 or above 65535, or the frames differ in size.
pub fn encode_apng(frames: &[RgbImage], fps: u32, note: Option<&Note>) -> Result<Vec<u8>, ClipError> {
    check(frames, fps, 1)?;
    apng::encode(frames, fps, note)
}

/// Encodes frames as a GIF file, which repeats forever and has at most 256 colors per frame. Times are rounded to
/// hundredths of a second, without a growing error. The note is a comment. Equal arguments give equal bytes.
///
/// # Errors
/// There is no frame, the rate is 0 or above 50, a side has more than 65535 pixels, or the frames differ in
/// size.
pub fn encode_gif(frames: &[RgbImage], fps: u32, note: Option<&Note>) -> Result<Vec<u8>, ClipError> {
    let [width, height] = check(frames, fps, 1)?;
    let side = |pixels: u32| u16::try_from(pixels).map_err(|_| ClipError::Sides { width, height });
    gif::encode(frames, [side(width)?, side(height)?], fps, note)
}

/// Encodes frames as an animated lossless WebP file, which repeats forever. Times are rounded to milliseconds, without
/// a growing error. The note is XMP. Equal arguments give equal bytes.
///
/// # Errors
/// There is no frame, the rate is 0 or above 1000, a side has more than 16384 pixels, the frames differ in size, or the
/// file would have more than 4 GiB.
pub fn encode_animated_webp(frames: &[RgbImage], fps: u32, note: Option<&Note>) -> Result<Vec<u8>, ClipError> {
    let size = check(frames, fps, 1)?;
    webp::encode(frames, size, fps, note)
}

/// Encodes frames as a zip archive, without further compression, of the PNG files `0000.png`, `0001.png` and so on,
/// which are exact. The note is the file `request.json` or `seed.json` at the end. Equal arguments give equal bytes.
///
/// # Errors
/// There is no frame, the rate is 0, or the frames differ in size.
pub fn encode_zip(frames: &[RgbImage], fps: u32, note: Option<&Note>) -> Result<Vec<u8>, ClipError> {
    check(frames, fps, 1)?;
    zip::encode(frames, note)
}

/// Checks the number, the sizes and the rate of the frames. Returns their width and height.
fn check(frames: &[RgbImage], fps: u32, least: usize) -> Result<[u32; 2], ClipError> {
    let Some(first) = frames.first().filter(|_| frames.len() >= least) else {
        return Err(ClipError::Frames { frames: frames.len(), least });
    };
    if fps == 0 {
        return Err(ClipError::Rate(fps));
    }
    for (index, frame) in frames.iter().enumerate() {
        frame.check_length()?;
        let (width, height) = (frame.width, frame.height);
        if width != first.width || height != first.height {
            return Err(ClipError::Size { index, width, height });
        }
    }
    Ok([first.width, first.height])
}

/// The times of `count` frames in units of 1/`units` of a second, each from its rounded start to the rounded start of
/// the next frame, so that rounding errors do not add up.
fn durations(count: usize, fps: u32, units: u64) -> impl Iterator<Item = u64> {
    let start = move |index: u64| (index * units + u64::from(fps) / 2) / u64::from(fps);
    (0..count as u64).map(move |index| start(index + 1) - start(index))
}

#[cfg(test)]
mod tests;
