//! The frames of a run as files: the one place above the encoders where their formats are known.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{
    diffusion::SamplerLabel,
    generation::{Artifact, Facts, Format, Job, MediaType, Work},
    imaging::{self, EncodeError, encode_picture, upscale},
    pipelines::Frame,
};

/// A result that is encoded and not stored yet.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub index: u32,
    pub format: Format,
    pub facts: Facts,
    pub file: Bytes,
}

impl Encoded {
    /// The artifact whose file lies at this path of the blob store.
    pub fn stored_at(self, blob: String) -> Artifact {
        let Encoded { index, format, facts, file } = self;
        let sha256 = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
        Artifact { index, media_type: format.into(), bytes: file.len() as u64, sha256, blob, facts }
    }
}

/// Encodes frame `index` of a generation in the format that its request asks for; `label` is what other programs call its
/// sampler. Takes too long for a thread that others wait for.
///
/// # Errors
/// The frame has another size than it says, none, or one that the format does not take.
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

/// Encodes a rough look at a result whose longest side is `side` pixels: as large as the result, but no larger than an event
/// stream should carry.
///
/// # Errors
/// As [`encode`].
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
