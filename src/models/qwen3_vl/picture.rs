//! Pictures in the form that the network sees.

use super::VisionConfig;
use crate::imaging::{RgbImage, resize};

/// Pixels per side of a picture that DreamLite edits, as the network sees it.
pub const SIDE: u32 = 512;

/// A picture that the network can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture(RgbImage);

impl Picture {
    /// The picture at [`SIDE`] × [`SIDE`] pixels, whatever its proportions.
    pub fn square(picture: &RgbImage) -> Self {
        Self(resize(picture, SIDE, SIDE))
    }

    /// The picture at its own size.
    pub fn of(picture: RgbImage) -> Self {
        Self(picture)
    }

    /// Rows and columns of pixels.
    pub fn size(&self) -> [usize; 2] {
        [self.0.height as usize, self.0.width as usize]
    }

    /// The color levels of the pixels, row by row.
    pub fn levels(&self) -> &[u8] {
        &self.0.pixels
    }

    /// The patches (N, 3 · T · P · P) as transformers' `Qwen2VLImageProcessor` returns them, and how many rows and
    /// columns they form. The patches of a token are adjacent. `None` if the size does not fit.
    pub fn patches(&self, config: &VisionConfig) -> Option<(Vec<f32>, [usize; 2])> {
        let [rows, columns] = config.patches(self.size())?;
        let (p, width) = (config.patch_size, self.0.width as usize);
        let mut values = Vec::with_capacity(self.0.pixels.len() * config.temporal_patch_size);
        for [row, column] in order([rows, columns], config.spatial_merge_size) {
            for channel in 0..3 {
                for _ in 0..config.temporal_patch_size {
                    let pixels = (0..p * p).map(|i| (row * p + i / p) * width + column * p + i % p);
                    values.extend(pixels.map(|pixel| normalized(self.0.pixels[3 * pixel + channel])));
                }
            }
        }
        Some((values, [rows, columns]))
    }
}

/// Row and column of each patch, in the order of the network: token by token, and the patches of a token row by row.
pub(super) fn order([rows, columns]: [usize; 2], merge: usize) -> impl Iterator<Item = [usize; 2]> {
    let tokens = (0..rows / merge).flat_map(move |row| (0..columns / merge).map(move |column| [row, column]));
    tokens.flat_map(move |[row, column]| {
        (0..merge * merge).map(move |i| [row * merge + i / merge, column * merge + i % merge])
    })
}

/// The level from -1 to 1, rounded as by transformers' `rescale` and `normalize`.
fn normalized(level: u8) -> f32 {
    let [mean, std] = [0.5, 0.5];
    ((f64::from(level) / 255.0) as f32 - mean) / std
}
