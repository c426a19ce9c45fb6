//! Tests of sound files.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use hound::WavReader;
use opus_pure::{MAX_PACKET_SAMPLES, OggOpusReader, Trim};

use super::*;
use crate::generation::SampleFormat;

fn sound(samples: Vec<f32>) -> Waveform {
    Waveform { sample_rate: 16_000, channels: 1, samples }
}

#[test]
fn floats_survive_exactly() {
    let samples = vec![0.0, 1.0, -1.0, 0.1, -3.5e-9, f32::MIN_POSITIVE];
    let file = wav(&sound(samples.clone()), SampleFormat::F32).unwrap();
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
    let file = wav(&sound(samples), SampleFormat::S16).unwrap();
    let mut reader = WavReader::new(&file[..]).unwrap();
    let read: Vec<i16> = reader.samples::<i16>().map(Result::unwrap).collect();
    assert_eq!(read, [0, 32767, -32767, 32767, -32767, 1, 0, 0]);
    assert_eq!(file.len(), 44 + 16, "a plain header and 2 bytes for each sample");
}

#[test]
fn channels_divide_the_samples() {
    let odd = Waveform { channels: 2, ..sound(vec![0.0; 3]) };
    assert!(matches!(wav(&odd, SampleFormat::F32), Err(AudioError::Length { samples: 3, channels: 2 })));
    let stereo = Waveform { channels: 2, ..sound(vec![0.25, -0.25, 0.5, -0.5]) };
    assert_eq!(stereo.length(), 2);
    let file = wav(&stereo, SampleFormat::F32).unwrap();
    assert_eq!(WavReader::new(&file[..]).unwrap().duration(), 2);
    assert!(wav(&sound(Vec::new()), SampleFormat::S16).is_ok(), "a sound may be empty");
}

fn wav(sound: &Waveform, sample_format: SampleFormat) -> Result<Vec<u8>, AudioError> {
    Ok(encode_sound(sound, Encoding::Wav { sample_format }, None)?.file)
}

fn note() -> Note {
    Note::Request(r#"{"prompt":"Regen auf Blech, größer"}"#.to_owned())
}

/// A tone of 440 Hz in the first channel and of 660 Hz in the second one.
fn tones(sample_rate: u32, channels: u16, length: usize) -> Waveform {
    let tone = |channel: u16, index: usize| {
        let pitch = 440.0 + 220.0 * f64::from(channel);
        (0.5 * (index as f64 / f64::from(sample_rate) * pitch * std::f64::consts::TAU).sin()) as f32
    };
    let samples = (0..length).flat_map(|index| (0..channels).map(move |channel| tone(channel, index)));
    Waveform { sample_rate, channels, samples: samples.collect() }
}

/// 10 · log₁₀ of the energy of `expected` divided by the energy of the difference.
fn decibels(made: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(made.len(), expected.len());
    let energy = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|number| number * number).sum::<f64>();
    let difference = energy(&mut made.iter().zip(expected).map(|(a, b)| f64::from(a - b)));
    10.0 * (energy(&mut expected.iter().map(|number| f64::from(*number))) / difference).log10()
}

/// The samples of an Opus file at 48,000 per second and channel.
fn opus_samples(file: &[u8]) -> Vec<f32> {
    let mut reader = OggOpusReader::new(file).unwrap();
    let channels = usize::from(reader.head().channel_count);
    let mut decoder = reader.head().decoder(48_000).unwrap();
    let mut trim = Trim::new(reader.head(), 48_000, channels).unwrap();
    let (mut samples, mut block) = (Vec::new(), vec![0.0; MAX_PACKET_SAMPLES * channels]);
    while let Some(packet) = reader.read_packet().unwrap() {
        let length = decoder.decode(&packet.data, MAX_PACKET_SAMPLES, &mut block).unwrap();
        samples.extend(trim.keep(&packet, &block[..length * channels]));
    }
    samples
}

#[test]
fn a_wav_file_tells_its_request() {
    for (format, plain) in [(SampleFormat::S16, 44 + 6), (SampleFormat::F32, 68 + 12 + 12)] {
        for text in ["1", "12"] {
            let tones = tones(8_000, 1, 3);
            let encoding = Encoding::Wav { sample_format: format };
            let file = encode_sound(&tones, encoding, Some(&Note::Seed(text.to_owned()))).unwrap().file;
            assert_eq!(
                u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize,
                file.len() - 8,
                "the length is right"
            );
            assert_eq!(file.len() % 2, 0);
            let list = file.windows(4).position(|name| name == b"LIST").unwrap();
            assert_eq!(list, plain, "{format:?}");
            assert_eq!(&file[list + 8..list + 16], b"INFOICMT");
            assert_eq!(file[list + 16], text.len() as u8 + 1);
            assert!(file[list + 20..].starts_with(text.as_bytes()) && file.ends_with(&[0]));
            assert_eq!(WavReader::new(&file[..]).unwrap().duration(), 3);
        }
    }
}

#[test]
fn an_opus_file_has_exactly_the_samples_of_the_sound() {
    for (rate, channels, length) in [
        (48_000, 2, 1),
        (48_000, 1, 960),
        (48_000, 2, 47_999),
        (44_100, 2, 44_100),
        (44_100, 1, 12_345),
        (44_100, 1, 1),
        (16_000, 1, 16_001),
        (8_000, 1, 800),
        (22_050, 2, 5_000),
        (96_000, 1, 9_601),
        (1_000, 1, 100),
    ] {
        let tones = tones(rate, channels, length);
        let SoundFile { file, sample_rate, samples } = encode_sound(&tones, Encoding::Opus, Some(&note())).unwrap();
        let expected = (length as u64 * 48_000).div_ceil(rate.into());
        assert_eq!((sample_rate, samples), (48_000, expected), "{length} at {rate}");
        let read = opus_samples(&file);
        assert_eq!(read.len() as u64, expected * u64::from(channels), "{length} at {rate}");
        let reader = OggOpusReader::new(&file[..]).unwrap();
        assert_eq!(reader.tags().get("request"), Some(note().json()));
        assert!(encode_sound(&tones, Encoding::Opus, Some(&note())).unwrap().file == file, "equal bytes");
        if length >= 12_000 {
            let original = self::tones(48_000, channels, expected as usize);
            let decibels = decibels(&read, &original.samples);
            println!("{length} at {rate}: {decibels:.1} dB");
            assert!(decibels > 35.0, "{length} at {rate}: {decibels:.1} dB");
        }
    }
}

#[test]
fn strange_samples_make_no_strange_opus_file() {
    let samples = vec![f32::NAN, f32::INFINITY, -9.0, 1e-30];
    let file = encode_sound(&sound(samples), Encoding::Opus, None).unwrap().file;
    assert!(opus_samples(&file).iter().all(|sample| sample.is_finite()));
    let silent = encode_sound(&sound(vec![0.0; 4000]), Encoding::Opus, None).unwrap().file;
    assert!(opus_samples(&silent).iter().all(|sample| sample.abs() < 1e-3));
}

#[test]
fn resampling_keeps_tones_and_removes_what_the_new_rate_lacks() {
    for (from, to) in [(44_100, 48_000), (48_000, 44_100), (22_050, 48_000), (96_000, 48_000)] {
        let length = from as usize / 2;
        let made = resample::resample(&tones(from, 2, length), to);
        let expected = tones(to, 2, made.length());
        assert_eq!(made.length() as u64, (length as u64 * u64::from(to)).div_ceil(from.into()));
        // At both ends, the filter sees the silence beyond the sound.
        let middle = 2 * 300..made.samples.len() - 2 * 300;
        let decibels = decibels(&made.samples[middle.clone()], &expected.samples[middle]);
        println!("{from} to {to}: {decibels:.1} dB");
        assert!(decibels > 90.0, "{from} to {to}: {decibels:.1} dB");
    }
    // A tone of 30,000 Hz does not exist at 48,000 samples per second.
    let high = (0..9_600).map(|index| (f64::from(index) / 96_000.0 * 30_000.0 * std::f64::consts::TAU).sin() as f32);
    let high = Waveform { sample_rate: 96_000, channels: 1, samples: high.collect() };
    let made = resample::resample(&high, 48_000);
    assert!(made.samples[300..4_500].iter().all(|sample| sample.abs() < 1e-4));
}

/// Compares with what FFmpeg reads, if ffmpeg and ffprobe are installed: the samples, the rate, the channels, and the
/// note.
#[test]
fn ffmpeg_decodes_every_format() {
    let ffmpeg = std::env::var("LATENTD_FFMPEG").unwrap_or_else(|_| "ffmpeg".to_owned());
    let ffprobe = format!("{}ffprobe", ffmpeg.strip_suffix("ffmpeg").expect("LATENTD_FFMPEG ends with ffmpeg"));
    for program in [&ffmpeg, &ffprobe] {
        if Command::new(program).arg("-version").output().is_err() {
            assert!(std::env::var_os("LATENTD_REQUIRE_FFMPEG").is_none(), "{program} is not installed");
            println!("skipped: {program} is not installed, so the files are not decoded");
            return;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    for (rate, channels, length) in [(44_100, 2, 44_100), (16_000, 1, 81_920), (48_000, 2, 4_801), (8_000, 1, 1)] {
        let tones = tones(rate, channels, length);
        let integers: Vec<u8> = tones.integers().flat_map(i16::to_le_bytes).collect();
        for encoding in [
            Encoding::Wav { sample_format: SampleFormat::S16 },
            Encoding::Wav { sample_format: SampleFormat::F32 },
            Encoding::Flac,
            Encoding::Opus,
        ] {
            let made = encode_sound(&tones, encoding, Some(&note())).unwrap();
            let path = folder.path().join(format!("sound.{}", encoding.format().extension()));
            std::fs::write(&path, &made.file).unwrap();
            let decoded = decoded(&ffmpeg, &path);
            assert_eq!(decoded.len() as u64, made.samples * u64::from(channels) * 2, "{encoding:?} of {rate}: samples");
            match encoding {
                Encoding::Wav { sample_format: SampleFormat::S16 } | Encoding::Flac => {
                    assert!(decoded == integers, "{encoding:?} of {rate} is exact");
                }
                _ => {}
            }
            let told = probed(&ffprobe, &path);
            for expected in [format!("sample_rate={}", made.sample_rate), format!("channels={channels}")] {
                assert!(told.contains(&expected), "{encoding:?}: {told}");
            }
            assert!(told.contains(note().json()), "{encoding:?}: {told}");
        }
    }
}

/// The samples that ffmpeg decodes, as integers of 16 bits.
fn decoded(ffmpeg: &str, path: &Path) -> Vec<u8> {
    let mut command = Command::new(ffmpeg);
    command.args(["-v", "error", "-i"]).arg(path).stdin(Stdio::null());
    let output = command.args(["-f", "s16le", "-c:a", "pcm_s16le", "-"]).output().unwrap();
    assert!(output.stderr.is_empty(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What ffprobe says about the file and its sound.
fn probed(ffprobe: &str, path: &Path) -> String {
    let entries = "stream=sample_rate,channels:stream_tags:format_tags";
    let output = Command::new(ffprobe).args(["-v", "error", "-show_entries", entries]).arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
