//! The luminance of a picture as numbers, its resampling, and its block coefficients.

use crate::{GreyImage, resize};

/// One number for each pixel.
#[derive(Clone, Debug)]
pub(super) struct Plane {
    pub width: usize,
    pub height: usize,
    /// `width · height` numbers, row by row. For a luminance from 0 to 255.
    pub values: Vec<f32>,
}

/// The luminance of a pixel (ITU-R BT.601), from 0 to 255.
#[inline(always)]
pub(super) fn luminance([red, green, blue]: [f32; 3]) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

impl Plane {
    /// The luminance of a picture with the channels red, green and blue.
    pub fn luminance(width: usize, pixels: &[u8]) -> Plane {
        let level = |pixel: &[u8]| luminance([pixel[0], pixel[1], pixel[2]].map(f32::from));
        let values: Vec<f32> = pixels.chunks_exact(3).map(level).collect();
        Plane { width, height: values.len() / width.max(1), values }
    }

    /// The rectangle of at most `side` × `side` pixels in the middle. Its place and its sides are multiples of `step`.
    pub fn middle(&self, side: usize, step: usize) -> Plane {
        let [(left, width), (top, height)] = [self.width, self.height].map(|whole| {
            let part = whole.min(side) / step * step;
            ((whole - part) / 2 / step * step, part)
        });
        let lines = self.values.chunks_exact(self.width.max(1)).skip(top).take(height);
        let values = lines.flat_map(|line| &line[left..left + width]).copied().collect();
        Plane { width, height, values }
    }

    /// The plane at another size, by a Lanczos filter; `None` if a side is 0. The levels are rounded to integers, which
    /// is an error far below a step.
    pub fn resized(&self, width: usize, height: usize) -> Option<Plane> {
        if [self.width, self.height, width, height].contains(&0) {
            return None;
        }
        let pixels = self.values.iter().map(|level| level.round().clamp(0.0, 255.0) as u8).collect();
        let grey = GreyImage { width: self.width as u32, height: self.height as u32, pixels };
        let grey = resize(&grey, width as u32, height as u32);
        Some(Plane { width, height, values: grey.pixels.into_iter().map(f32::from).collect() })
    }

    /// The plane with a stronger contrast of neighbors: `amount` times the difference to both neighbors is added, in
    /// rows and in columns. Filters that make a picture smaller weaken this contrast.
    pub fn sharpened(&self, amount: f32) -> Plane {
        let (width, height) = (self.width, self.height);
        if amount == 0.0 || self.values.is_empty() {
            return self.clone();
        }
        let sharper = |before: f32, level: f32, after: f32| level + amount * (2.0 * level - before - after);
        let mut rows = Vec::with_capacity(self.values.len());
        for line in self.values.chunks_exact(width) {
            rows.extend((0..width).map(|x| sharper(line[x.max(1) - 1], line[x], line[(x + 1).min(width - 1)])));
        }
        let mut values = Vec::with_capacity(rows.len());
        for y in 0..height {
            let line = |y: usize| &rows[width * y..][..width];
            let (before, now, after) = (line(y.max(1) - 1), line(y), line((y + 1).min(height - 1)));
            values.extend((0..width).map(|x| sharper(before[x], now[x], after[x])));
        }
        Plane { width, height, values }
    }
}
