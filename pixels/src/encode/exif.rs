//! Writes EXIF with a user comment. AUTOMATIC1111's web interface and related tools read the parameters of a JPEG or
//! WebP from this field.

/// A TIFF file (big-endian, EXIF 2.32) whose EXIF directory has this `UserComment` in UTF-16. The text is big-endian
/// too, because image tools read the comment with piexif, which supports no other byte order of UTF-16.
pub(super) fn user_comment(text: &str) -> Vec<u8> {
    const UNDEFINED: u16 = 7;
    const LONG: u16 = 4;
    // The layout: header, a directory with one entry, a directory with two entries, and the comment.
    const DIRECTORY: u32 = 8;
    const EXIF_DIRECTORY: u32 = DIRECTORY + 2 + 12 + 4;
    const COMMENT: u32 = EXIF_DIRECTORY + 2 + 2 * 12 + 4;

    let utf_16 = text.encode_utf16().flat_map(u16::to_be_bytes);
    let comment: Vec<u8> = b"UNICODE\0".iter().copied().chain(utf_16).collect();
    [
        b"MM\0*".as_slice(),
        &DIRECTORY.to_be_bytes(),
        &1_u16.to_be_bytes(),
        &entry(0x8769, LONG, 1, EXIF_DIRECTORY.to_be_bytes()),
        &END,
        &2_u16.to_be_bytes(),
        &entry(0x9000, UNDEFINED, 4, *b"0232"),
        &entry(0x9286, UNDEFINED, comment.len() as u32, COMMENT.to_be_bytes()),
        &END,
        &comment,
    ]
    .concat()
}

/// The end of a directory: no directory follows.
const END: [u8; 4] = [0; 4];

/// An entry of a directory. `value` is the value itself if it has 4 bytes, and otherwise its offset in the file.
fn entry(tag: u16, kind: u16, count: u32, value: [u8; 4]) -> [u8; 12] {
    let ([t0, t1], [k0, k1]) = (tag.to_be_bytes(), kind.to_be_bytes());
    let ([c0, c1, c2, c3], [v0, v1, v2, v3]) = (count.to_be_bytes(), value);
    [t0, t1, k0, k1, c0, c1, c2, c3, v0, v1, v2, v3]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected bytes come from piexif 1.1.3: `UserComment.dump("a 狐 🦊", "unicode")`.
    #[test]
    fn the_comment_is_what_the_tools_around_write() {
        let comment = b"UNICODE\0\0a\0 \x72\xd0\0 \xd8\x3e\xdd\x8a";
        let tiff = user_comment("a 狐 🦊");
        assert!(tiff.ends_with(comment));
        assert_eq!(tiff.len(), 56 + comment.len());
        assert_eq!(tiff[48..52], (56_u32.to_be_bytes()), "its place in the file");
    }
}
