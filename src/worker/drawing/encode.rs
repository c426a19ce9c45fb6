//! Encodes frames to files: results in the requested format, previews in the fastest format.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{
    diffusion::SamplerLabel,
    generation::{Artifact, Facts, Format, Job, MediaType, Work},
    imaging::{self, EncodeError, encode_picture, upscale},
    pipelines::Frame,
};

/// An encoded result that is not stored yet.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The index of the artifact in its generation.
    pub index: u32,
    pub format: Format,
    pub facts: Facts,
    pub file: Bytes,
}

impl Encoded {
    /// The artifact for the file, which is stored at the path `blob`.
    pub fn stored_at(self, blob: String) -> Artifact {
        let Encoded { index, format, facts, file } = self;
        let sha256 = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
        Artifact { index, media_type: format.into(), bytes: file.len() as u64, sha256, blob, flagged: None, facts }
    }
}

/// Encodes frame `index` of a generation in the requested format. `label` is the sampler's name in other programs, for
/// the metadata of the file. Call this function on a blocking thread.
///
/// # Errors
/// The pixels do not match the picture's size, or the format does not support the size.
pub fn encode(frame: Frame, job: &Job, label: &SamplerLabel, index: u32) -> Result<Encoded, EncodeError> {
    let Work::Draw(draw) = &job.work;
    match frame {
        Frame::Picture(picture) => Ok(Encoded {
            index,
            format: job.output.encoding.format(),
            facts: Facts::Picture { width: picture.width, height: picture.height, seed: draw.seed_of(index) },
            file: encode_picture(&picture, job, label, index)?.into(),
        }),
    }
}

/// Encodes a preview of a result whose longest side has `side` pixels. The preview is enlarged by the largest whole
/// factor that keeps its longest side within `side` and within 256 pixels. A larger preview stays as it is.
///
/// # Errors
/// Those of [`encode`].
pub(super) fn encode_preview(frame: Frame, side: u32) -> Result<(MediaType, Bytes), EncodeError> {
    const MAX_SIDE: u32 = 256;
    match frame {
        Frame::Picture(picture) => {
            let factor = (side.min(MAX_SIDE) / picture.width.max(picture.height).max(1)).max(1);
            let file = imaging::encode_preview(&upscale(&picture, factor))?;
            Ok((imaging::FAST_FORMAT.into(), file.into()))
        }
    }
}
