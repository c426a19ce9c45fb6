//! Encodes sounds with Opus into Ogg files.

use std::borrow::Cow;

use opus_pure::{Application, MAX_PACKET_BYTES, OggOpusWriter, OpusEncoder, OpusHead, OpusTags};

use super::{AudioError, SoundFile, Waveform, resample::resample};
use crate::imaging::Note;

/// The rates that an encoder takes, in samples per second and channel.
const RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];

/// The sample rate of every decoder, in samples per second and channel. Times in a file are numbers of samples at this
/// rate (RFC 7845, section 4).
const RATE: u32 = 48_000;

/// Bits per second of each channel.
const BITRATE: i32 = 64_000;

/// Encodes a sound in packets of 20 milliseconds. A rate that Opus does not have becomes 48000 samples per second. The
/// note is a comment.
pub(super) fn encode(sound: &Waveform, note: Option<&Note>) -> Result<SoundFile, AudioError> {
    let sound = match RATES.contains(&sound.sample_rate) {
        true => Cow::Borrowed(sound),
        false => Cow::Owned(resample(sound, RATE)),
    };
    let (channels, ticks) = (usize::from(sound.channels), RATE / sound.sample_rate);
    let mut encoder = OpusEncoder::new(sound.sample_rate as i32, channels, Application::Audio)?;
    encoder.bitrate_bps = BITRATE * i32::from(sound.channels);
    let head = OpusHead::for_encoder(&encoder, sound.sample_rate);
    let mut tags = OpusTags::new();
    if let Some(note) = note {
        tags.push(&note.property().to_ascii_uppercase(), note.json())?;
    }
    let (skip, samples) = (u64::from(head.pre_skip), sound.length() as u64 * u64::from(ticks));
    let mut writer = OggOpusWriter::with_tags(Vec::new(), head, tags)?;
    let frame = (sound.sample_rate / 50) as usize;
    let (mut block, mut packet) = (vec![0.0; frame * channels], vec![0; MAX_PACKET_BYTES]);
    // The encoder is late by `skip` samples, so silence follows until the last sample has left the encoder. The
    // duration of the last packet then says where the sound ends (RFC 7845, section 4.4).
    let mut rest = sound.samples.as_slice();
    let end = skip + samples;
    while (writer.granule() as u64) < end {
        let (now, later) = rest.split_at(rest.len().min(block.len()));
        rest = later;
        block.fill(0.0);
        // A NaN counts as silence.
        let bounded = now.iter().map(|sample| if sample.is_nan() { 0.0 } else { sample.clamp(-1.0, 1.0) });
        block.iter_mut().zip(bounded).for_each(|(place, sample)| *place = sample);
        let bytes = encoder.encode(&block, frame, &mut packet)?;
        let duration = (end - writer.granule() as u64).min(u64::from(RATE / 50));
        writer.write_packet_with_duration(&packet[..bytes], duration as u32)?;
    }
    Ok(SoundFile { file: writer.finish()?, sample_rate: RATE, samples })
}
