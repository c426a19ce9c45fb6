//! JPEG files, with metadata as EXIF and XMP.

use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder};
use md5::{Digest, Md5};

use super::{EncodeError, Metadata, exif, xmp};

/// Maximum bytes of a segment, without marker and length.
const MAX_SEGMENT: usize = 65_533;
/// Bytes of an XMP document per segment, as the XMP specification advises.
const XMP_PART: usize = 65_400;

/// Encodes a finished picture of width × height RGB pixels as a baseline JPEG. Below a quality of 90, color has half
/// the resolution. Optimized Huffman tables would save a tenth of the bytes, but with them the encoder writes one scan
/// per component, which zune-jpeg 0.5.15, the decoder of `image`, decodes to a wrong picture.
pub(super) fn encode(
    pixels: &[u8],
    [width, height]: [u32; 2],
    quality: u8,
    metadata: &Metadata,
) -> Result<Vec<u8>, EncodeError> {
    let (Ok(width), Ok(height)) = (u16::try_from(width), u16::try_from(height)) else {
        return Err(EncodeError::TooLarge { width, height });
    };
    let mut file = Vec::with_capacity(pixels.len() / 4);
    let mut encoder = Encoder::new(&mut file, quality);
    // By default, the encoder would take the color of one of four pixels for all four.
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    for segment in segments(metadata) {
        encoder.add_app_segment(1, segment)?;
    }
    encoder.encode(pixels, width, height, ColorType::Rgb)?;
    Ok(file)
}

/// The APP1 segments with the metadata. Parameters that do not fit into one EXIF segment (more than about 32,000
/// characters) are left out, because truncated parameters would describe another picture. The request is included at
/// any length.
fn segments(metadata: &Metadata) -> Vec<Vec<u8>> {
    match metadata {
        Metadata::Full { parameters, request } => {
            let exif = [b"Exif\0\0", exif::user_comment(parameters).as_slice()].concat();
            let exif = Some(exif).filter(|segment| segment.len() <= MAX_SEGMENT);
            exif.into_iter().chain(xmp_segments("request", request)).collect()
        }
        Metadata::Seed(seed) => xmp_segments("seed", seed),
        Metadata::None => Vec::new(),
    }
}

/// An XMP packet in one segment, or in several if it is longer (XMP specification part 3, 1.1.3.1).
fn xmp_segments(property: &str, json: &str) -> Vec<Vec<u8>> {
    let main = |packet: String| [b"http://ns.adobe.com/xap/1.0/\0", packet.as_bytes()].concat();
    let whole = main(xmp::packet(property, json));
    if whole.len() <= MAX_SEGMENT {
        return vec![whole];
    }
    let document = xmp::document(property, json);
    let digest: String = Md5::digest(&document).iter().map(|byte| format!("{byte:02X}")).collect();
    let length = (document.len() as u32).to_be_bytes();
    let part = |(index, part): (usize, &[u8])| {
        let offset = ((index * XMP_PART) as u32).to_be_bytes();
        [b"http://ns.adobe.com/xmp/extension/\0", digest.as_bytes(), &length, &offset, part].concat()
    };
    let parts = document.as_bytes().chunks(XMP_PART).enumerate().map(part);
    [main(xmp::packet_of(&digest))].into_iter().chain(parts).collect()
}
