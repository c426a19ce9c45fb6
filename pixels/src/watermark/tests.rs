//! Tests of the watermark as a whole. The table in `docs/watermark.md` measures what these tests sample.

use proptest::prelude::*;

use super::*;
use crate::{Metadata, decode, encode_jpeg, encode_webp, resize};

/// A picture with shading, edges and some noise, which differs with the seed.
fn picture(width: u32, height: u32, seed: u32) -> RgbImage {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as i32 % 9
    };
    let (shade, edge) = (1 + seed % 3, 20 + seed % 40);
    let mut pixels = Vec::with_capacity((3 * width * height) as usize);
    for y in 0..height {
        for x in 0..width {
            let light = 60 + (shade * x + y) * 120 / (shade * width + height);
            let shape = if (x / edge + y / edge) % 2 == 1 { 40 } else { 0 };
            let noise = random();
            pixels.extend([0, 12, 25].map(|tint| ((light + shape + tint) as i32 + noise).clamp(0, 255) as u8));
        }
    }
    RgbImage { width, height, pixels }
}

fn marked(width: u32, height: u32, seed: u32) -> (RgbImage, Payload) {
    let mut picture = picture(width, height, seed);
    let payload = Payload::of("a server", &seed.to_string());
    embed(&mut picture, payload);
    (picture, payload)
}

/// The peak signal-to-noise ratio of two pictures of the same size, in decibels.
fn psnr(one: &RgbImage, other: &RgbImage) -> f64 {
    let square = |(one, other): (&u8, &u8)| f64::from(one.abs_diff(*other)).powi(2);
    let error: f64 = one.pixels.iter().zip(&other.pixels).map(square).sum::<f64>() / one.pixels.len() as f64;
    10.0 * (255.0 * 255.0 / error).log10()
}

fn payload_of(picture: &RgbImage) -> Option<Payload> {
    detect(picture).map(|found| found.payload)
}

fn changed(picture: &RgbImage, change: impl Fn(f32) -> f32) -> RgbImage {
    let pixels = picture.pixels.iter().map(|level| change(f32::from(*level)).round().clamp(0.0, 255.0) as u8);
    RgbImage { pixels: pixels.collect(), ..*picture }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_mark_is_found_and_cannot_be_seen(width in 128_u32..220, height in 128_u32..220, seed in any::<u32>()) {
        let (marked, payload) = marked(width, height, seed);
        let found = detect(&marked).expect("the picture has a watermark");
        prop_assert_eq!((found.payload, found.scale), (payload, 1.0));
        prop_assert!(psnr(&marked, &picture(width, height, seed)) >= 40.0);
    }

    #[test]
    fn any_crop_of_seventy_percent_has_the_mark(
        left in 0_u32..39, top in 0_u32..39, width in 90_u32..100, height in 90_u32..100, seed in any::<u32>(),
    ) {
        let (marked, payload) = marked(138, 138, seed);
        prop_assert_eq!(payload_of(&marked.cropped([left, top, width, height])), Some(payload));
    }

    #[test]
    fn brightness_and_contrast_leave_the_mark(tenths in -10_i32..=10, offset in -10_i32..=10, seed in any::<u32>()) {
        let (marked, payload) = marked(128, 128, seed);
        let gain = 1.0 + tenths as f32 / 100.0;
        let other = changed(&marked, |level| (level - 127.5) * gain + 127.5 + offset as f32);
        prop_assert_eq!(payload_of(&other), Some(payload));
    }
}

#[test]
fn jpeg_and_webp_files_keep_the_mark() {
    for seed in 0..3 {
        let (marked, payload) = marked(128, 160, seed);
        let jpeg = |quality: u8| encode_jpeg(&marked, quality, &Metadata::None).unwrap();
        let webp = encode_webp(&marked, &Metadata::None).unwrap();
        for (format, file) in [("JPEG of quality 75", jpeg(75)), ("JPEG of quality 50", jpeg(50)), ("WebP", webp)] {
            assert_eq!(payload_of(&decode(&file, 255).unwrap()), Some(payload), "{format}, seed {seed}");
        }
    }
}

#[test]
fn half_and_double_size_keep_the_mark() {
    for seed in 0..3 {
        let (marked, payload) = marked(144, 128, seed);
        for (width, height, scale) in [(72, 64, 0.5), (288, 256, 2.0)] {
            let found = detect(&resize(&marked, width, height)).expect("the picture has a watermark");
            assert_eq!((found.payload, found.scale), (payload, scale), "seed {seed}");
        }
    }
}

#[test]
fn a_picture_without_a_mark_has_none() {
    for seed in 0..4 {
        assert_eq!(detect(&picture(128, 128, seed)), None, "seed {seed}");
    }
    for level in [0, 1, 128, 254, 255] {
        let flat = RgbImage { width: 128, height: 128, pixels: vec![level; 3 * 128 * 128] };
        assert_eq!(detect(&flat), None, "level {level}");
    }
}

#[test]
fn black_and_white_pictures_keep_the_mark_and_their_looks() {
    for level in [0, 5, 250, 255] {
        let flat = RgbImage { width: 128, height: 128, pixels: vec![level; 3 * 128 * 128] };
        let mut marked = flat.clone();
        embed(&mut marked, Payload::from_bits(7));
        assert_eq!(payload_of(&marked), Some(Payload::from_bits(7)), "level {level}");
        assert!(psnr(&marked, &flat) >= 40.0, "level {level}: {}", psnr(&marked, &flat));
    }
}

#[test]
fn tiny_pictures_are_no_problem() {
    for (width, height) in [(0, 0), (0, 9), (1, 1), (7, 300), (300, 7), (8, 8), (35, 36), (71, 71)] {
        let mut picture = picture(width, height, 1);
        embed(&mut picture, Payload::from_bits(1));
        detect(&picture);
        assert_eq!(picture.pixels.len(), (3 * width * height) as usize);
    }
}

#[test]
fn another_payload_gives_another_picture() {
    let [mut one, mut other] = [picture(64, 64, 3), picture(64, 64, 3)];
    embed(&mut one, Payload::from_bits(2));
    embed(&mut other, Payload::from_bits(3));
    assert_ne!(one, other);
}
