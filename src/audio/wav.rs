//! Encodes sounds into WAV files.

use std::io::Cursor;

use hound::{SampleFormat as Kind, WavSpec, WavWriter};

use super::{AudioError, Waveform};
use crate::{generation::SampleFormat, imaging::Note};

/// Encodes a sound. The note is a comment in a list of information at the end (`LIST`, `INFO`, `ICMT`).
pub(super) fn encode(sound: &Waveform, format: SampleFormat, note: Option<&Note>) -> Result<Vec<u8>, AudioError> {
    let Waveform { sample_rate, channels, ref samples } = *sound;
    let (bits_per_sample, sample_format) = match format {
        SampleFormat::S16 => (16, Kind::Int),
        SampleFormat::F32 => (32, Kind::Float),
    };
    let mut file = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut file, WavSpec { channels, sample_rate, bits_per_sample, sample_format })?;
    match format {
        SampleFormat::S16 => sound.integers().try_for_each(|sample| writer.write_sample(sample))?,
        SampleFormat::F32 => samples.iter().try_for_each(|sample| writer.write_sample(*sample))?,
    }
    writer.finalize()?;
    let mut file = Some(file.into_inner());
    if format == SampleFormat::F32 {
        file = file.and_then(|file| with_fact(file, sound.length()));
    }
    if let Some(note) = note {
        file = file.and_then(|file| with_comment(file, note.json()));
    }
    file.ok_or(AudioError::Length { samples: samples.len(), channels })
}

/// Adds the chunk `fact` with the number of samples of each channel, which the format requires in files that are not
/// plain PCM. The chunk comes before the samples. `None` if the numbers do not fit into 32 bits.
fn with_fact(mut file: Vec<u8>, length: usize) -> Option<Vec<u8>> {
    // After the file's own header of 12 bytes, each chunk has a name, its length and its content.
    let mut at = 12;
    while file.get(at..at + 4).is_some_and(|name| name != b"data") {
        at += 8 + word(&file, at + 4).unwrap_or(0) as usize;
    }
    let (count, whole) = (u32::try_from(length).ok()?, word(&file, 4)?.checked_add(12)?);
    file[4..8].copy_from_slice(&whole.to_le_bytes());
    let at = at.min(file.len());
    file.splice(at..at, [*b"fact", 4u32.to_le_bytes(), count.to_le_bytes()].concat());
    Some(file)
}

/// Adds a list of information with a comment, which ends with a zero and has an even number of bytes. `None` if the
/// length of the file does not fit into 32 bits.
fn with_comment(mut file: Vec<u8>, comment: &str) -> Option<Vec<u8>> {
    let length = comment.len() + 1;
    let padded = length.next_multiple_of(2);
    let (length, list) = (u32::try_from(length).ok()?, u32::try_from(padded + 12).ok()?);
    let whole = word(&file, 4)?.checked_add(list)?.checked_add(8)?;
    file[4..8].copy_from_slice(&whole.to_le_bytes());
    file.extend([*b"LIST", list.to_le_bytes(), *b"INFO", *b"ICMT", length.to_le_bytes()].concat());
    file.extend(comment.as_bytes());
    file.extend(std::iter::repeat_n(0, padded - comment.len()));
    Some(file)
}

/// The number of 32 bits at a place of the file.
fn word(file: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?))
}
