#!/bin/sh
# Half a JPEG decodes without an error, and its lower part is gray.
#
# Expected: a decoder reports a JPEG that was cut short, as the same crate does for half a PNG or WebP, and as Pillow does
# ("image file is truncated").
# What happens: `image` decodes every file that was cut anywhere behind its headers, and paints what is missing (128, 128, 128).
# An upload that was interrupted becomes a picture that nobody sent.
# Why: `image` switches the strict mode of its JPEG decoder off (src/codecs/jpeg/decoder.rs, `set_strict_mode(false)`), and
# zune-jpeg then fills the rest with 128 and only logs "Premature end of buffer" (src/mcu.rs). The strict mode reports
# all cuts but those within the end marker; `image` has no setting for it.
# What to do: look for the end marker (FF D9) behind the last scan, past the lengths of the segments, before decoding.
#
# Needs cargo. Fails if the behavior changes.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/src"
cat > "$dir/Cargo.toml" <<'TOML'
[package]
name = "cut-jpeg"
version = "0.0.0"
edition = "2021"
[dependencies]
image = { version = "=0.25.10", default-features = false, features = ["jpeg", "png"] }
zune-jpeg = "=0.5.15"
zune-core = "=0.5.3"
TOML
cat > "$dir/src/main.rs" <<'RUST'
use image::{codecs::{jpeg::JpegEncoder, png::PngEncoder}, load_from_memory, ExtendedColorType, ImageEncoder};
use zune_core::{bytestream::ZCursor, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

fn main() {
    let (width, height) = (64u32, 64u32);
    let pixels: Vec<u8> = (0..3 * width * height).map(|i| (i / 64 * 7 % 251) as u8).collect();
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 90).write_image(&pixels, width, height, ExtendedColorType::Rgb8).unwrap();
    let mut png = Vec::new();
    PngEncoder::new(&mut png).write_image(&pixels, width, height, ExtendedColorType::Rgb8).unwrap();

    println!("half a PNG:  {:?}", load_from_memory(&png[..png.len() / 2]).map(|_| "decoded").map_err(|e| e.to_string()));
    assert!(load_from_memory(&png[..png.len() / 2]).is_err());
    let half = load_from_memory(&jpeg[..jpeg.len() / 2]).expect("half a JPEG decodes").into_rgb8();
    println!("half a JPEG: decoded; its last pixel is {:?}", half.get_pixel(width - 1, height - 1).0);
    assert_eq!(half.get_pixel(width - 1, height - 1).0, [128; 3]);

    let scan = jpeg.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap() + 16;
    let cuts = || (scan..jpeg.len()).map(|length| &jpeg[..length]);
    let decoded = cuts().filter(|cut| load_from_memory(cut).is_ok()).count();
    let strict = |cut: &&[u8]| {
        let options = DecoderOptions::default().set_strict_mode(true);
        JpegDecoder::new_with_options(ZCursor::new(*cut), options).decode().is_ok()
    };
    println!("of {} cuts behind the headers image decodes {decoded}, zune-jpeg's strict mode {}", cuts().count(), cuts().filter(strict).count());
    assert_eq!(decoded, cuts().count());
    assert!(cuts().filter(strict).count() <= 2);
}
RUST
cd "$dir"
cargo run --quiet
