//! Takes the content credentials out of a file, so that tests can compare what depends on the request alone.

/// The file without its content credentials: a PNG without its chunk `caBX`, a JPEG without its segments of JUMBF, a
/// WebP or WAV file without its chunk `C2PA`, or a FLAC file without its ID3 tag. A file without credentials stays as
/// it is.
pub fn unsigned(file: &[u8]) -> Vec<u8> {
    match file {
        [0x89, b'P', b'N', b'G', ..] => png(file),
        [0xff, 0xd8, ..] => jpeg(file),
        [b'R', b'I', b'F', b'F', ..] => riff(file),
        [b'I', b'D', b'3', ..] => {
            // The length has 7 bits in each of 4 bytes, and does not count the 10 bytes before the tag's content.
            let length = file[6..10].iter().fold(0, |length, byte| length << 7 | usize::from(*byte));
            file[10 + length..].to_vec()
        }
        _ => file.to_vec(),
    }
}

fn png(file: &[u8]) -> Vec<u8> {
    let (mut kept, mut rest) = (file[..8].to_vec(), &file[8..]);
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize + 12;
        if &rest[4..8] != b"caBX" {
            kept.extend(&rest[..length]);
        }
        rest = &rest[length..];
    }
    kept
}

fn jpeg(file: &[u8]) -> Vec<u8> {
    let (mut kept, mut rest) = (file[..2].to_vec(), &file[2..]);
    // After the marker SOS, there are no more segments of this kind.
    while rest[1] != 0xda {
        let length = u16::from_be_bytes(rest[2..4].try_into().unwrap()) as usize + 2;
        // APP11 with the identifier of JUMBF.
        if !(rest[1] == 0xeb && &rest[4..6] == b"JP") {
            kept.extend(&rest[..length]);
        }
        rest = &rest[length..];
    }
    kept.extend(rest);
    kept
}

fn riff(file: &[u8]) -> Vec<u8> {
    let (mut kept, mut rest) = (file[..12].to_vec(), &file[12..]);
    while !rest.is_empty() {
        let length = (u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize).next_multiple_of(2) + 8;
        if &rest[..4] != b"C2PA" {
            kept.extend(&rest[..length]);
        }
        rest = &rest[length..];
    }
    let length = kept.len() as u32 - 8;
    kept[4..8].copy_from_slice(&length.to_le_bytes());
    kept
}
