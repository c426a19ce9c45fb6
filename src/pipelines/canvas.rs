//! The canvas on which decoded tiles are blended into a picture.

use std::borrow::Cow;

use super::{Activation, Frame, NetworkError};
use crate::models::autoencoder_kl::{Tile, Tiles};

/// A picture that is being assembled. Tiles are added row by row. Each tile is blended with the overlapping parts of
/// the tiles above and to the left, as in `blend_v` and `blend_h` of diffusers' `AutoencoderKL`. Besides the picture,
/// only the edges that later tiles overlap are kept.
#[derive(Debug)]
pub(super) struct Canvas {
    tiles: Tiles,
    /// Pixels per latent pixel, along each side.
    scale: usize,
    /// Width of the picture in pixels.
    width: usize,
    /// The picture as bytes, (H, W, 3).
    pixels: Vec<u8>,
    /// For each column of tiles, the last lines of the tile above.
    above: Vec<Vec<f32>>,
    /// The last pixels of each line of the tile to the left.
    left: Vec<f32>,
}

impl Canvas {
    pub fn new(tiles: Tiles, scale: usize) -> Self {
        let (height, width) = tiles.size();
        let (height, width) = (height * scale, width * scale);
        let pixels = vec![0; 3 * width * height];
        Self { tiles, scale, width, pixels, above: Vec::new(), left: Vec::new() }
    }

    /// Adds the pixels (1, H, W, 3) of the next tile, in [-1, 1].
    ///
    /// # Errors
    /// The pixels do not have the shape of the tile.
    pub fn add(&mut self, tile: &Tile, pixels: &Activation) -> Result<(), NetworkError> {
        let (h, w) = tile.size();
        let (height, width) = (h * self.scale, w * self.scale);
        pixels.read(&[1, height, width, 3], |pixels| self.add_pixels(tile, pixels, height, width))
    }

    fn add_pixels(&mut self, tile: &Tile, pixels: &[f32], height: usize, width: usize) {
        let line = 3 * width;
        let overlap = self.tiles.overlap() * self.scale;
        let (seam, seam_width) = (overlap.min(height), 3 * overlap.min(width));

        // A picture of a single tile has no seams, so its pixels are not copied.
        let mut pixels = Cow::Borrowed(pixels);
        if tile.row > 0 {
            let above = &self.above[tile.column];
            let above = &above[above.len() - seam * line..];
            for (y, (below, above)) in pixels.to_mut().chunks_exact_mut(line).zip(above.chunks_exact(line)).enumerate()
            {
                below.iter_mut().zip(above).for_each(|(below, above)| *below = blended(*above, *below, y, seam));
            }
        }
        if tile.column > 0 {
            let kept = self.left.len() / height;
            for (right, left) in pixels.to_mut().chunks_exact_mut(line).zip(self.left.chunks_exact(kept)) {
                let left = &left[kept - seam_width..];
                for (i, (right, left)) in right.iter_mut().zip(left).enumerate() {
                    *right = blended(*left, *right, i / 3, seam_width / 3);
                }
            }
        }
        self.keep_seams(tile, &pixels, height, line);
        self.paint(tile, &pixels, height, line);
    }

    /// The finished picture.
    pub fn frame(self) -> Frame {
        let height = self.tiles.size().0 * self.scale;
        Frame::picture(self.width, height, self.pixels)
    }

    /// Keeps the lower and right edges of the tile for blending with its neighbors.
    fn keep_seams(&mut self, tile: &Tile, pixels: &[f32], height: usize, line: usize) {
        let overlap = self.tiles.overlap() * self.scale;
        self.above.resize(self.above.len().max(tile.column + 1), Vec::new());
        self.above[tile.column] = pixels[(height - overlap.min(height)) * line..].to_vec();
        let kept = (3 * overlap).min(line);
        self.left = pixels.chunks_exact(line).flat_map(|pixels| &pixels[line - kept..]).copied().collect();
    }

    /// Writes the upper left part of the tile as bytes, without the edges that later tiles overlap.
    fn paint(&mut self, tile: &Tile, pixels: &[f32], height: usize, line: usize) {
        let step = self.tiles.step() * self.scale;
        let (width, from) = (3 * self.width, 3 * tile.x.start * self.scale);
        let lines = self.pixels.chunks_exact_mut(width).skip(tile.y.start * self.scale);
        for (to, pixels) in lines.zip(pixels.chunks_exact(line)).take(step.min(height)) {
            let pixels = &pixels[..line.min(3 * step)];
            to[from..from + pixels.len()].iter_mut().zip(pixels).for_each(|(to, level)| *to = byte(*level));
        }
    }
}

/// Blends pixel `at` of a seam of `length` pixels, where `before` is the value in the earlier tile and `after` the
/// value in the later tile.
fn blended(before: f32, after: f32, at: usize, length: usize) -> f32 {
    let share = at as f64 / length as f64;
    before * (1.0 - share) as f32 + after * share as f32
}

/// Converts a level in [-1, 1] to a byte as diffusers' image processor does: `round(255 · clamp(x / 2 + 0.5))`, halves
/// to even.
///
/// A float of at least 2²³ has no bits for a fraction. So the addition rounds, and the integer is in the lowest bits.
/// Compilers vectorize an addition, whereas rounding may be a function call on older processors.
pub(crate) fn byte(level: f32) -> u8 {
    const NO_FRACTION: f32 = 8_388_608.0;
    ((level / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0 + NO_FRACTION).to_bits() as u8
}

/// Converts a level in [0, 1] to a byte: `round(255 · clamp(x))`, halves to even.
pub(crate) fn unit_byte(level: f32) -> u8 {
    (level.clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// diffusers' `blend_v` and `blend_h` and the loops around them, line by line and in double precision. Keeps all
    /// tiles.
    fn by_the_formula(tiles: &Tiles, scale: usize, pixels: impl Fn(&Tile, usize, usize) -> f64) -> Vec<f64> {
        let (limit, extent) = (tiles.step() * scale, tiles.overlap() * scale);
        let (height, width) = (tiles.size().0 * scale, tiles.size().1 * scale);
        let mut done: Vec<(Tile, Vec<Vec<f64>>)> = Vec::new();
        let mut picture = vec![f64::NAN; height * width];
        for tile in tiles.iter() {
            let (h, w) = (tile.y.len() * scale, tile.x.len() * scale);
            let mut b: Vec<Vec<f64>> = (0..h).map(|y| (0..w).map(|x| pixels(&tile, y, x)).collect()).collect();
            let find = |row, column| done.iter().find(|(t, _)| (t.row, t.column) == (row, column)).map(|(_, p)| p);
            if tile.row > 0 {
                let a = find(tile.row - 1, tile.column).unwrap();
                let extent = a.len().min(h).min(extent);
                for y in 0..extent {
                    let share = y as f64 / extent as f64;
                    for x in 0..w {
                        b[y][x] = a[a.len() - extent + y][x] * (1.0 - share) + b[y][x] * share;
                    }
                }
            }
            if tile.column > 0 {
                let a = find(tile.row, tile.column - 1).unwrap();
                let extent = a[0].len().min(w).min(extent);
                for x in 0..extent {
                    let share = x as f64 / extent as f64;
                    for y in 0..h {
                        b[y][x] = a[y][a[y].len() - extent + x] * (1.0 - share) + b[y][x] * share;
                    }
                }
            }
            for y in 0..h.min(limit) {
                for x in 0..w.min(limit) {
                    picture[(tile.row * limit + y) * width + tile.column * limit + x] = b[y][x];
                }
            }
            done.push((tile, b));
        }
        picture
    }

    proptest! {
        #[test]
        fn tiles_grow_together_as_the_formula_says(
            h in 1usize..30, w in 1usize..30, side in 4usize..20, scale in 1usize..4, seed in 0u64..1000,
        ) {
            let tiles = Tiles::new(h, w, side);
            // Each tile has different pixels where tiles overlap.
            let pixels = |tile: &Tile, y: usize, x: usize| {
                let n = seed + 7919 * (tile.row * 31 + tile.column) as u64 + 104_729 * (y * 997 + x) as u64;
                (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 24) as f32 * 2.4 - 1.2
            };
            let expected = by_the_formula(&tiles, scale, |tile, y, x| f64::from(pixels(tile, y, x)));
            let mut canvas = Canvas::new(tiles.clone(), scale);
            for tile in tiles.iter() {
                let (height, width) = (tile.y.len() * scale, tile.x.len() * scale);
                let places = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
                let levels: Vec<f32> = places.flat_map(|(y, x)| [pixels(&tile, y, x); 3]).collect();
                canvas.add_pixels(&tile, &levels, height, width);
            }
            let Frame::Picture(picture) = canvas.frame() else { panic!("a picture") };
            prop_assert_eq!((picture.height as usize, picture.width as usize), (h * scale, w * scale));
            for (made, expected) in picture.pixels.chunks_exact(3).zip(expected) {
                let level = (expected / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0;
                prop_assert!(made.iter().all(|made| (f64::from(*made) - level).abs() < 0.501), "{:?} {}", made, level);
            }
        }
    }

    #[test]
    fn levels_are_rounded_to_the_nearest_byte_and_halves_to_even() {
        let level = |byte: f64| ((byte / 255.0 - 0.5) * 2.0) as f32;
        for value in 0..=255u8 {
            assert_eq!(byte(level(f64::from(value))), value);
        }
        assert_eq!((byte(-7.0), byte(7.0), byte(f32::NAN)), (0, 255, 0));
        for i in 0..=510_000 {
            let level = i as f32 / 255_000.0 - 1.0;
            let plain = ((level / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
            assert_eq!(byte(level), plain, "{level}");
        }
        assert_eq!(byte(0.0), 128, "127.5, of which 128 is the even neighbour");
    }
}
