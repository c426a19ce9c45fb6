//! Moves the coefficients of the blocks to the lattices of the payload's bits.

#![allow(clippy::needless_range_loop, reason = "the indexes are the coordinates of the formulas")]

use super::{
    Payload, STEP, code,
    layout::{BLOCK, BLOCKS, COEFFICIENTS, Layout},
    plane::luminance,
    transform::{CONSTANT, COSINE, nearest},
};
use crate::simd::vectorized;

/// How often the coefficients are corrected. Levels end at 0 and 255, so in very dark and bright blocks the first
/// change is partly lost; the other rounds distribute it to other pixels.
const ROUNDS: usize = 3;

/// Marks the picture whose rows of three bytes per pixel are `pixels`.
pub(super) fn embed([width, height]: [usize; 2], pixels: &mut [u8], payload: Payload) {
    let targets = targets(payload);
    vectorized(
        #[inline(always)]
        || {
            for top in 0..height / BLOCK {
                for left in 0..width / BLOCK {
                    let mut block = Block::at(pixels, width, [BLOCK * left, BLOCK * top]);
                    block.mark(&targets[top % BLOCKS * BLOCKS + left % BLOCKS]);
                    block.write(pixels, width, [BLOCK * left, BLOCK * top]);
                }
            }
        },
    );
}

/// For each block of the tile, where the points of its lattices begin, in levels from 0 to [`STEP`].
fn targets(payload: Payload) -> Vec<[f32; COEFFICIENTS]> {
    let layout = Layout::new();
    let mut targets = vec![[0.0; COEFFICIENTS]; BLOCKS * BLOCKS];
    let bits = code::encode(payload);
    let bits = bits.into_iter().map(|bit| if bit { 0.5 } else { 0.0 }).chain(std::iter::repeat(0.0));
    for (cell, half) in layout.code.iter().chain(&layout.markers).zip(bits) {
        targets[cell.row * BLOCKS + cell.column][cell.coefficient] = STEP * (cell.offset + half);
    }
    targets
}

/// A block of 8 × 8 pixels and the change of its luminance.
struct Block {
    pixels: [[[f32; 3]; BLOCK]; BLOCK],
    change: [[f32; BLOCK]; BLOCK],
}

impl Block {
    #[inline(always)]
    fn at(pixels: &[u8], width: usize, [left, top]: [usize; 2]) -> Block {
        let mut block = Block { pixels: [[[0.0; 3]; BLOCK]; BLOCK], change: [[0.0; BLOCK]; BLOCK] };
        for (y, row) in block.pixels.iter_mut().enumerate() {
            let line = &pixels[3 * (width * (top + y) + left)..][..3 * BLOCK];
            for (pixel, bytes) in row.iter_mut().zip(line.chunks_exact(3)) {
                *pixel = [bytes[0], bytes[1], bytes[2]].map(f32::from);
            }
        }
        block
    }

    #[inline(always)]
    fn mark(&mut self, targets: &[f32; COEFFICIENTS]) {
        let before = self.luminance();
        for round in 0..ROUNDS {
            let now = self.luminance();
            if round > 0 {
                for (change, (now, before)) in
                    self.change.as_flattened_mut().iter_mut().zip(now.as_flattened().iter().zip(before.as_flattened()))
                {
                    *change = now - before;
                }
            }
            let mut missing = [0.0; COEFFICIENTS];
            for (missing, (value, target)) in missing.iter_mut().zip(coefficients(&now).iter().zip(targets)) {
                let steps = (target - value) / STEP;
                *missing = STEP * (steps - nearest(steps));
            }
            self.add(missing);
        }
    }

    /// The luminance of the block after the change.
    #[inline(always)]
    fn luminance(&self) -> [[f32; BLOCK]; BLOCK] {
        let mut levels = [[0.0; BLOCK]; BLOCK];
        for y in 0..BLOCK {
            for x in 0..BLOCK {
                let change = self.change[y][x];
                levels[y][x] = luminance(self.pixels[y][x].map(|level| (level + change).clamp(0.0, 255.0)));
            }
        }
        levels
    }

    #[inline(always)]
    fn add(&mut self, [horizontal, vertical, diagonal]: [f32; COEFFICIENTS]) {
        for y in 0..BLOCK {
            for x in 0..BLOCK {
                self.change[y][x] += horizontal * CONSTANT * COSINE[x]
                    + vertical * COSINE[y] * CONSTANT
                    + diagonal * COSINE[y] * COSINE[x];
            }
        }
    }

    #[inline(always)]
    fn write(&self, pixels: &mut [u8], width: usize, [left, top]: [usize; 2]) {
        for (y, row) in self.pixels.iter().enumerate() {
            let line = &mut pixels[3 * (width * (top + y) + left)..][..3 * BLOCK];
            for (x, (bytes, pixel)) in line.chunks_exact_mut(3).zip(row).enumerate() {
                for (byte, level) in bytes.iter_mut().zip(pixel) {
                    *byte = (level + self.change[y][x] + 0.5).clamp(0.0, 255.0) as u8;
                }
            }
        }
    }
}

/// The horizontal, vertical and diagonal coefficient of a block.
#[inline(always)]
fn coefficients(levels: &[[f32; BLOCK]; BLOCK]) -> [f32; COEFFICIENTS] {
    let mut sums = [0.0; COEFFICIENTS];
    for (row, cosine) in levels.iter().zip(COSINE) {
        let constant = row.iter().sum::<f32>() * CONSTANT;
        let wave: f32 = row.iter().zip(COSINE).map(|(level, cosine)| level * cosine).sum();
        sums[0] += wave * CONSTANT;
        sums[1] += constant * cosine;
        sums[2] += wave * cosine;
    }
    sums
}
