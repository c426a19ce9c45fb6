//! Reads the orientation from EXIF, which has the layout of a TIFF file (TIFF 6.0, section 2).

use image::metadata::Orientation;

/// Reads the orientation as Pillow does: an integer of 2 or 4 bytes in the first directory. The `Exif` mark of a JPEG
/// may come first, because some programs also write it in other files.
pub(super) fn orientation(exif: &[u8]) -> Option<Orientation> {
    let mut tiff = exif;
    while let Some(rest) = tiff.strip_prefix(b"Exif\0\0") {
        tiff = rest;
    }
    let order = match tiff.get(..4)? {
        b"MM\0*" | b"MM*\0" => Order::BigEndian,
        b"II*\0" | b"II\0*" => Order::LittleEndian,
        _ => return None,
    };
    let directory = tiff.get(order.number(tiff.get(4..8)?) as usize..)?;
    let (count, entries) = directory.split_at_checked(2)?;
    let entries = entries.chunks_exact(12).take(order.number(count) as usize);
    entries.filter_map(|entry| order.orientation(entry)).next()
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

    proptest! {
        #[test]
        fn any_bytes_are_read(is_big: bool, rest in proptest::collection::vec(any::<u8>(), 0..64)) {
            orientation(&rest);
            orientation(&[if is_big { &b"MM\0*"[..] } else { b"II*\0" }, &rest].concat());
        }
    }
}
