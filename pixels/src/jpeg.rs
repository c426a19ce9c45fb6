//! Checks the structure of a JPEG file, and finds its EXIF (ITU-T T.81, annex B).

mod scan;

pub(super) use scan::has_all_pixels;

const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;
const APP1: u8 = 0xe1;

/// Whether the file reaches its end marker, EOI. The decoder fills missing parts with gray; Pillow, and therefore
/// diffusers, rejects such files. Bytes after the marker do not belong to the picture.
pub(super) fn is_whole(file: &[u8]) -> bool {
    segments(file).last().is_some_and(|segment| segment.marker == END_OF_IMAGE)
}

/// Whether each scan of a sequential JPEG has all components. The decoder, zune-jpeg 0.5.15, decodes other sequential
/// files to a wrong picture (green, or without its last rows) without an error. It reads progressive files correctly.
pub(super) fn has_shared_scans(file: &[u8]) -> bool {
    let mut components = 0;
    segments(file).all(|segment| match segment.marker {
        0xc0 | 0xc1 => {
            components = segment.data.get(5).copied().unwrap_or(0);
            true
        }
        START_OF_SCAN => segment.data.first().is_none_or(|count| *count >= components),
        _ => true,
    })
}

/// The EXIF of the file, including its `Exif` mark. If there are several segments, the first one counts, as in Pillow.
pub(super) fn exif(file: &[u8]) -> Option<&[u8]> {
    let mut head = segments(file).take_while(|segment| segment.marker != START_OF_SCAN);
    head.find(|segment| segment.marker == APP1 && segment.data.starts_with(b"Exif\0\0")).map(|segment| segment.data)
}

/// A segment of the file.
struct Segment<'a> {
    marker: u8,
    /// The data that the length of the segment covers.
    data: &'a [u8],
    /// The rest of the file. After the start of a scan it begins with the data of the scan.
    behind: &'a [u8],
}

/// The segments of the file; the last one is the end marker. The start of another picture also ends the list, so that a
/// truncated file has no end marker, even if a whole picture follows. In the data of a scan, a byte 255 is followed by
/// a zero or belongs to a restart marker; the search passes over both.
fn segments(file: &[u8]) -> impl Iterator<Item = Segment<'_>> {
    let mut rest = file.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        while let Some(at) = rest.iter().position(|byte| *byte == 0xff) {
            rest = &rest[at + 1..];
            let (segment, behind) = match rest {
                // Scan data, a restart marker, or a fill byte before a marker.
                [0x00 | 0x01 | 0xd0..=0xd7 | 0xff, ..] => continue,
                [0xd8, ..] | [] => break,
                [END_OF_IMAGE, behind @ ..] => (Segment { marker: END_OF_IMAGE, data: &[], behind }, &[][..]),
                [marker, behind @ ..] => {
                    let (length, _) = behind.split_first_chunk::<2>()?;
                    let (data, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
                    (Segment { marker: *marker, data: data.get(2..)?, behind }, behind)
                }
            };
            rest = behind;
            return Some(segment);
        }
        rest = &[];
        None
    })
}

#[cfg(test)]
mod tests {
    use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder};

    use super::*;
    use crate::{DecodeError, decode};

    /// 24 × 16 pixels in several scans, written by Pillow.
    const PROGRESSIVE: &[u8] = include_bytes!("../../tests/fixtures/inputs/progressive.jpg");

    fn baseline() -> Vec<u8> {
        let pixels: Vec<u8> = (0..3 * 40 * 24).map(|i| (i * i % 251) as u8).collect();
        let mut file = Vec::new();
        JpegEncoder::new_with_quality(&mut file, 80).write_image(&pixels, 40, 24, ExtendedColorType::Rgb8).unwrap();
        file
    }

    /// Pillow rejects all of these files, too.
    #[test]
    fn a_truncated_file_is_refused_wherever_it_was_cut() {
        for whole in [baseline(), PROGRESSIVE.to_vec()] {
            assert!(decode(&whole, 0).is_ok());
            let scan = whole.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
            for length in 0..whole.len() {
                let cut = decode(&whole[..length], 0);
                assert!(cut.is_err(), "{length} of {} bytes", whole.len());
                if length > scan + 64 {
                    assert!(matches!(cut, Err(DecodeError::CutShort)), "{length}: {cut:?}");
                }
            }
        }
    }

    #[test]
    fn bytes_after_the_end_are_ignored() {
        for whole in [baseline(), PROGRESSIVE.to_vec()] {
            let picture = decode(&whole, 0).unwrap();
            for more in [&b"more"[..], &[0; 9], &[0xff; 20], &whole] {
                assert_eq!(decode(&[&whole, more].concat(), 0).unwrap(), picture);
            }
        }
    }

    /// The check depends on where the scan data ends, not on the bytes that follow.
    #[test]
    fn a_cut_scan_is_refused_whatever_follows_it() {
        for whole in [baseline(), PROGRESSIVE.to_vec()] {
            let scan = whole.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
            let scan_end = scan + 2 + whole[scan + 2..].windows(2).position(is_marker).unwrap();
            let other = baseline();
            for length in scan + 20..scan_end - 1 {
                for next in [&other[..], &b"\xff\xd9"[..], &[&b"\xff\xd9"[..], &other].concat()] {
                    let cut = decode(&[&whole[..length], next].concat(), 0);
                    let refused = matches!(cut, Err(DecodeError::CutShort | DecodeError::Incomplete));
                    assert!(refused, "{length} of {} bytes: {cut:?}", whole.len());
                }
            }
        }
    }

    /// Without the check, the decoder would draw the picture from the remaining scans, for example with blurred blocks.
    #[test]
    fn a_progressive_picture_without_its_last_scans_is_refused() {
        let scans: Vec<usize> =
            (0..PROGRESSIVE.len()).filter(|at| PROGRESSIVE[*at..].starts_with(&[0xff, 0xda])).collect();
        assert!(scans.len() > 5);
        for scan in &scans {
            // If Huffman codes stand before the first removed scan, the cut file keeps them.
            let cut = decode(&[&PROGRESSIVE[..*scan], b"\xff\xd9"].concat(), 0);
            assert!(cut.is_err(), "{scan}");
        }
        for (scan, end) in scans.iter().zip(&scans[1..]) {
            let left_out = decode(&[&PROGRESSIVE[..*scan], &PROGRESSIVE[*end..]].concat(), 0);
            assert!(matches!(left_out, Err(DecodeError::Incomplete | DecodeError::Broken(_))), "{scan}: {left_out:?}");
        }
    }

    /// Whether these two bytes are a marker that ends the data of a scan.
    fn is_marker(pair: &[u8]) -> bool {
        pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xd0..=0xd7 | 0xff)
    }

    /// An encoder with optimized Huffman tables writes one scan per component.
    #[test]
    fn baseline_scans_of_one_component_are_refused() {
        let pixels = [200, 120, 40].repeat(64 * 64);
        for (quality, optimized, progressive, is_read) in [
            (80, false, false, true),
            (80, true, false, false),
            (80, true, true, true),
            // From a quality of 90 on, color has the full resolution.
            (95, false, false, true),
            (95, true, false, false),
        ] {
            let mut file = Vec::new();
            let mut encoder = jpeg_encoder::Encoder::new(&mut file, quality);
            encoder.set_optimized_huffman_tables(optimized);
            encoder.set_progressive(progressive);
            encoder.encode(&pixels, 64, 64, jpeg_encoder::ColorType::Rgb).unwrap();
            match decode(&file, 0) {
                Ok(picture) => {
                    assert!(is_read, "{quality}");
                    assert!(picture.pixels.iter().zip(&pixels).all(|(a, b)| a.abs_diff(*b) <= 4), "{quality}");
                }
                Err(error) => {
                    assert!(!is_read && matches!(error, DecodeError::SeparateScans), "{quality}: {error:?}");
                }
            }
        }
        // A picture with one component has all its components in one scan.
        let mut file = Vec::new();
        JpegEncoder::new(&mut file).write_image(&[7; 64], 8, 8, ExtendedColorType::L8).unwrap();
        assert!(decode(&file, 0).is_ok());
    }

    /// A thumbnail in the metadata has its own end marker.
    #[test]
    fn the_end_of_a_thumbnail_is_not_the_end() {
        let whole = baseline();
        let thumbnail = [&b"\xff\xe1\x00\x0c"[..], b"\xff\xd8\xff\xda\x00\x02\x01\xff\xd9\x00"].concat();
        let file = [&whole[..2], &thumbnail, &whole[2..]].concat();
        assert!(is_whole(&file));
        assert!(!is_whole(&file[..file.len() - 2]));
        for hostile in [
            &b""[..],
            b"\xff",
            b"\xff\xd8\xff",
            b"\xff\xd8\xff\xe1",
            b"\xff\xd8\xff\xe1\xff\xff",
            b"\xff\xd8\xff\xe1\0\0",
        ] {
            assert!(!is_whole(hostile));
        }
    }
}
