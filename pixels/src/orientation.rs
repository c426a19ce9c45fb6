//! The orientation of a picture, as its file states it.

use std::io::Read;

use flate2::read::ZlibDecoder;
use image::{ImageDecoder, ImageFormat, metadata::Orientation};

use super::{exif, jpeg};

/// Reads the orientation like Pillow's `exif_transpose`, and therefore like diffusers' `load_image`: from EXIF, or from
/// XMP if EXIF has no orientation. A PNG can store EXIF and XMP before or after its pixels, and EXIF also as a text of
/// hexadecimal digits, as exiv2 does.
pub(super) fn orientation(file: &[u8], format: ImageFormat, decoder: &mut impl ImageDecoder) -> Orientation {
    let (exif, xmp) = match format {
        ImageFormat::Png => of_png(file),
        // Broken metadata is ignored, because it does not affect the pixels.
        ImageFormat::Jpeg => (jpeg::exif(file).map(<[u8]>::to_vec), decoder.xmp_metadata().ok().flatten()),
        _ => (decoder.exif_metadata().ok().flatten(), decoder.xmp_metadata().ok().flatten()),
    };
    exif.and_then(|exif| exif::orientation(&exif)).or_else(|| of_xmp(&xmp?)).unwrap_or(Orientation::NoTransforms)
}

/// Maximum bytes to which a compressed text of a PNG is unpacked; the orientation stands near the start of the text.
const LONGEST_TEXT: u64 = 4 << 20;

/// EXIF and XMP of a PNG, before or after its pixels.
fn of_png(file: &[u8]) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let (mut chunk_exif, mut text_exif, mut xmp) = (None, None, None);
    for (kind, data) in chunks(file) {
        if kind == *b"eXIf" {
            chunk_exif = Some(data.to_vec());
        }
        match text(kind, data) {
            Some((b"Raw profile type exif", text)) => text_exif = raw_profile(&text),
            Some((b"XML:com.adobe.xmp", text)) => xmp = Some(text),
            _ => {}
        }
    }
    (chunk_exif.or(text_exif), xmp)
}

/// The complete chunks of a PNG, as type and data.
fn chunks(file: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    const SIGNATURE: usize = 8;
    let mut rest = file.get(SIGNATURE..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let (kind, behind) = behind.split_first_chunk::<4>()?;
        let (data, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let (_checksum, behind) = behind.split_first_chunk::<4>()?;
        rest = behind;
        Some((*kind, data))
    })
}

/// The keyword and the text of a text chunk with EXIF or XMP.
fn text(kind: [u8; 4], data: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let (keyword, rest) = field(data)?;
    if !matches!(keyword, b"Raw profile type exif" | b"XML:com.adobe.xmp") {
        return None;
    }
    let text = match &kind {
        b"tEXt" => rest.to_vec(),
        b"zTXt" => unpacked(rest.get(1..)?),
        b"iTXt" => {
            let is_compressed = *rest.first()? == 1;
            let (_language, rest) = field(rest.get(2..)?)?;
            let (_translated_keyword, text) = field(rest)?;
            if is_compressed { unpacked(text) } else { text.to_vec() }
        }
        _ => return None,
    };
    Some((keyword, text))
}

/// The bytes before the next zero byte, and the bytes after it.
fn field(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = data.iter().position(|byte| *byte == 0)?;
    Some((&data[..end], &data[end + 1..]))
}

/// The text, as far as it can be unpacked.
fn unpacked(compressed: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    // Text before an error is kept.
    let _ = ZlibDecoder::new(compressed).take(LONGEST_TEXT).read_to_end(&mut text);
    text
}

/// ImageMagick's text format of binary data: an empty line, the name, the length, then hexadecimal digits.
fn raw_profile(text: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.split(|byte| *byte == b'\n').skip(3).flatten().copied().collect();
    let digits = digits.trim_ascii();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8; 2]| Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8);
    digits.as_chunks::<2>().0.iter().map(byte).collect()
}

/// The value of `tiff:Orientation`, as an attribute or as an element.
fn of_xmp(xmp: &[u8]) -> Option<Orientation> {
    const NAME: &[u8] = b"tiff:Orientation";
    let places = xmp.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME);
    let value = |(at, _): (usize, &[u8])| {
        let behind = &xmp[at + NAME.len()..];
        let value = behind.strip_prefix(b"=\"").or_else(|| behind.strip_prefix(b">"))?;
        value.first().filter(|digit| digit.is_ascii_digit()).map(|digit| digit - b'0')
    };
    Orientation::from_exif(places.filter_map(value).next()?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::ZlibEncoder};
    use image::codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder};
    use image::{ExtendedColorType, ImageEncoder};

    use crate::decode;

    /// Two pixels side by side; with orientation 6 or 8, one is above the other.
    const PIXELS: [u8; 6] = [250, 10, 10, 10, 10, 250];

    fn png() -> Vec<u8> {
        let mut file = Vec::new();
        PngEncoder::new(&mut file).write_image(&PIXELS, 2, 1, ExtendedColorType::Rgb8).unwrap();
        file
    }

    /// EXIF with one entry.
    fn exif(orientation: u8) -> Vec<u8> {
        [&b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"[..], &[orientation], &[0; 6]].concat()
    }

    /// EXIF whose orientation has the type LONG, as some programs write it, in both byte orders.
    fn long_exif(orientation: u8) -> [Vec<u8>; 2] {
        [
            [&b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01\0\0\0"[..], &[orientation], &[0; 4]].concat(),
            [&b"II*\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0"[..], &[orientation], &[0; 7]].concat(),
        ]
    }

    fn xmp(orientation: u8) -> [String; 2] {
        [
            format!("<x tiff:Orientation=\"{orientation}\"/>"),
            format!("<tiff:Orientation>{orientation}</tiff:Orientation>"),
        ]
    }

    /// A PNG chunk.
    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let mut crc = flate2::Crc::new();
        crc.update(kind);
        crc.update(data);
        [&(data.len() as u32).to_be_bytes()[..], kind, data, &crc.sum().to_be_bytes()].concat()
    }

    /// The PNG with this chunk before its pixels, and with the chunk after them.
    fn with(chunk: &[u8]) -> [Vec<u8>; 2] {
        let png = png();
        [b"IDAT", b"IEND"].map(|kind| {
            let at = png.windows(4).position(|window| window == kind).unwrap() - 4;
            [&png[..at], chunk, &png[at..]].concat()
        })
    }

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// Width and height of the picture after the orientation is applied.
    fn size(file: &[u8]) -> (u32, u32) {
        let picture = decode(file, 0).unwrap();
        (picture.width, picture.height)
    }

    #[test]
    fn a_png_is_turned_wherever_it_says_how() {
        let marked = [&b"Exif\0\0"[..], &exif(6)].concat();
        let hexadecimal: String = marked.iter().map(|byte| format!("{byte:02x}")).collect();
        let (first, rest) = hexadecimal.split_at(36);
        let profile = format!("\nexif\n{:8}\n{first}\n{rest}\n", marked.len());
        let keyword = b"Raw profile type exif\0";
        let text = |head: &[u8], text: &[u8]| [keyword, head, text].concat();
        let [attribute, element] = xmp(8);
        let of_xmp = |head: &[u8], text: &[u8]| [b"XML:com.adobe.xmp\0", head, text].concat();
        for chunk in [
            chunk(b"eXIf", &exif(6)),
            chunk(b"eXIf", &marked),
            chunk(b"eXIf", &long_exif(6)[0]),
            chunk(b"eXIf", &long_exif(6)[1]),
            chunk(b"tEXt", &text(b"", profile.as_bytes())),
            chunk(b"zTXt", &text(b"\0", &packed(profile.as_bytes()))),
            chunk(b"iTXt", &text(b"\0\0en\0\0", profile.as_bytes())),
            chunk(b"iTXt", &text(b"\x01\0\0\0", &packed(profile.as_bytes()))),
            chunk(b"iTXt", &of_xmp(b"\0\0\0\0", attribute.as_bytes())),
            chunk(b"iTXt", &of_xmp(b"\x01\0\0\0", &packed(element.as_bytes()))),
        ] {
            for file in with(&chunk) {
                assert_eq!(size(&file), (1, 2), "{}", String::from_utf8_lossy(&chunk));
            }
        }
        let turned = decode(&with(&chunk(b"eXIf", &exif(8)))[1], 0).unwrap().pixels;
        assert_eq!(turned, [10, 10, 250, 250, 10, 10], "8 turns to the left");
    }

    #[test]
    fn exif_overrides_xmp_and_without_an_orientation_nothing_is_turned() {
        let xmp_chunk =
            |value: u8| chunk(b"iTXt", &[b"XML:com.adobe.xmp\0\0\0\0\0", xmp(value)[0].as_bytes()].concat());
        let both = |of_exif: u8, of_xmp: u8| [chunk(b"eXIf", &exif(of_exif)), xmp_chunk(of_xmp)].concat();
        assert_eq!(size(&with(&both(1, 6))[0]), (2, 1));
        assert_eq!(size(&with(&both(6, 1))[0]), (1, 2));
        for chunk in [
            chunk(b"eXIf", b""),
            chunk(b"eXIf", &exif(9)),
            chunk(b"zTXt", b"Raw profile type exif\0\0not packed"),
            chunk(b"tEXt", b"Raw profile type exif\0\nexif\n2\nzz"),
            chunk(b"tEXt", b"Raw profile type exif"),
            chunk(b"iTXt", b"XML:com.adobe.xmp\0"),
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0tiff:Orientation"),
            chunk(b"tEXt", b"Comment\0tiff:Orientation=\"6\""),
        ] {
            for file in with(&chunk) {
                assert_eq!(size(&file), (2, 1), "{}", String::from_utf8_lossy(&chunk));
            }
        }
    }

    #[test]
    fn jpegs_and_webps_are_turned_too() {
        let mut jpeg = Vec::new();
        JpegEncoder::new(&mut jpeg).write_image(&PIXELS, 2, 1, ExtendedColorType::Rgb8).unwrap();
        let segment = |text: &[u8]| [&b"\xff\xe1"[..], &(text.len() as u16 + 2).to_be_bytes(), text].concat();
        let jpeg_with = |text: &[u8]| [&jpeg[..2], &segment(text), &jpeg[2..]].concat();
        assert_eq!(size(&jpeg), (2, 1));
        for exif in [&[exif(6)][..], &long_exif(6)].concat() {
            assert_eq!(size(&jpeg_with(&[b"Exif\0\0", &exif[..]].concat())), (1, 2));
        }
        let marked = |orientation: u8| segment(&[b"Exif\0\0", &exif(orientation)[..]].concat());
        for (first, second, expected) in [(6, 1, (1, 2)), (1, 6, (2, 1))] {
            let file = [&jpeg[..2], &marked(first), &marked(second), &jpeg[2..]].concat();
            assert_eq!(size(&file), expected, "of two the first counts");
        }
        let of_xmp = [b"http://ns.adobe.com/xap/1.0/\0", xmp(6)[0].as_bytes()].concat();
        assert_eq!(size(&jpeg_with(&of_xmp)), (1, 2));

        // Some programs also write the `Exif` mark of a JPEG.
        let [big_endian, little_endian] = long_exif(6);
        for exif in [exif(6), [&b"Exif\0\0"[..], &exif(6)].concat(), big_endian, little_endian] {
            let mut file = Vec::new();
            let mut encoder = WebPEncoder::new_lossless(&mut file);
            encoder.set_exif_metadata(exif).unwrap();
            encoder.write_image(&PIXELS, 2, 1, ExtendedColorType::Rgb8).unwrap();
            assert_eq!(size(&file), (1, 2));
        }
    }
}
