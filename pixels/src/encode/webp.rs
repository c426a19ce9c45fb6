//! WebP files: lossless, with metadata as EXIF and XMP.

use image_webp::{ColorType, WebPEncoder};

use super::{EncodeError, Metadata, exif, xmp};

/// Encodes a finished picture of width × height RGB pixels.
pub(super) fn encode(pixels: &[u8], [width, height]: [u32; 2], metadata: &Metadata) -> Result<Vec<u8>, EncodeError> {
    let mut file = Vec::with_capacity(pixels.len() / 2);
    let mut encoder = WebPEncoder::new(&mut file);
    match metadata {
        Metadata::Full { parameters, request } => {
            encoder.set_exif_metadata(exif::user_comment(parameters));
            encoder.set_xmp_metadata(xmp::packet("request", request).into_bytes());
        }
        Metadata::Seed(seed) => encoder.set_xmp_metadata(xmp::packet("seed", seed).into_bytes()),
        Metadata::None => {}
    }
    encoder.encode(pixels, width, height, ColorType::Rgb8)?;
    Ok(file)
}
