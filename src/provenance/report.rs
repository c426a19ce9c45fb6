//! What the credentials of a file say, and whether they are intact.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{generation::Format, hex::hex};

/// What the credentials of a file say, and whether they are intact.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub object: &'static str,
    pub content_type: &'static str,
    /// SHA-256 of the whole file.
    pub sha256: String,
    pub verdict: Verdict,
    /// The verdict in a sentence.
    pub explanation: String,
    /// Whether the file was signed with the certificate of this server, and is intact.
    pub by_this_server: bool,
    /// Whether an anchor of `provenance.trust_anchors` vouches for the signer, and the file is intact.
    pub trusted: bool,
    pub signer: Option<SignedBy>,
    /// The program that wrote the credentials.
    pub claim_generator: Option<String>,
    pub actions: Vec<Action>,
    /// The statement of latentd about a file that it made; `None` in credentials of other programs.
    pub generation: Option<Value>,
    pub ingredients: Vec<Ingredient>,
    /// What is wrong with the credentials.
    pub problems: Vec<Problem>,
}

/// The result of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The file has no credentials.
    None,
    /// The credentials, or the file around them, cannot be read.
    Unreadable,
    /// The file, or its credentials, were changed after signing, or the signature is not valid.
    Altered,
    /// Nothing was changed after signing.
    Intact,
    /// This build cannot read credentials.
    NotBuilt,
}

impl Verdict {
    /// All verdicts.
    pub const ALL: [Verdict; 5] =
        [Verdict::None, Verdict::Unreadable, Verdict::Altered, Verdict::Intact, Verdict::NotBuilt];

    /// The word in JSON and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::None => "none",
            Verdict::Unreadable => "unreadable",
            Verdict::Altered => "altered",
            Verdict::Intact => "intact",
            Verdict::NotBuilt => "not_built",
        }
    }
}

/// The signer, from the certificate in the credentials.
#[derive(Clone, Debug, Serialize)]
pub struct SignedBy {
    pub common_name: Option<String>,
    pub issuer: Option<String>,
    pub algorithm: Option<String>,
    pub serial_number: Option<String>,
    /// When the file was signed, according to the time stamp in its credentials; `None` if they have no time stamp.
    pub time: Option<String>,
}

/// What was done to the file.
#[derive(Clone, Debug, Serialize)]
pub struct Action {
    pub action: String,
    /// The IPTC term for the kind of source, such as a trained model, as a URL.
    pub digital_source_type: Option<String>,
    pub software_agent: Option<String>,
    pub when: Option<String>,
}

/// A file that the file was made from.
#[derive(Clone, Debug, Serialize)]
pub struct Ingredient {
    pub title: Option<String>,
    pub format: Option<String>,
    pub relationship: &'static str,
    /// The verdict about the credentials of this ingredient when it was used.
    pub verdict: Verdict,
}

/// What is wrong with the credentials.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// A status code of the C2PA specification, such as `assertion.dataHash.mismatch`, or `unreadable`.
    pub code: String,
    pub explanation: Option<String>,
}

impl Report {
    /// Whether the file is a picture, in which latentd looks for a watermark. Animated PNG and WebP files are pictures
    /// here.
    pub fn is_picture(&self) -> bool {
        Format::PICTURES.iter().any(|format| format.media_type() == self.content_type)
    }
}

/// The format of a file, by its first bytes. An animated PNG is a PNG here.
pub(super) fn format_of(file: &[u8]) -> Option<Format> {
    match file {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Format::Png),
        [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::Webp),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => Some(Format::Wav),
        [b'f', b'L', b'a', b'C', ..] => Some(Format::Flac),
        [b'I', b'D', b'3', ..] if has_flac_behind_id3(file) => Some(Format::Flac),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Format::Gif),
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] if is_mp4(brand) => Some(Format::Mp4),
        _ => None,
    }
}

/// Whether the major brand of a file of ISO boxes, with which `brand` begins, is one of MP4. QuickTime and still
/// pictures, such as AVIF and HEIC, have other brands.
fn is_mp4(brand: &[u8]) -> bool {
    const MP4: [&[u8]; 6] = [b"iso", b"mp4", b"av01", b"avc1", b"M4V", b"dash"];
    brand.len() >= 4 && MP4.iter().any(|known| brand.starts_with(known))
}

/// Whether a FLAC stream follows an ID3v2 tag, in which the content credentials of FLAC files are. The length of the
/// tag has seven bits in each of four bytes.
fn has_flac_behind_id3(file: &[u8]) -> bool {
    let Some(length) = file.get(6..10) else { return false };
    let length = length.iter().fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f));
    file.get(10 + length..).is_some_and(|rest| rest.starts_with(b"fLaC"))
}

/// A report without credentials.
pub(super) fn report(format: Format, file: &[u8], verdict: Verdict) -> Report {
    Report {
        object: "verification",
        content_type: format.media_type(),
        sha256: hex(Sha256::digest(file)),
        verdict,
        explanation: explanation(verdict, false, false).to_owned(),
        by_this_server: false,
        trusted: false,
        signer: None,
        claim_generator: None,
        actions: Vec::new(),
        generation: None,
        ingredients: Vec::new(),
        problems: Vec::new(),
    }
}

/// The verdict in a sentence.
pub(super) fn explanation(verdict: Verdict, by_this_server: bool, trusted: bool) -> &'static str {
    match verdict {
        Verdict::None => "The file has no content credentials. This says nothing about how it was made.",
        Verdict::NotBuilt => {
            "This build of latentd cannot read content credentials, because the Cargo feature provenance is off. It \
             looks for the watermark only."
        }
        Verdict::Unreadable => "The file has no content credentials that can be read.",
        Verdict::Altered => {
            "The content credentials are not valid: the file was changed after it was signed, or the signature is not \
             valid."
        }
        Verdict::Intact if by_this_server => {
            "The file was signed with the certificate of this server and has not changed since."
        }
        Verdict::Intact if trusted => "The file was signed by a trusted signer and has not changed since.",
        Verdict::Intact => {
            "The file has not changed since it was signed, but no trust anchor of this server vouches for the signer."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_format() {
        let boxes = |brand: &[u8]| [b"\0\0\0\x18ftyp", brand, b"\0\0\x02\0"].concat();
        for (file, format) in [
            (b"\x89PNG\r\n\x1a\n".to_vec(), Format::Png),
            (b"\xff\xd8\xff\xe0".to_vec(), Format::Jpeg),
            (b"RIFF\x04\0\0\0WEBP".to_vec(), Format::Webp),
            (b"RIFF\x04\0\0\0WAVE".to_vec(), Format::Wav),
            (b"fLaC\0".to_vec(), Format::Flac),
            (b"ID3\x03\0\0\0\0\x01\x02".iter().chain(&[0; 130]).chain(b"fLaC").copied().collect(), Format::Flac),
            (b"GIF89a".to_vec(), Format::Gif),
            (b"GIF87a".to_vec(), Format::Gif),
            (boxes(b"isom"), Format::Mp4),
            (boxes(b"mp42"), Format::Mp4),
        ] {
            assert_eq!(format_of(&file), Some(format), "{file:?}");
            assert_eq!(report(format, &file, Verdict::None).is_picture(), Format::PICTURES.contains(&format));
        }
        for file in [
            b"".to_vec(),
            b"RIFF\x04\0\0\0AVI ".to_vec(),
            b"GIF90a".to_vec(),
            b"PK\x03\x04".to_vec(),
            b"ID3\x03\0\0\x7f\x7f\x7f\x7f".to_vec(),
        ] {
            assert_eq!(format_of(&file), None, "{file:?}");
        }
        for brand in [&b"avif"[..], b"heic", b"qt  ", b"mif1", b"mp4"] {
            assert_eq!(format_of(&[b"\0\0\0\x18ftyp", brand].concat()), None, "{brand:?}");
        }
    }
}
