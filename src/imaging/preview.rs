//! Rough pictures of a run on its way.

use std::borrow::Cow;

use super::{EncodeError, RgbImage, encode_fast};

/// No side of a preview is longer, in pixels.
const MAX_SIDE: u32 = 512;

/// The largest file of a preview: in base 64 it has 64 KiB.
const MAX_BYTES: usize = 48 * 1024;

/// Encodes a preview as a PNG without texts, for speed rather than for size, but never in more than 48 KiB: a picture
/// that takes more is halved until it fits.
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

/// Every pixel the mean of up to four.
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
                // At most 255, as a mean of bytes.
                pixels.push(((sum(above) + sum(below) + 2) / 4) as u8);
            }
        }
    }
    RgbImage { width, height, pixels }
}

/// Enlarges a picture of latent size `factor` times, bilinear between the centres of the pixels, to at most 512 pixels a
/// side: a larger factor is taken for the largest that fits. A picture whose pixels do not fit its size comes back as it
/// is, for the encoder to refuse.
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
                // At most 255, as a mean of bytes.
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

/// Where the centre of a pixel of the large picture lies between two pixels of the small one, in whole numbers, so that
/// every machine draws the same.
struct Between {
    low: usize,
    high: usize,
    /// Weights of the two, in 1 / (2 · factor) of the distance.
    low_weight: u32,
    high_weight: u32,
}

impl Between {
    /// Large pixel `at` has its centre at `(at + 1/2) / factor` of the small picture's pixels, whose own centres are at
    /// halves; beyond the outermost centres the outermost pixel goes on.
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
