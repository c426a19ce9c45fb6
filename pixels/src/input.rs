//! Decodes the pictures that clients send.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbaImage, metadata::Orientation};

use super::{RgbImage, jpeg, orientation::orientation};

/// The largest picture that is read, in pixels: the full resolution of a current phone camera.
pub const MAX_PIXELS: u64 = 50_000_000;
/// The longest side that is read, in pixels.
const MAX_SIDE: u32 = 16_384;
/// Bytes of memory for decoding: four bytes per pixel, and as many for intermediate results.
const MAX_ALLOC: u64 = 8 * MAX_PIXELS;

/// Bytes that unpacked metadata of a PNG, such as a color profile, may take beyond four times the size of the file.
const MAX_PROFILE: u64 = 4 << 20;

/// Why bytes cannot be used as a picture.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("is empty; it must be a PNG, JPEG or WebP picture")]
    Empty,
    #[error("must be a PNG, JPEG or WebP picture")]
    Format,
    #[error("has {width} × {height} pixels, but may have at most {MAX_PIXELS} in all and {MAX_SIDE} per side")]
    TooLarge { width: u32, height: u32 },
    #[error("cannot be decoded: the file was cut short, its end is missing")]
    CutShort,
    #[error("cannot be decoded: pixels or scans of the JPEG are missing, it was cut short or damaged")]
    Incomplete,
    #[error("cannot be decoded: a checksum of the PNG's pixels is wrong, the file is damaged")]
    Checksum,
    #[error(
        "cannot be decoded: the JPEG is baseline with a scan for each color plane; save it with one scan for all \
         planes, as a progressive JPEG, or as a PNG"
    )]
    SeparateScans,
    #[error("has no transparent part, but only transparent parts are redrawn")]
    Opaque,
    #[error("cannot be decoded: {0}")]
    Broken(image::ImageError),
}

impl From<image::ImageError> for DecodeError {
    fn from(error: image::ImageError) -> DecodeError {
        // The decoder ignores wrong checksums of metadata, so the wrong checksum belongs to pixels. The error has no
        // type of its own, and its text names fields of the decoder.
        if error.to_string().contains("CRC error") { DecodeError::Checksum } else { DecodeError::Broken(error) }
    }
}

/// Decodes a PNG, JPEG or WebP picture (the first frame of an animation) to 8 bits per channel, oriented as its EXIF or
/// XMP says. Transparent parts show `ground`, a level for all three channels. The size is checked before pixels are
/// decoded.
///
/// # Errors
/// The format is not supported, the picture has too many pixels, or the data is broken or truncated.
pub fn decode(bytes: &[u8], ground: u8) -> Result<RgbImage, DecodeError> {
    let picture = upright(bytes)?;
    Ok(match picture.color().has_alpha() {
        true => flattened(&picture.into_rgba8(), ground),
        false => {
            let (width, height) = (picture.width(), picture.height());
            RgbImage { width, height, pixels: picture.into_rgb8().into_raw() }
        }
    })
}

/// The transparency of a picture, as [`decode`] reads it: white where the picture is transparent, black where it is
/// opaque.
///
/// # Errors
/// As [`decode`]; and a picture without any transparent pixel.
pub fn decode_transparency(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    let picture = upright(bytes)?.into_rgba8();
    if picture.pixels().all(|pixel| pixel.0[3] == 255) {
        return Err(DecodeError::Opaque);
    }
    let pixels = picture.pixels().flat_map(|pixel| [255 - pixel.0[3]; 3]).collect();
    Ok(RgbImage { width: picture.width(), height: picture.height(), pixels })
}

/// Whether a picture has an alpha channel, and the picture's number of pixels; read from the head of the file.
///
/// # Errors
/// As [`size`].
pub fn alpha_channel(bytes: &[u8]) -> Result<(bool, u64), DecodeError> {
    let (decoder, _) = head(bytes)?;
    let (width, height) = decoder.dimensions();
    Ok((decoder.color_type().has_alpha(), u64::from(width) * u64::from(height)))
}

/// All pixels of a picture, oriented as its EXIF or XMP says.
fn upright(bytes: &[u8]) -> Result<DynamicImage, DecodeError> {
    let (decoder, orientation) = head(bytes)?;
    if image::guess_format(bytes).ok() == Some(ImageFormat::Jpeg) && !jpeg::has_all_pixels(bytes) {
        return Err(DecodeError::Incomplete);
    }
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// The width and height of the picture that [`decode`] returns, read from the head of the file.
///
/// # Errors
/// The format is not supported, the picture has too many pixels, or the head is broken.
pub fn size(bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
    let (decoder, orientation) = head(bytes)?;
    let (width, height) = decoder.dimensions();
    Ok(match orientation {
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH => {
            (height, width)
        }
        Orientation::NoTransforms
        | Orientation::Rotate180
        | Orientation::FlipHorizontal
        | Orientation::FlipVertical => (width, height),
    })
}

/// A decoder for a picture whose size is allowed, and the orientation of the picture.
fn head(bytes: &[u8]) -> Result<(impl ImageDecoder, Orientation), DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(image::ImageError::from)?;
    let known = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP];
    let format = reader.format().filter(|format| known.contains(format)).ok_or(DecodeError::Format)?;
    if format == ImageFormat::Jpeg && !jpeg::is_whole(bytes) {
        return Err(DecodeError::CutShort);
    }
    if format == ImageFormat::Jpeg && !jpeg::has_shared_scans(bytes) {
        return Err(DecodeError::SeparateScans);
    }
    if format == ImageFormat::WebP && !is_whole_webp(bytes) {
        return Err(DecodeError::CutShort);
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(match format {
        // For a PNG, the decoder reads everything but the pixels together with the head. A color profile, which is not
        // used, can unpack to a thousand times the size of its file; the decoder skips a profile that exceeds this
        // limit. Texts are never larger than their file.
        ImageFormat::Png => MAX_ALLOC.min(4 * bytes.len() as u64 + MAX_PROFILE),
        _ => MAX_ALLOC,
    });
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if width.max(height) > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(DecodeError::TooLarge { width, height });
    }
    let orientation = orientation(bytes, format, &mut decoder);
    Ok((decoder, orientation))
}

/// Whether a WebP file has all the bytes that its RIFF header counts. The decoder does not notice that chunks after the
/// pixels are missing, such as EXIF with the orientation.
fn is_whole_webp(bytes: &[u8]) -> bool {
    let counted = bytes.get(4..8).and_then(|size| size.try_into().ok()).map(u32::from_le_bytes);
    counted.is_some_and(|size| u64::from(size) + 8 <= bytes.len() as u64)
}

/// Blends the picture over the level `ground` by its alpha channel.
fn flattened(picture: &RgbaImage, ground: u8) -> RgbImage {
    let over = |level: u8, alpha: u8| {
        let (alpha, ground) = (u32::from(alpha), u32::from(ground));
        ((u32::from(level) * alpha + ground * (255 - alpha) + 127) / 255) as u8
    };
    let pixels = picture.pixels().flat_map(|pixel| {
        let [red, green, blue, alpha] = pixel.0;
        [over(red, alpha), over(green, alpha), over(blue, alpha)]
    });
    RgbImage { width: picture.width(), height: picture.height(), pixels: pixels.collect() }
}

#[cfg(test)]
mod tests {
    use image::codecs::png::PngEncoder;
    use image::{ExtendedColorType, ImageEncoder};

    use super::*;

    fn png(pixels: &[u8], width: u32, height: u32, color: ExtendedColorType) -> Vec<u8> {
        let mut file = Vec::new();
        PngEncoder::new(&mut file).write_image(pixels, width, height, color).unwrap();
        file
    }

    #[test]
    fn a_webp_that_lost_bytes_is_refused() {
        let mut file = Vec::new();
        let encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut file);
        encoder.write_image(&[7; 12], 2, 2, ExtendedColorType::Rgb8).unwrap();
        assert!(decode(&file, 255).is_ok());
        for lost in 1..8 {
            let cut = decode(&file[..file.len() - lost], 255);
            assert!(matches!(cut, Err(DecodeError::CutShort)), "{lost} bytes");
        }
    }

    /// Pillow also refuses wrong checksums of metadata before the pixels. Such metadata does not change the pixels.
    #[test]
    fn a_wrong_checksum_matters_only_for_pixels() {
        let file = png(&[9; 12], 2, 2, ExtendedColorType::Rgb8);
        let at = |kind: &[u8]| file.windows(4).position(|window| window == kind).unwrap();
        let comment = [&9u32.to_be_bytes()[..], b"tEXtComment\0x", &[1, 2, 3, 4]].concat();
        for kind in [b"IDAT", b"IEND"] {
            let (before, after) = file.split_at(at(kind) - 4);
            assert_eq!(decode(&[before, &comment, after].concat(), 0).unwrap().pixels, [9; 12]);
        }
        let mut damaged = file.clone();
        damaged[at(b"IEND") - 5] ^= 1;
        let error = decode(&damaged, 0).unwrap_err();
        assert!(matches!(error, DecodeError::Checksum), "{error:?}");
    }

    #[test]
    fn transparent_pixels_show_the_background() {
        let file = png(&[10, 20, 30, 255, 10, 20, 30, 0, 100, 0, 200, 128], 3, 1, ExtendedColorType::Rgba8);
        assert_eq!(decode(&file, 255).unwrap().pixels, [10, 20, 30, 255, 255, 255, 177, 127, 227]);
        assert_eq!(decode(&file, 0).unwrap().pixels, [10, 20, 30, 0, 0, 0, 50, 0, 100]);
    }

    #[test]
    fn transparency_is_white_and_colors_do_not_count() {
        let file = png(&[255, 255, 255, 255, 0, 0, 0, 0, 9, 9, 9, 155], 3, 1, ExtendedColorType::Rgba8);
        assert_eq!(decode_transparency(&file).unwrap().pixels, [0, 0, 0, 255, 255, 255, 100, 100, 100]);
        assert_eq!(alpha_channel(&file).unwrap(), (true, 3));
        for opaque in
            [png(&[9, 9, 9, 255], 1, 1, ExtendedColorType::Rgba8), png(&[9, 9, 9], 1, 1, ExtendedColorType::Rgb8)]
        {
            assert!(matches!(decode_transparency(&opaque), Err(DecodeError::Opaque)));
        }
    }

    #[test]
    fn gray_and_16_bit_pictures_become_rgb_with_8_bits() {
        assert_eq!(decode(&png(&[7, 9], 2, 1, ExtendedColorType::L8), 0).unwrap().pixels, [7, 7, 7, 9, 9, 9]);
        let deep = png(&[0xff, 0xff, 0, 0, 0x80, 0x80], 1, 1, ExtendedColorType::Rgb16);
        assert_eq!(decode(&deep, 0).unwrap().pixels, [255, 0, 128]);
    }

    #[test]
    fn bytes_that_are_no_picture_are_refused() {
        assert!(matches!(decode(b"", 0), Err(DecodeError::Empty)));
        assert!(matches!(decode(b"GIF89a", 0), Err(DecodeError::Format)));
        let file = png(&[0; 48], 4, 4, ExtendedColorType::Rgb8);
        assert!(matches!(decode(&file[..file.len() / 2], 0), Err(DecodeError::Broken(_))));
    }

    /// A truncated file either fails or gives the whole picture.
    #[test]
    fn a_cut_file_is_refused_or_has_all_its_pixels() {
        let pixels: Vec<u8> = (0..3 * 24 * 16).map(|i| (i * i % 251) as u8).collect();
        let mut webp = Vec::new();
        let encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut webp);
        encoder.write_image(&pixels, 24, 16, ExtendedColorType::Rgb8).unwrap();
        for whole in [png(&pixels, 24, 16, ExtendedColorType::Rgb8), webp] {
            for length in 0..whole.len() {
                if let Ok(picture) = decode(&whole[..length], 0) {
                    assert_eq!(picture.pixels, pixels, "{length} of {} bytes", whole.len());
                }
            }
            assert_eq!(decode(&[&whole, &b"more"[..]].concat(), 0).unwrap().pixels, pixels);
        }
    }

    #[test]
    fn a_size_that_is_too_large_is_refused_before_the_pixels_are_read() {
        let mut file = png(&[0; 3], 1, 1, ExtendedColorType::Rgb8);
        // Overwrites the width and height in the header, and then the header's checksum.
        file[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
        let checksum = crc32(&file[12..29]);
        file[29..33].copy_from_slice(&checksum.to_be_bytes());
        assert!(matches!(decode(&file, 0), Err(DecodeError::TooLarge { width: 16_384, height: 16_384 })));
    }

    /// The checksum of PNG chunks.
    fn crc32(bytes: &[u8]) -> u32 {
        let step = |crc: u32, byte: &u8| {
            let mut crc = crc ^ u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
            }
            crc
        };
        !bytes.iter().fold(!0, step)
    }
}
