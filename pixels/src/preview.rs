//! Previews: small pictures of a run that is not finished.

use std::borrow::Cow;

use super::{EncodeError, RgbImage, encode_fast};

/// The longest side of a preview, in pixels.
const MAX_SIDE: u32 = 512;

/// Maximum bytes of a preview file: 64 KiB in base64.
const MAX_BYTES: usize = 48 * 1024;

/// Encodes a preview as a PNG without texts, in the fastest way. Halves the picture until the file has at most 48 KiB.
///
/// # Errors
/// As [`encode_fast`].
pub fn encode_preview(image: &RgbImage) -> Result<Vec<u8>, EncodeError> {
    let mut file = encode_fast(image)?;
    let mut smaller = Cow::Borrowed(image);
    while file.len() > MAX_BYTES {
        smaller = Cow::Owned(halved(&smaller));
        file = encode_fast(&smaller)?;
    }
    Ok(file)
}

/// Halves the size; each pixel is the mean of up to four pixels.
fn halved(image: &RgbImage) -> RgbImage {
    let (width, height) = (image.width.div_ceil(2), image.height.div_ceil(2));
    let mut pixels = Vec::with_capacity(3 * width as usize * height as usize);
    for y in 0..height {
        let above = row_of(image, 2 * y as usize);
        let below = row_of(image, (2 * y + 1).min(image.height - 1) as usize);
        for x in 0..width {
            let (left, right) = (2 * x as usize, (2 * x + 1).min(image.width - 1) as usize);
            for channel in 0..3 {
                let sum = |row: &[u8]| u32::from(row[3 * left + channel]) + u32::from(row[3 * right + channel]);
                // At most 255, because it is a mean of bytes.
                pixels.push(((sum(above) + sum(below) + 2) / 4) as u8);
            }
        }
    }
    RgbImage { width, height, pixels }
}

/// Enlarges a picture of latent size by `factor`, with bilinear interpolation between the centers of pixels. If a side
/// would have more than 512 pixels, the largest factor that fits replaces `factor`. A picture whose number of pixels
/// does not match its size is returned unchanged; the encoder rejects it.
pub fn upscale(image: &RgbImage, factor: u32) -> RgbImage {
    let factor = factor.min(MAX_SIDE / image.width.max(image.height).max(1)).max(1);
    if factor == 1 || image.pixels.len() as u64 != image.expected_bytes() {
        return image.clone();
    }
    let (width, height) = (image.width * factor, image.height * factor);
    let columns: Vec<Between> = (0..width).map(|x| Between::new(x, factor, image.width)).collect();
    let mut pixels = Vec::with_capacity(3 * width as usize * height as usize);
    for y in 0..height {
        let row = Between::new(y, factor, image.height);
        let (above, below) = (row_of(image, row.low), row_of(image, row.high));
        for column in &columns {
            for channel in 0..3 {
                let (left, right) = (3 * column.low + channel, 3 * column.high + channel);
                let top = column.mix(above[left].into(), above[right].into());
                let bottom = column.mix(below[left].into(), below[right].into());
                let square = 4 * factor * factor;
                // At most 255, because it is a mean of bytes.
                pixels.push(((row.mix(top, bottom) + square / 2) / square) as u8);
            }
        }
    }
    RgbImage { width, height, pixels }
}

fn row_of(image: &RgbImage, y: usize) -> &[u8] {
    let bytes = 3 * image.width as usize;
    &image.pixels[y * bytes..][..bytes]
}

/// The position of the center of a large pixel between two pixels of the small picture. Integers give the same pixels
/// on every machine.
struct Between {
    low: usize,
    high: usize,
    /// Weights of the two pixels, in units of 1 / (2 · factor).
    low_weight: u32,
    high_weight: u32,
}

impl Between {
    /// The center of large pixel `at` is at `(at + 1/2) / factor` in units of small pixels, whose centers are at
    /// halves. Beyond the outermost centers, the outermost pixel is repeated.
    fn new(at: u32, factor: u32, small: u32) -> Between {
        let place = (2 * at + 1).saturating_sub(factor);
        let low = place / (2 * factor);
        let high_weight = place % (2 * factor);
        let high = (low + 1).min(small - 1);
        Between { low: low as usize, high: high as usize, low_weight: 2 * factor - high_weight, high_weight }
    }

    fn mix(&self, low: u32, high: u32) -> u32 {
        low * self.low_weight + high * self.high_weight
    }
}
