//! Tests of JPEG and WebP files: pixels and metadata.

use std::io::Cursor;

use image::{ImageDecoder, ImageReader};
use latentd::generation::{Draw, Encoding, Job, MetadataLevel, Output, weighted};
use latentd::imaging::{EncodeError, Metadata, RgbImage, decode, encode, encode_picture, metadata_of};
use md5::{Digest, Md5};
use proptest::prelude::*;

use super::{draw, generation, job, label, picture, resolved};

const FORMATS: [Encoding; 2] = [Encoding::Jpeg { quality: 90 }, Encoding::Webp];

fn fox() -> RgbImage {
    decode(include_bytes!("../../docs/fox.png"), 0).unwrap()
}

/// The peak signal-to-noise ratio of two pictures in decibels.
fn psnr(one: &RgbImage, other: &RgbImage) -> f64 {
    assert_eq!((one.width, one.height), (other.width, other.height));
    let squares = one.pixels.iter().zip(&other.pixels).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    10.0 * (255.0_f64.powi(2) * one.pixels.len() as f64 / squares.sum::<f64>()).log10()
}

/// The picture as a JPEG file of this quality, and its peak signal-to-noise ratio in decibels.
fn jpeg(image: &RgbImage, quality: u8) -> (Vec<u8>, f64) {
    let file = encode(image, Encoding::Jpeg { quality }, &Metadata::None).unwrap();
    let near = psnr(image, &decode(&file, 0).unwrap());
    (file, near)
}

#[test]
fn a_webp_is_lossless() {
    for image in [fox(), picture(37, 20), picture(1, 1)] {
        let file = encode(&image, Encoding::Webp, &Metadata::None).unwrap();
        assert_eq!(decode(&file, 0).unwrap(), image);
        assert_eq!(image::guess_format(&file).unwrap(), image::ImageFormat::WebP);
    }
}

#[test]
fn a_jpeg_of_higher_quality_is_larger_and_more_accurate() {
    let fox = fox();
    let files = [1, 25, 50, 75, 90, 95, 100].map(|quality| jpeg(&fox, quality));
    for pair in files.windows(2) {
        assert!(pair[0].0.len() < pair[1].0.len() && pair[0].1 < pair[1].1, "{:?}", files.map(|(_, near)| near));
    }
    assert!(files[4].1 > 38.0, "{} dB at 90", files[4].1);
    assert!(files[6].1 > 45.0, "{} dB at 100", files[6].1);
    assert_eq!(image::guess_format(&files[0].0).unwrap(), image::ImageFormat::Jpeg);
}

/// The picture has alternating red and blue columns, each one pixel wide. Below a quality of 90, four pixels share one
/// color, which must be their mean.
#[test]
fn the_color_of_a_jpeg_is_averaged() {
    let column = |x: usize| if x.is_multiple_of(2) { [200, 40, 40] } else { [40, 40, 200] };
    let image = RgbImage { width: 32, height: 32, pixels: (0..32 * 32).flat_map(column).collect() };
    let decoded = decode(&jpeg(&image, 89).0, 0).unwrap();
    let mean = |channel: usize| {
        decoded.pixels.iter().skip(channel).step_by(3).map(|level| f64::from(*level)).sum::<f64>() / 1024.0
    };
    assert!((mean(0) - 120.0).abs() < 6.0 && (mean(2) - 120.0).abs() < 6.0, "{} {}", mean(0), mean(2));
    // From a quality of 90, each pixel has its own color.
    let decoded = decode(&jpeg(&image, 90).0, 0).unwrap();
    assert!(psnr(&image, &decoded) > 30.0, "{}", psnr(&image, &decoded));
}

#[test]
fn the_same_picture_has_the_same_bytes() {
    for encoding in FORMATS {
        let generation = encoded(encoding, draw());
        let file = || encode_picture(&fox(), &generation, &label(), 0).unwrap();
        let first = file();
        assert!((0..4).all(|_| file() == first));
    }
}

#[test]
fn full_metadata_is_the_same_in_each_format() {
    let png = metadata_of(&generation(), &label(), 0);
    let Metadata::Full { parameters, .. } = png else { panic!("{png:?}") };
    for encoding in FORMATS {
        let generation = encoded(encoding, draw());
        let (comment, xmp) = metadata(&encode_picture(&fox(), &generation, &label(), 0).unwrap());
        assert_eq!(comment.unwrap(), parameters);
        let json = property("request", &xmp.unwrap());
        assert_eq!(json, request(&generation, 0));
        assert_eq!(resolved(&json), generation);
    }
}

#[test]
fn each_image_contains_a_request_for_itself() {
    for encoding in FORMATS {
        let generation = encoded(encoding, Draw { n: 4, ..draw() });
        let (comment, xmp) = metadata(&encode_picture(&fox(), &generation, &label(), 3).unwrap());
        assert!(comment.unwrap().contains("Seed: 44, "));
        assert_eq!(
            property("request", &xmp.unwrap()),
            request(&encoded(encoding, Draw { n: 1, seed: 44, ..draw() }), 0)
        );
    }
}

#[test]
fn lower_metadata_levels_contain_less() {
    for encoding in FORMATS {
        let at = |level| {
            let output = Output { encoding, metadata_level: level, provenance: true };
            let generation = Job { output, ..job(Draw { n: 2, ..draw() }) };
            encode_picture(&fox(), &generation, &label(), 1).unwrap()
        };
        let (comment, xmp) = metadata(&at(MetadataLevel::Seed));
        assert_eq!((comment, property("seed", &xmp.unwrap()).as_str()), (None, "42"));
        let none = at(MetadataLevel::None);
        assert_eq!(metadata(&none), (None, None));
        assert_eq!(none, encode(&fox(), encoding, &Metadata::None).unwrap());
    }
}

/// 10,000 emoji are 40,000 bytes, so two prompts are longer than a segment of a JPEG file.
#[test]
fn the_longest_prompts_are_read_back() {
    let (prompt, negative_prompt) = ("🦊".repeat(10_000), Some("🐟".repeat(10_000)));
    for encoding in FORMATS {
        let (prompt, negative_prompt) = (prompt.clone(), negative_prompt.clone());
        let generation = encoded(encoding, Draw { prompt, negative_prompt, ..draw() });
        let file = encode_picture(&fox(), &generation, &label(), 0).unwrap();
        let (comment, xmp) = metadata(&file);
        assert_eq!(comment.is_some(), encoding == Encoding::Webp, "a JPEG contains no part of the comment");
        assert_eq!(property("request", &xmp.unwrap()), request(&generation, 0));
        assert_eq!(decode(&file, 0).unwrap().width, 128);
    }
}

#[test]
fn pixels_that_do_not_fit_the_size_are_an_error() {
    for encoding in [Encoding::Png, FORMATS[0], FORMATS[1]] {
        for (width, height, bytes) in [(8, 8, 191), (8, 8, 193), (u32::MAX, u32::MAX, 0)] {
            let image = RgbImage { width, height, pixels: vec![0; bytes] };
            assert!(matches!(encode(&image, encoding, &Metadata::None), Err(EncodeError::Length { .. })));
        }
        let empty = RgbImage { width: 0, height: 8, pixels: Vec::new() };
        assert!(encode(&empty, encoding, &Metadata::None).is_err());
    }
    let long = RgbImage { width: 65_536, height: 1, pixels: vec![0; 3 * 65_536] };
    assert!(matches!(encode(&long, FORMATS[0], &Metadata::None), Err(EncodeError::TooLarge { .. })));
    assert!(matches!(encode(&long, FORMATS[1], &Metadata::None), Err(EncodeError::Webp(_))));
    let side = |side| RgbImage { width: side, height: 1, pixels: vec![0; 3 * side as usize] };
    for encoding in FORMATS {
        let longest = encoding.format().max_side().unwrap();
        assert!(encode(&side(longest), encoding, &Metadata::None).is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_prompt_is_read_back(prompt in "(\\PC|\n|\r|\t|[<>&\"'\u{1}\u{7f}\u{85}\u{fffe}\u{ffff}]|\\]\\]>|🦊|\u{202e}){0,200}") {
        for encoding in FORMATS {
            let generation = encoded(encoding, Draw { prompt: prompt.clone(), ..draw() });
            let (comment, xmp) = metadata(&encode_picture(&picture(8, 8), &generation, &label(), 0).unwrap());
            let xmp = xmp.unwrap();
            // Brackets in the prompt are escaped.
            let read: String = weighted(&comment.unwrap()).concat().into_iter().map(|span| span.text).collect();
            prop_assert!(read.starts_with(&prompt));
            // Characters that are invalid in XML.
            let is_invalid = |c: char| c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}');
            prop_assert!(!xmp.contains(is_invalid));
            // JSON can write a character in two ways.
            let parsed = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
            prop_assert_eq!(parsed(&property("request", &xmp)), parsed(&request(&generation, 0)));
        }
    }

    #[test]
    fn any_picture_is_read_back(width in 1u32..40, height in 1u32..40, bytes in prop::collection::vec(any::<u8>(), 3 * 40 * 40)) {
        let image = RgbImage { width, height, pixels: bytes[..3 * (width * height) as usize].to_vec() };
        let webp = encode(&image, Encoding::Webp, &Metadata::Seed("7".to_owned())).unwrap();
        prop_assert_eq!(&decode(&webp, 0).unwrap(), &image);
        // Noise in all channels is the hardest picture to compress.
        let (_, near) = jpeg(&image, 100);
        prop_assert!(near > 35.0, "{} dB", near);
    }
}

/// A job whose output has this format.
fn encoded(encoding: Encoding, draw: Draw) -> Job {
    Job { output: Output { encoding, metadata_level: MetadataLevel::Full, provenance: true }, ..job(draw) }
}

/// The JSON request in the metadata of this image.
fn request(generation: &Job, index: u32) -> String {
    match metadata_of(generation, &label(), index) {
        Metadata::Full { request, .. } => request,
        other => panic!("{other:?}"),
    }
}

/// The user comment and the XMP document of a file.
fn metadata(file: &[u8]) -> (Option<String>, Option<String>) {
    let mut decoder = ImageReader::new(Cursor::new(file)).with_guessed_format().unwrap().into_decoder().unwrap();
    let exif = decoder.exif_metadata().unwrap().map(|exif| user_comment(&exif));
    let packet = decoder.xmp_metadata().unwrap().map(|xmp| String::from_utf8(xmp).unwrap());
    (exif, packet.map(|packet| if packet.contains("HasExtendedXMP") { extended(file, &packet) } else { packet }))
}

/// The directory at this offset of a big-endian TIFF file: tag, count and value of each entry.
fn directory(tiff: &[u8], at: usize) -> Vec<(u16, usize, usize)> {
    let short = |at: usize| u16::from_be_bytes(tiff[at..at + 2].try_into().unwrap());
    let long = |at: usize| u32::from_be_bytes(tiff[at..at + 4].try_into().unwrap()) as usize;
    let entries = (0..usize::from(short(at))).map(|entry| at + 2 + 12 * entry);
    let entries: Vec<_> = entries.map(|at| (short(at), long(at + 4), long(at + 8))).collect();
    assert_eq!(long(at + 2 + 12 * entries.len()), 0, "this is the last directory");
    entries
}

/// The user comment of an Exif block.
fn user_comment(tiff: &[u8]) -> String {
    assert_eq!(&tiff[..8], b"MM\0*\0\0\0\x08");
    let [(0x8769, 1, at)] = directory(tiff, 8)[..] else { panic!("{tiff:?}") };
    let [(0x9000, 4, _), (0x9286, count, at)] = directory(tiff, at)[..] else { panic!("{tiff:?}") };
    assert_eq!(at + count, tiff.len());
    let text = tiff[at..].strip_prefix(b"UNICODE\0").unwrap();
    let units: Vec<u16> = text.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    String::from_utf16(&units).unwrap()
}

/// The extended XMP document of a JPEG file, which is split into several segments.
fn extended(file: &[u8], packet: &str) -> String {
    let (mut at, mut document) = (2, Vec::new());
    let mut digest = None;
    while file[at + 1] != 0xda {
        let length = usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
        if let Some(part) = file[at + 4..at + 2 + length].strip_prefix(b"http://ns.adobe.com/xmp/extension/\0") {
            digest = Some(std::str::from_utf8(&part[..32]).unwrap().to_owned());
            let long = |at: usize| u32::from_be_bytes(part[at..at + 4].try_into().unwrap()) as usize;
            document.resize(long(32), 0);
            document[long(36)..][..part.len() - 40].copy_from_slice(&part[40..]);
        }
        at += 2 + length;
    }
    let digest = digest.unwrap();
    assert!(packet.contains(&format!("xmpNote:HasExtendedXMP=\"{digest}\"")), "{packet}");
    assert_eq!(Md5::digest(&document).iter().map(|byte| format!("{byte:02X}")).collect::<String>(), digest);
    String::from_utf8(document).unwrap()
}

/// The text of a `latentd:` property.
fn property(name: &str, xmp: &str) -> String {
    let (_, rest) = xmp.split_once(&format!("<latentd:{name}>")).unwrap();
    let (text, _) = rest.split_once(&format!("</latentd:{name}>")).unwrap();
    assert!(!text.contains(['<', '>']));
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}
