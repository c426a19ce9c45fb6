//! Encodes frames to files: results in the requested format, previews in the fastest format.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::mark::{Marking, mark};
use crate::{
    audio::{AudioError, SoundFile, encode_sound},
    diffusion::SamplerLabel,
    generation::{Artifact, Facts, Format, Job, MediaType},
    hex::hex,
    imaging::{self, ClipError, EncodeError, encode_clip, encode_picture, note_of, upscale},
    pipelines::{Clip, Frame},
};

/// An encoded result that is not stored yet.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The index of the artifact in its generation.
    pub index: u32,
    pub format: Format,
    pub facts: Facts,
    pub file: Bytes,
    /// SHA-256 of the file before it was signed, in lower-case hexadecimal; `None` if it is not signed.
    pub unsigned_sha256: Option<String>,
    /// The payload of the watermark, in lower-case hexadecimal; `None` without a watermark.
    pub watermark: Option<String>,
}

impl Encoded {
    /// The artifact for the file, which is stored at the path `blob`.
    pub fn stored_at(self, blob: String) -> Artifact {
        let Encoded { index, format, facts, file, unsigned_sha256, watermark } = self;
        let (sha256, bytes) = (digest(&file), file.len() as u64);
        Artifact {
            index,
            media_type: format.into(),
            bytes,
            sha256,
            unsigned_sha256,
            watermark,
            blob,
            flagged: None,
            facts,
        }
    }
}

/// SHA-256 in lower-case hexadecimal.
pub(super) fn digest(file: &[u8]) -> String {
    hex(Sha256::digest(file))
}

/// Marks frame `index` of a generation as `marking` says, and encodes it in the requested format. `label` is the
/// sampler's name in other programs, for the metadata of the file. Call this function on a blocking thread.
///
/// # Errors
/// The pixels do not match the picture's size, or the format does not support the frame.
pub fn encode(
    mut frame: Frame,
    job: &Job,
    label: &SamplerLabel,
    index: u32,
    marking: &Marking,
) -> Result<Encoded, FrameError> {
    let watermark = mark(&mut frame, job, index, marking).map(|payload| payload.to_string());
    let (seed, encoding) = (job.work.seed_of(index), job.output.encoding);
    let (file, facts) = match frame {
        Frame::Picture(picture) => {
            let facts = Facts::Picture { width: picture.width, height: picture.height, seed };
            (encode_picture(&picture, job, label, index)?, facts)
        }
        Frame::Sound(sound) => {
            let encoded = encode_sound(&sound, encoding, note_of(job, index).as_ref())?;
            let SoundFile { file, sample_rate, samples } = encoded;
            (file, Facts::Sound { sample_rate, channels: sound.channels.into(), samples, seed })
        }
        Frame::Clip(Clip { frames, fps }) => {
            let (width, height) = frames.first().map_or((0, 0), |frame| (frame.width, frame.height));
            let facts = Facts::Clip { width, height, frames: frames.len() as u32, fps, seed };
            (encode_clip(&frames, fps, job, index)?, facts)
        }
    };
    Ok(Encoded { index, format: encoding.format(), facts, file: file.into(), unsigned_sha256: None, watermark })
}

/// Why a frame cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error(transparent)]
    Picture(#[from] EncodeError),
    #[error(transparent)]
    Sound(#[from] AudioError),
    #[error(transparent)]
    Clip(#[from] ClipError),
    #[error("{0} is not a format of this kind of result")]
    Format(&'static str),
}

/// Encodes a preview of a result whose longest side has `side` pixels. The preview is enlarged by the largest whole
/// factor that keeps its longest side within `side` and within 256 pixels. A larger preview stays as it is.
///
/// # Errors
/// Those of [`encode`].
pub(super) fn encode_preview(frame: Frame, side: u32) -> Result<(MediaType, Bytes), FrameError> {
    const MAX_SIDE: u32 = 256;
    match frame {
        Frame::Picture(picture) => {
            let factor = (side.min(MAX_SIDE) / picture.width.max(picture.height).max(1)).max(1);
            let file = imaging::encode_preview(&upscale(&picture, factor))?;
            Ok((imaging::FAST_FORMAT.into(), file.into()))
        }
        // No family shows previews of sounds, and previews of films are pictures.
        Frame::Sound(_) | Frame::Clip(_) => Err(FrameError::Format(imaging::FAST_FORMAT.name())),
    }
}
