//! Reads the orientation and the user comment from EXIF, which has the layout of a TIFF file (TIFF 6.0, section 2).

use image::metadata::Orientation;

/// Reads the orientation as Pillow does: an integer of 2 or 4 bytes in the first directory. The `Exif` mark of a JPEG
/// may come first, because some programs also write it in other files.
pub(super) fn orientation(exif: &[u8]) -> Option<Orientation> {
    let (tiff, order) = opened(exif)?;
    order.entries(tiff, &tiff[4..8])?.find_map(|entry| order.orientation(entry))
}

/// The text of `UserComment` in the EXIF directory: UTF-16 in the byte order of the file, or UTF-8. `None` if the EXIF
/// has no comment, or if the comment has another character set.
pub(super) fn user_comment(exif: &[u8]) -> Option<String> {
    const EXIF_DIRECTORY: u32 = 0x8769;
    const USER_COMMENT: u32 = 0x9286;
    let (tiff, order) = opened(exif)?;
    let found = |offset, tag| order.entries(tiff, offset)?.find(|entry| order.number(&entry[..2]) == tag);
    let directory = found(&tiff[4..8], EXIF_DIRECTORY)?;
    let entry = found(&directory[8..12], USER_COMMENT)?;
    let [length, start] = [4..8, 8..12].map(|range| order.number(&entry[range]) as usize);
    let comment = tiff.get(start..start.checked_add(length)?)?;
    let (charset, text) = comment.split_first_chunk::<8>()?;
    match charset {
        b"UNICODE\0" => {
            let units: Vec<u16> = text.as_chunks::<2>().0.iter().map(|unit| order.number(unit) as u16).collect();
            String::from_utf16(&units).ok()
        }
        b"ASCII\0\0\0" | b"\0\0\0\0\0\0\0\0" => Some(std::str::from_utf8(text).ok()?.trim_end_matches('\0').to_owned()),
        _ => None,
    }
}

/// The TIFF file in EXIF, of at least 8 bytes, and its byte order.
fn opened(exif: &[u8]) -> Option<(&[u8], Order)> {
    let mut tiff = exif;
    while let Some(rest) = tiff.strip_prefix(b"Exif\0\0") {
        tiff = rest;
    }
    let order = match tiff.get(..8)?.first_chunk::<4>()? {
        b"MM\0*" | b"MM*\0" => Order::BigEndian,
        b"II*\0" | b"II\0*" => Order::LittleEndian,
        _ => return None,
    };
    Some((tiff, order))
}

/// The byte order of the file.
#[derive(Clone, Copy)]
enum Order {
    BigEndian,
    LittleEndian,
}

impl Order {
    /// A number of at most four bytes.
    fn number(self, bytes: &[u8]) -> u32 {
        let join = |number: u32, byte: &u8| number << 8 | u32::from(*byte);
        match self {
            Order::BigEndian => bytes.iter().fold(0, join),
            Order::LittleEndian => bytes.iter().rev().fold(0, join),
        }
    }

    /// The entries of the directory at this offset, 12 bytes each.
    fn entries<'a>(self, tiff: &'a [u8], offset: &[u8]) -> Option<impl Iterator<Item = &'a [u8]> + use<'a>> {
        let (count, entries) = tiff.get(self.number(offset) as usize..)?.split_at_checked(2)?;
        Some(entries.chunks_exact(12).take(self.number(count) as usize))
    }

    /// The orientation, if the entry holds one. An entry has a tag, a type, a number of values and a value, which is
    /// aligned to the left of its field.
    fn orientation(self, entry: &[u8]) -> Option<Orientation> {
        const TAG: u32 = 0x112;
        const SHORT: u32 = 3;
        const LONG: u32 = 4;
        const SIGNED_SHORT: u32 = 8;
        const SIGNED_LONG: u32 = 9;
        let [tag, kind, count] = [0..2, 2..4, 4..8].map(|range| self.number(&entry[range]));
        let bytes = match kind {
            SHORT | SIGNED_SHORT => 2,
            LONG | SIGNED_LONG => 4,
            _ => return None,
        };
        if (tag, count) != (TAG, 1) {
            return None;
        }
        Orientation::from_exif(u8::try_from(self.number(&entry[8..8 + bytes])).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_numbers_of_every_size_are_read_in_both_orders() {
        let entry = |order: fn(u16) -> [u8; 2], kind: u16, value: &[u8]| {
            [&order(0x112)[..], &order(kind), if order(1)[0] == 0 { &[0, 0, 0, 1] } else { &[1, 0, 0, 0] }, value]
                .concat()
        };
        for (kind, is_long) in [(3, false), (8, false), (4, true), (9, true)] {
            let big = entry(u16::to_be_bytes, kind, if is_long { &[0, 0, 0, 6] } else { &[0, 6, 0, 0] });
            let little = entry(u16::to_le_bytes, kind, &[6, 0, 0, 0]);
            // Another entry before the orientation, and a directory that does not directly follow the header.
            let other = [0; 12];
            for file in [
                [&b"MM\0*\0\0\0\x0aab\0\x02"[..], &other, &big].concat(),
                [&b"Exif\0\0II*\0\x0a\0\0\0ab\x02\0"[..], &other, &little].concat(),
            ] {
                assert_eq!(orientation(&file), Some(Orientation::Rotate90), "type {kind}");
            }
        }
    }

    #[test]
    fn a_comment_is_read_in_both_orders_and_in_every_character_set() {
        let file = |order: fn(u32) -> [u8; 4], comment: &[u8]| {
            let is_big = order(1)[3] == 1;
            let short = |number: u32| if is_big { order(number)[2..].to_vec() } else { order(number)[..2].to_vec() };
            let entry =
                |tag, kind, count, value| [short(tag), short(kind), order(count).into(), order(value).into()].concat();
            let mark = if is_big { b"MM\0*" } else { b"II*\0" };
            let directory = |entry: Vec<u8>| [short(1), entry, vec![0; 4]].concat();
            let (first, second) = (entry(0x8769, 4, 1, 26), entry(0x9286, 7, comment.len() as u32, 44));
            [mark.to_vec(), order(8).into(), directory(first), directory(second), comment.to_vec()].concat()
        };
        for (comment, expected) in [
            (&b"UNICODE\0\0a\x72\xd0"[..], Some("a\u{72d0}")),
            (&b"ASCII\0\0\0a fox\0"[..], Some("a fox")),
            (&b"\0\0\0\0\0\0\0\0a fox"[..], Some("a fox")),
            (&b"JIS\0\0\0\0\0a fox"[..], None),
            (&b"short"[..], None),
        ] {
            assert_eq!(user_comment(&file(u32::to_be_bytes, comment)).as_deref(), expected);
        }
        let little = file(u32::to_le_bytes, b"UNICODE\0a\0\xd0\x72");
        assert_eq!(user_comment(&little).as_deref(), Some("a\u{72d0}"));
        assert_eq!(user_comment(&little[..little.len() - 1]), None, "cut short");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(is_big: bool, rest in proptest::collection::vec(any::<u8>(), 0..64)) {
            let file = [if is_big { &b"MM\0*"[..] } else { b"II*\0" }, &rest].concat();
            for bytes in [&rest, &file] {
                orientation(bytes);
                user_comment(bytes);
            }
        }
    }
}
