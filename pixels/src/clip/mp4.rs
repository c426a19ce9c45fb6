//! MP4 files with AV1 video.

use muxide::api::{MuxerConfig, VideoCodec};

use super::{ClipError, Note, av1};
use crate::{RgbImage, encode::xmp};

/// The type of the box that contains XMP (XMP specification part 3, 1.2.7.1).
const XMP_BOX: [u8; 16] =
    [0xbe, 0x7a, 0xcf, 0xcb, 0x97, 0xa9, 0x42, 0xe8, 0x9c, 0x71, 0x99, 0x94, 0x91, 0xe3, 0xaf, 0xac];

/// Encodes at least two frames of one size. The muxer gives a file with one frame no duration.
pub(super) fn encode(frames: &[RgbImage], fps: u32, note: Option<&Note>) -> Result<Vec<u8>, ClipError> {
    let size @ [width, height] = frames.first().map_or([0, 0], |frame| [frame.width, frame.height]);
    let mut file = Vec::new();
    let config = MuxerConfig::new(width, height, fps.into());
    let mut muxer = config.into_builder(&mut file, VideoCodec::Av1).build()?;
    for (index, packet) in (0_u32..).zip(av1::encode(frames, size, fps)?) {
        muxer.write_video(f64::from(index) / f64::from(fps), &packet.data, packet.is_key)?;
    }
    muxer.finish()?;
    if let Some(note) = note {
        let packet = xmp::packet(note.property(), note.json());
        let length = 4 + 4 + XMP_BOX.len() + packet.len();
        file.extend(u32::try_from(length).map_err(|_| ClipError::Long)?.to_be_bytes());
        file.extend(b"uuid");
        file.extend(XMP_BOX);
        file.extend(packet.as_bytes());
    }
    Ok(file)
}
