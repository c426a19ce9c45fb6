//! Encodes sounds into WAV files.

use std::io::Cursor;

use hound::{SampleFormat as Kind, WavSpec, WavWriter};

use super::Waveform;
use crate::generation::SampleFormat;

/// Why a sound cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    #[error("the sound cannot be encoded: {0}")]
    Wav(#[from] hound::Error),
    #[error("a sound of {samples} samples and {channels} channels cannot be encoded")]
    Length { samples: usize, channels: u16 },
}

/// Encodes a sound. Equal arguments give equal bytes on every machine. Integers are the samples times 32767, rounded; a
/// sample beyond [-1, 1] is set to the nearest bound.
///
/// # Errors
/// The number of samples is no multiple of the number of channels, or the file would be longer than 4 GiB.
pub fn encode_wav(sound: &Waveform, format: SampleFormat) -> Result<Vec<u8>, AudioError> {
    let Waveform { sample_rate, channels, ref samples } = *sound;
    if channels == 0 || samples.len() % usize::from(channels) != 0 {
        return Err(AudioError::Length { samples: samples.len(), channels });
    }
    let (bits_per_sample, sample_format) = match format {
        SampleFormat::S16 => (16, Kind::Int),
        SampleFormat::F32 => (32, Kind::Float),
    };
    let mut file = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut file, WavSpec { channels, sample_rate, bits_per_sample, sample_format })?;
    for sample in samples {
        match format {
            SampleFormat::S16 => writer.write_sample(integer(*sample))?,
            SampleFormat::F32 => writer.write_sample(*sample)?,
        }
    }
    writer.finalize()?;
    let file = file.into_inner();
    match format {
        SampleFormat::S16 => Ok(file),
        SampleFormat::F32 => {
            with_fact(file, sound.length()).ok_or(AudioError::Length { samples: samples.len(), channels })
        }
    }
}

/// Adds the chunk `fact` with the number of samples of each channel, which the format requires in files that are not
/// plain PCM. The chunk comes before the samples. `None` if the numbers do not fit into 32 bits.
fn with_fact(mut file: Vec<u8>, length: usize) -> Option<Vec<u8>> {
    // After the file's own header of 12 bytes, each chunk has a name, its length and its content.
    let word =
        |file: &[u8], at: usize| -> Option<u32> { Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?)) };
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

fn integer(sample: f32) -> i16 {
    (sample.clamp(-1.0, 1.0) * 32767.0).round() as i16
}

#[cfg(test)]
mod tests {
    use hound::WavReader;

    use super::*;

    fn sound(samples: Vec<f32>) -> Waveform {
        Waveform { sample_rate: 16_000, channels: 1, samples }
    }

    #[test]
    fn floats_survive_exactly() {
        let samples = vec![0.0, 1.0, -1.0, 0.1, -3.5e-9, f32::MIN_POSITIVE];
        let file = encode_wav(&sound(samples.clone()), SampleFormat::F32).unwrap();
        assert_eq!(u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize, file.len() - 8, "the length is right");
        let fact = file.windows(4).position(|name| name == b"fact").unwrap();
        assert_eq!(file[fact + 4..fact + 12], [4, 0, 0, 0, 6, 0, 0, 0], "6 samples of a channel");
        assert_eq!(&file[fact + 12..fact + 16], b"data");
        let mut reader = WavReader::new(&file[..]).unwrap();
        assert_eq!((reader.spec().sample_rate, reader.spec().channels, reader.duration()), (16_000, 1, 6));
        assert_eq!(reader.samples::<f32>().map(Result::unwrap).collect::<Vec<_>>(), samples);
    }

    #[test]
    fn integers_are_rounded_and_bounded() {
        let samples = vec![0.0, 1.0, -1.0, 2.0, -2.0, 0.51 / 32767.0, 0.49 / 32767.0, f32::NAN];
        let file = encode_wav(&sound(samples), SampleFormat::S16).unwrap();
        let mut reader = WavReader::new(&file[..]).unwrap();
        let read: Vec<i16> = reader.samples::<i16>().map(Result::unwrap).collect();
        assert_eq!(read, [0, 32767, -32767, 32767, -32767, 1, 0, 0]);
        assert_eq!(file.len(), 44 + 16, "a plain header and 2 bytes for each sample");
    }

    #[test]
    fn channels_divide_the_samples() {
        let odd = Waveform { channels: 2, ..sound(vec![0.0; 3]) };
        assert!(matches!(encode_wav(&odd, SampleFormat::F32), Err(AudioError::Length { samples: 3, channels: 2 })));
        let stereo = Waveform { channels: 2, ..sound(vec![0.25, -0.25, 0.5, -0.5]) };
        assert_eq!(stereo.length(), 2);
        let file = encode_wav(&stereo, SampleFormat::F32).unwrap();
        assert_eq!(WavReader::new(&file[..]).unwrap().duration(), 2);
        assert!(encode_wav(&sound(Vec::new()), SampleFormat::S16).is_ok(), "a sound may be empty");
    }
}
