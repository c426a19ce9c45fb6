//! Whether a JPEG is whole.

/// Whether the file goes on to its end marker, EOI. The decoder paints grey what was cut off; Pillow, and with it diffusers,
/// refuses such a file. What follows the marker is no part of the picture.
///
/// ITU-T T.81, annex B: after the start marker come segments, each with its length, and behind that of a scan its data, in
/// which a byte 255 is followed by a zero or belongs to a restart marker.
pub(super) fn is_whole(file: &[u8]) -> bool {
    let mut rest = file.get(2..).unwrap_or_default();
    while let Some(at) = rest.iter().position(|byte| *byte == 0xff) {
        rest = &rest[at + 1..];
        match rest {
            [0xd9, ..] => return true,
            // Data, a restart, or a filling byte before a marker.
            [0x00 | 0x01 | 0xd0..=0xd8 | 0xff, ..] => {}
            [_, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                rest = rest.get(1 + length..).unwrap_or_default();
            }
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder};

    use super::*;
    use crate::imaging::{DecodeError, decode};

    /// 24 × 16 pixels in several scans, by Pillow.
    const PROGRESSIVE: &[u8] = include_bytes!("../../tests/fixtures/inputs/progressive.jpg");

    fn baseline() -> Vec<u8> {
        let pixels: Vec<u8> = (0..3 * 40 * 24).map(|i| (i * i % 251) as u8).collect();
        let mut file = Vec::new();
        JpegEncoder::new_with_quality(&mut file, 80).write_image(&pixels, 40, 24, ExtendedColorType::Rgb8).unwrap();
        file
    }

    /// As Pillow refuses them all.
    #[test]
    fn what_was_cut_short_is_refused_wherever_it_was_cut() {
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
    fn what_follows_the_end_is_no_part_of_the_picture() {
        for whole in [baseline(), PROGRESSIVE.to_vec()] {
            let picture = decode(&whole, 0).unwrap();
            for more in [&b"more"[..], &[0; 9], &[0xff; 20], &whole] {
                assert_eq!(decode(&[&whole, more].concat(), 0).unwrap(), picture);
            }
        }
    }

    /// A picture within the metadata has an end of its own.
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
