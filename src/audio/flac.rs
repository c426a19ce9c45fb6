//! Encodes sounds into FLAC files.

use flacenc::{bitsink::ByteSink, component::BitRepr, config::Encoder, error::Verify, source::MemSource};

use super::{AudioError, Waveform};
use crate::imaging::Note;

/// The number of a metadata block with Vorbis comments (RFC 9639, section 8.1).
const VORBIS_COMMENT: u8 = 4;

/// Encodes a sound as integers of 16 bits, which are the same as in a WAV file. The note becomes a Vorbis comment.
pub(super) fn encode(sound: &Waveform, note: Option<&Note>) -> Result<Vec<u8>, AudioError> {
    let samples: Vec<i32> = sound.integers().map(i32::from).collect();
    let source = MemSource::from_samples(&samples, sound.channels.into(), 16, sound.sample_rate as usize);
    let config = Encoder::default().into_verified().map_err(|(_, error)| AudioError::Flac(error.to_string()))?;
    let block = config.block_size;
    let encoded = flacenc::encode_with_fixed_block_size(&config, source, block);
    let mut stream = encoded.map_err(|error| AudioError::Flac(error.to_string()))?;
    if let Some(note) = note {
        let block = flacenc::component::MetadataBlockData::new_unknown(VORBIS_COMMENT, &comments(note));
        stream.add_metadata_block(block.map_err(|error| AudioError::Flac(error.to_string()))?);
    }
    let mut sink = ByteSink::new();
    stream.write(&mut sink).map_err(|error| AudioError::Flac(error.to_string()))?;
    Ok(sink.into_inner())
}

/// A list of one Vorbis comment: the vendor's name, the number of comments, and each comment as `NAME=text`. Lengths
/// are numbers of 32 bits.
fn comments(note: &Note) -> Vec<u8> {
    let mut list = Vec::new();
    let add = |list: &mut Vec<u8>, text: &str| {
        list.extend((text.len() as u32).to_le_bytes());
        list.extend(text.as_bytes());
    };
    add(&mut list, "latentd");
    list.extend(1u32.to_le_bytes());
    add(&mut list, &format!("{}={}", note.property().to_ascii_uppercase(), note.json()));
    list
}
