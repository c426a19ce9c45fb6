#!/bin/sh
# What one expects: an encoder's option for optimized Huffman tables makes a JPEG file smaller and changes nothing else, and
# the decoder of the `image` crate gives the picture back, or an error.
# What happens: with set_optimized_huffman_tables(true), jpeg-encoder 0.7.1 writes a baseline file with a scan for each
# component in place of one interleaved scan. That is valid (ITU-T T.81, A.2: every decoder reads it, as libjpeg and
# jpeg-decoder do). image 0.25.10 decodes JPEG with zune-jpeg 0.5.15, which makes another picture of such a file, without an
# error: green where the color has half the resolution (in jpeg-encoder: a quality below 90), and else without its last rows.
# Source: encode_image_internal in src/encoder.rs of jpeg-encoder; issue 422 of etemesi254/zune-image, which is mended in the
# pre-releases of zune-jpeg 0.5.16.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat > "$folder/Cargo.toml" <<'TOML'
[package]
name = "check"
version = "0.0.0"
edition = "2024"

[dependencies]
image = { version = "=0.25.10", default-features = false, features = ["jpeg"] }
jpeg-decoder = { version = "=0.3.2", default-features = false }
jpeg-encoder = "=0.7.1"
zune-jpeg = "=0.5.15"
TOML
cat > "$folder/src/main.rs" <<'RUST'
use jpeg_encoder::{ColorType, Encoder};

fn mean(pixels: &[u8]) -> [u64; 3] {
    [0, 1, 2].map(|channel| {
        let levels = pixels.iter().skip(channel).step_by(3).map(|level| u64::from(*level));
        levels.sum::<u64>() * 3 / pixels.len() as u64
    })
}

fn main() {
    let pixels = [200, 120, 40].repeat(64 * 64);
    for (quality, optimized, scans, wrong) in [(80, false, 1, false), (80, true, 3, true), (95, false, 1, false), (95, true, 3, true)] {
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&mut file, quality);
        encoder.set_optimized_huffman_tables(optimized);
        encoder.encode(&pixels, 64, 64, ColorType::Rgb).unwrap();

        let starts = file.windows(2).filter(|pair| *pair == [0xff, 0xda]).count();
        let by_image = mean(&image::load_from_memory(&file).unwrap().into_rgb8().into_raw());
        let by_decoder = mean(&jpeg_decoder::Decoder::new(file.as_slice()).decode().unwrap());
        println!("quality {quality}, optimized {optimized}: {starts} scans, image {by_image:?}, jpeg-decoder {by_decoder:?}");
        assert_eq!(starts, scans);
        let is_near = |mean: [u64; 3]| mean.iter().zip([200, 120, 40]).all(|(a, b)| a.abs_diff(b) <= 4);
        assert!(is_near(by_decoder));
        assert_eq!(is_near(by_image), !wrong);
    }
}
RUST
cargo run --quiet --manifest-path "$folder/Cargo.toml"
