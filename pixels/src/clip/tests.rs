//! Reads the files of clips with decoders.

use std::{
    io::{Cursor, Read},
    process::{Command, Stdio},
};

use image_webp::{LoopCount, WebPDecoder};

use super::*;

const NOTE: &str = r#"{"prompt":"Größe <&> ","seed":7}"#;

/// Smooth frames with a disk that moves.
pub(super) fn frames(count: u32, [width, height]: [u32; 2]) -> Vec<RgbImage> {
    let frame = |index: u32| {
        let pixel = |at: u32| {
            let (x, y) = (at % width, at / width);
            let center = f64::from(width * (1 + index)) / f64::from(count + 1);
            let distance = (f64::from(x) - center).hypot(f64::from(y) - f64::from(height) / 2.0);
            let disk = 120.0 / (1.0 + (-(f64::from(height) / 5.0 - distance)).exp());
            let (red, green) = (f64::from(x * 120 / width), f64::from(y * 120 / height));
            [red + disk, green + disk / 2.0, 90.0 + disk / 4.0].map(|level| level.round() as u8)
        };
        RgbImage { width, height, pixels: (0..width * height).flat_map(pixel).collect() }
    };
    (0..count).map(frame).collect()
}

fn note() -> Note {
    Note::Request(NOTE.to_owned())
}

type Encode = fn(&[RgbImage], u32, Option<&Note>) -> Result<Vec<u8>, ClipError>;
const ALL: [(&str, Encode); 5] = [
    ("mp4", encode_mp4),
    ("apng", encode_apng),
    ("gif", encode_gif),
    ("webp", encode_animated_webp),
    ("zip", encode_zip),
];

/// The mean over all channels of the squared difference, as a peak signal-to-noise ratio in dB.
pub(super) fn psnr<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for (one, other) in pairs {
        assert_eq!(one.len(), other.len());
        sum += one.iter().zip(other).map(|(one, other)| f64::from(one.abs_diff(*other)).powi(2)).sum::<f64>();
        count += one.len() as f64;
    }
    10.0 * (255.0 * 255.0 * count / sum).log10()
}

#[test]
fn equal_clips_are_equal_files_and_notes_only_add_bytes() {
    let frames = frames(5, [34, 19]);
    for (name, encode) in ALL {
        let file = encode(&frames, 7, Some(&note())).unwrap();
        assert_eq!(file, encode(&frames, 7, Some(&note())).unwrap(), "{name}");
        assert!(encode(&frames, 7, None).unwrap().len() < file.len(), "{name}");
    }
}

#[test]
fn clips_that_a_format_does_not_support_are_errors() {
    let two = frames(2, [16, 16]);
    for (name, encode) in ALL {
        assert!(matches!(encode(&[], 7, None), Err(ClipError::Frames { frames: 0, .. })), "{name}");
        assert!(matches!(encode(&two, 0, None), Err(ClipError::Rate(0))), "{name}");
        let mixed = [two[0].clone(), frames(1, [16, 17]).remove(0)];
        assert!(matches!(encode(&mixed, 7, None), Err(ClipError::Size { index: 1, height: 17, .. })), "{name}");
        let short = RgbImage { pixels: vec![0; 5], ..two[0].clone() };
        assert!(matches!(encode(&[short.clone(), short], 7, None), Err(ClipError::Picture(_))), "{name}");
        let one = encode(&two[..1], 7, None);
        assert_eq!(one.is_ok(), name != "mp4", "{name}");
    }
    let narrow = frames(2, [64, 15]);
    assert!(matches!(encode_mp4(&narrow, 7, None), Err(ClipError::Sides { width: 64, height: 15 })));
    assert!(matches!(encode_gif(&two, 51, None), Err(ClipError::Rate(51))));
    assert!(matches!(encode_apng(&two, 65_536, None), Err(ClipError::Rate(65_536))));
    assert!(matches!(encode_animated_webp(&two, 1001, None), Err(ClipError::Rate(1001))));
}

#[test]
fn rounded_times_do_not_drift() {
    assert_eq!(durations(16, 16, 100).sum::<u64>(), 100);
    assert_eq!(durations(3, 7, 1000).collect::<Vec<_>>(), [143, 143, 143]);
    assert_eq!(durations(7, 7, 1000).sum::<u64>(), 1000);
    assert!(durations(60, 60, 100).all(|time| time == 1 || time == 2));
}

#[test]
fn an_apng_is_exact() {
    let frames = frames(5, [33, 17]);
    let file = encode_apng(&frames, 7, Some(&note())).unwrap();
    let mut reader = png::Decoder::new(Cursor::new(&file)).read_info().unwrap();
    let control = reader.info().animation_control.unwrap();
    assert_eq!((control.num_frames, control.num_plays), (5, 0));
    for frame in &frames {
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert!(pixels == frame.pixels);
        let control = reader.info().frame_control.unwrap();
        assert_eq!((control.delay_num, control.delay_den), (1, 7));
    }
    let text = &reader.info().utf8_text[0];
    assert_eq!((text.keyword.as_str(), text.get_text().unwrap().as_str()), ("latentd", NOTE));
}

#[test]
fn a_gif_has_all_frames_in_time() {
    let frames = frames(8, [48, 32]);
    let file = encode_gif(&frames, 16, Some(&Note::Seed("7".repeat(600)))).unwrap();
    let mut options = ::gif::DecodeOptions::new();
    options.set_color_output(::gif::ColorOutput::RGBA);
    let mut decoder = options.read_info(&file[..]).unwrap();
    let mut hundredths = 0;
    let mut pictures = Vec::new();
    while let Some(frame) = decoder.read_next_frame().unwrap() {
        hundredths += frame.delay;
        pictures.push(frame.buffer.chunks_exact(4).flat_map(|pixel| &pixel[..3]).copied().collect::<Vec<_>>());
    }
    assert_eq!((pictures.len(), hundredths), (8, 50));
    assert_eq!(decoder.repeat(), ::gif::Repeat::Infinite);
    let psnr = psnr(frames.iter().map(|frame| &frame.pixels[..]).zip(pictures.iter().map(|pixels| &pixels[..])));
    assert!(psnr > 30.0, "{psnr} dB");
    // A comment extension: its sub-blocks have at most 255 bytes.
    let comment =
        [&b"\x21\xfe\xff"[..], &b"7".repeat(255), b"\xff", &b"7".repeat(255), b"\x5a", &b"7".repeat(90), b"\0"];
    assert!(file.windows(comment.concat().len()).any(|part| part == comment.concat()));
}

#[test]
fn an_animated_webp_is_exact() {
    for size in [[33, 17], [64, 48]] {
        let frames = frames(7, size);
        let file = encode_animated_webp(&frames, 7, Some(&note())).unwrap();
        let mut decoder = WebPDecoder::new(Cursor::new(&file)).unwrap();
        assert!(decoder.is_animated() && decoder.dimensions() == size.into());
        assert_eq!((decoder.num_frames(), decoder.loop_count()), (7, LoopCount::Forever));
        assert_eq!(decoder.loop_duration(), 1000);
        let channels = if decoder.has_alpha() { 4 } else { 3 };
        for frame in &frames {
            let mut pixels = vec![0; decoder.output_buffer_size().unwrap()];
            assert!((142..=143).contains(&decoder.read_frame(&mut pixels).unwrap()));
            let read: Vec<u8> = pixels.chunks_exact(channels).flat_map(|pixel| &pixel[..3]).copied().collect();
            assert!(read == frame.pixels);
        }
        let xmp = String::from_utf8(decoder.xmp_metadata().unwrap().unwrap()).unwrap();
        assert!(
            xmp.contains(r#"<latentd:request>{"prompt":"Größe &lt;&amp;&gt; ","seed":7}</latentd:request>"#),
            "{xmp}"
        );
    }
}

#[test]
fn a_zip_archive_has_exact_numbered_frames() {
    let frames = frames(12, [33, 17]);
    let file = encode_zip(&frames, 7, Some(&note())).unwrap();
    let mut archive = ::zip::ZipArchive::new(Cursor::new(&file)).unwrap();
    assert_eq!(archive.len(), 13);
    for (index, frame) in frames.iter().enumerate() {
        let mut entry = archive.by_index(index).unwrap();
        assert_eq!(entry.name(), format!("{index:04}.png"));
        assert_eq!(entry.compression(), ::zip::CompressionMethod::Stored);
        assert_eq!(entry.last_modified(), Some(::zip::DateTime::default()), "the time of encoding is not in the file");
        let mut picture = Vec::new();
        entry.read_to_end(&mut picture).unwrap();
        assert!(crate::decode(&picture, 0).unwrap() == *frame);
    }
    let mut text = String::new();
    archive.by_name("request.json").unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, NOTE);
}

/// The boxes in the content of a box, or in a file.
fn boxes(content: &[u8]) -> Vec<([u8; 4], &[u8])> {
    let (mut found, mut rest) = (Vec::new(), content);
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        found.push((rest[4..8].try_into().unwrap(), &rest[8..length]));
        rest = &rest[length..];
    }
    found
}

fn inside<'a>(content: &'a [u8], path: &[&[u8; 4]]) -> &'a [u8] {
    path.iter().fold(content, |content, name| {
        boxes(content).into_iter().find(|(found, _)| found == *name).unwrap_or_else(|| panic!("{name:?}")).1
    })
}

fn number(content: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(content[at..at + 4].try_into().unwrap())
}

#[test]
fn an_mp4_has_the_structure_that_players_need() {
    let frames = frames(25, [33, 17]);
    let file = encode_mp4(&frames, 7, Some(&note())).unwrap();
    let names: Vec<[u8; 4]> = boxes(&file).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [*b"ftyp", *b"moov", *b"mdat", *b"uuid"], "moov before the frames");
    let media = inside(&file, &[b"moov", b"trak", b"mdia"]);
    // The time scale and the duration, after version, flags and two times.
    let header = inside(media, &[b"mdhd"]);
    let (scale, duration) = (f64::from(number(header, 12)), f64::from(number(header, 16)));
    assert!((duration / scale - 25.0 / 7.0).abs() < 1e-3, "{duration} of {scale}");
    let table = inside(media, &[b"minf", b"stbl"]);
    let sizes = inside(table, &[b"stsz"]);
    assert_eq!(number(sizes, 8), 25, "frames");
    let stored: u32 = (0..25).map(|index| number(sizes, 12 + 4 * index)).sum();
    assert_eq!(stored as usize, inside(&file, &[b"mdat"]).len());
    let samples = inside(&file, &[b"mdat"]);
    let mut at = 0;
    for index in 0..25 {
        // The first unit is no temporal delimiter.
        assert_ne!(samples[at] >> 3, 2, "frame {index}");
        at += number(sizes, 12 + 4 * index) as usize;
    }
    let entry = inside(&inside(table, &[b"stsd"])[8..], &[b"av01"]);
    assert_eq!((&entry[24..26], &entry[26..28]), (&33_u16.to_be_bytes()[..], &17_u16.to_be_bytes()[..]), "the size");
    // After the fields of a visual sample entry: marker and version, then profile Main and level 2.0.
    assert_eq!(inside(&entry[78..], &[b"av1C"])[..2], [0x81, 0x00]);
    let xmp = String::from_utf8_lossy(inside(&file, &[b"uuid"])).into_owned();
    assert!(xmp.contains("<latentd:request>{"), "{xmp}");
}

/// Compares with what ffmpeg reads, if ffmpeg and ffprobe are installed: size, rate, length, number of frames, and
/// colors.
#[test]
fn ffmpeg_decodes_every_container() {
    let ffmpeg = std::env::var("LATENTD_FFMPEG").unwrap_or_else(|_| "ffmpeg".to_owned());
    let ffprobe = format!("{}ffprobe", ffmpeg.strip_suffix("ffmpeg").expect("LATENTD_FFMPEG ends with ffmpeg"));
    for program in [&ffmpeg, &ffprobe] {
        if Command::new(program).arg("-version").output().is_err() {
            assert!(std::env::var_os("LATENTD_REQUIRE_FFMPEG").is_none(), "{program} is not installed");
            println!("skipped: {program} is not installed, so the files are not decoded");
            return;
        }
    }
    let folder = std::env::temp_dir().join(format!("latentd-clips-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (size, fps) in [([64, 64], 7), ([33, 17], 25), ([320, 192], 10)] {
        let frames = frames(14, size);
        for (name, encode) in ALL {
            let file = encode(&frames, fps, Some(&note())).unwrap();
            // ffmpeg reads a zip archive as its numbered files.
            let pattern = if name == "zip" { "%04d.png".to_owned() } else { format!("clip.{name}") };
            if name == "zip" {
                unzip(&file, &folder);
            } else {
                std::fs::write(folder.join(&pattern), &file).unwrap();
            }
            let rate = if name == "zip" { vec!["-framerate".to_owned(), fps.to_string()] } else { Vec::new() };
            let path = folder.join(&pattern);
            let decoded = decoded(&ffmpeg, &rate, &path);
            if name == "webp" && decoded.is_empty() {
                println!("webp at {size:?}: this ffmpeg does not decode animations, image-webp does");
                let read = webp_frames(&file, size, fps);
                assert!(read == frames.iter().map(|frame| frame.pixels.clone()).collect::<Vec<_>>());
                continue;
            }
            let told = probed(&ffprobe, &rate, &path);
            let number = |key: &str| told.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
            let sides = [number("width"), number("height"), number("nb_read_frames")];
            assert_eq!(sides, [&size[0].to_string(), &size[1].to_string(), "14"].map(Some), "{name}: {told:?}");
            // The times of a GIF are whole hundredths of a second, and ffprobe does not report the last time of an
            // APNG.
            let told_rate = ratio(number("avg_frame_rate").unwrap());
            let slack = if name == "gif" { 0.03 } else { 0.001 };
            assert!((told_rate / f64::from(fps) - 1.0).abs() <= slack, "{name} at {fps} fps: {told:?}");
            if let Some(length) = number("duration").and_then(|text| text.parse::<f64>().ok()) {
                let expected = 14.0 / f64::from(fps);
                assert!((length - expected).abs() <= 0.011, "{name}: {length} s, not {expected} s");
            } else {
                assert_ne!(name, "mp4", "{told:?}");
            }
            let bytes = (3 * size[0] * size[1]) as usize;
            assert_eq!(decoded.len(), 14 * bytes, "{name}");
            let psnr = psnr(frames.iter().map(|frame| &frame.pixels[..]).zip(decoded.chunks_exact(bytes)));
            println!("{name} at {size:?}: {} bytes, {psnr:.1} dB", file.len());
            let least = match name {
                // A decoder interpolates the missing chroma at the edges of such a small picture.
                "mp4" if size == [33, 17] => 34.0,
                "mp4" => 35.0,
                "gif" => 25.0,
                _ => f64::INFINITY,
            };
            assert!(psnr >= least, "{name} at {size:?}: {psnr} dB");
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// The pixels of all frames that ffmpeg decodes, one after the other.
fn decoded(ffmpeg: &str, rate: &[String], path: &std::path::Path) -> Vec<u8> {
    let mut command = Command::new(ffmpeg);
    command.args(["-v", "error"]).args(rate).arg("-i").arg(path).stdin(Stdio::null());
    command.args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "-"]).output().unwrap().stdout
}

/// The report of ffprobe about the film, as pairs of a name and a value.
fn probed(ffprobe: &str, rate: &[String], path: &std::path::Path) -> Vec<(String, String)> {
    let entries = "stream=width,height,avg_frame_rate,nb_read_frames,duration";
    let mut command = Command::new(ffprobe);
    command.args(["-v", "error", "-count_frames", "-show_entries", entries, "-of", "default=nw=1"]);
    let output = command.args(rate).arg(path).output().unwrap();
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    String::from_utf8(output.stdout).unwrap().lines().filter_map(pair).collect()
}

/// `30/1` as a number.
fn ratio(text: &str) -> f64 {
    let (above, below) = text.split_once('/').unwrap();
    above.parse::<f64>().unwrap() / below.parse::<f64>().unwrap()
}

/// Writes the files of a zip archive into a folder.
fn unzip(file: &[u8], folder: &std::path::Path) {
    let mut archive = ::zip::ZipArchive::new(Cursor::new(file)).unwrap();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        std::fs::write(folder.join(entry.name()), bytes).unwrap();
    }
}

/// The pixels of the frames of an animated WebP, whose size and length are checked.
fn webp_frames(file: &[u8], size: [u32; 2], fps: u32) -> Vec<Vec<u8>> {
    let mut decoder = WebPDecoder::new(Cursor::new(file)).unwrap();
    assert_eq!(decoder.dimensions(), (size[0], size[1]));
    let (mut length, mut all) = (0, Vec::new());
    for _ in 0..decoder.num_frames() {
        let mut pixels = vec![0; decoder.output_buffer_size().unwrap()];
        length += decoder.read_frame(&mut pixels).unwrap();
        all.push(pixels);
    }
    assert_eq!(length, (14.0 * 1000.0 / f64::from(fps)).round() as u32, "milliseconds");
    all
}
