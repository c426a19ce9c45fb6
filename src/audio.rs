//! Sounds as samples and as files.

mod flac;
mod opus;
mod resample;
mod wav;

use crate::{generation::Encoding, imaging::Note};

/// A sound.
#[derive(Clone, Debug, PartialEq)]
pub struct Waveform {
    /// Samples per second and channel.
    pub sample_rate: u32,
    pub channels: u16,
    /// Samples in [-1, 1]. The samples of the channels alternate.
    pub samples: Vec<f32>,
}

/// A file of a sound, and the rate and the number of samples that a decoder makes of it.
#[derive(Clone, Debug)]
pub struct SoundFile {
    pub file: Vec<u8>,
    /// Samples per second and channel.
    pub sample_rate: u32,
    /// Samples of each channel.
    pub samples: u64,
}

/// Why a sound cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    #[error("a sound of {samples} samples and {channels} channels cannot be encoded")]
    Length { samples: usize, channels: u16 },
    #[error("the sound cannot be encoded: {0}")]
    Wav(#[from] hound::Error),
    #[error("the sound cannot be encoded: {0}")]
    Flac(String),
    #[error("the sound cannot be encoded: {0}")]
    Opus(#[from] opus_pure::Error),
    #[error("{0} is not a format of sounds")]
    Format(&'static str),
}

impl Waveform {
    /// The number of samples of each channel.
    pub fn length(&self) -> usize {
        self.samples.len() / usize::from(self.channels.max(1))
    }

    /// The samples as integers of 16 bits: times 32767, rounded. A sample beyond [-1, 1] becomes the nearest bound.
    fn integers(&self) -> impl Iterator<Item = i16> {
        self.samples.iter().map(|sample| (sample.clamp(-1.0, 1.0) * 32767.0).round() as i16)
    }
}

/// Encodes a sound, with a note about its request. Equal arguments give equal bytes on one kind of CPU; WAV files are
/// equal on every machine.
///
/// # Errors
/// The number of samples is no multiple of the number of channels, the format allows less, or it is no format of
/// sounds.
pub fn encode_sound(sound: &Waveform, encoding: Encoding, note: Option<&Note>) -> Result<SoundFile, AudioError> {
    let Waveform { sample_rate, channels, ref samples } = *sound;
    if channels == 0 || samples.len() % usize::from(channels) != 0 {
        return Err(AudioError::Length { samples: samples.len(), channels });
    }
    let file = match encoding {
        Encoding::Wav { sample_format } => wav::encode(sound, sample_format, note)?,
        Encoding::Flac => flac::encode(sound, note)?,
        Encoding::Opus => return opus::encode(sound, note),
        _ => return Err(AudioError::Format(encoding.format().name())),
    };
    Ok(SoundFile { file, sample_rate, samples: sound.length() as u64 })
}

#[cfg(test)]
mod tests;
