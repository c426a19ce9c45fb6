//! Matrices of float32 numbers as planes of bfloat16 numbers, in the tiles of the matrix unit.

use std::ops::Range;

use crate::{arena, gemm::WIDTH, simd::vectorized};

/// The most planes of a number.
pub(crate) const PLANES: usize = 3;

/// The number of planes that the numbers of a matrix have: one if all are bfloat16 numbers.
pub(crate) fn planes_of(values: &[f32]) -> usize {
    // Without early exit, so that the compiler uses vector instructions.
    let are_short =
        values.chunks(1 << 12).all(|values| values.iter().fold(0, |or, value| or | value.to_bits()) << 16 == 0);
    if are_short { 1 } else { PLANES }
}

/// Lines of a tile of the left matrix, and of a tile of the result.
pub(super) const LINES: usize = 16;
/// Products of an element of the result that one instruction sums.
pub(super) const STEP: usize = 32;

/// A tile of a left matrix: 16 lines of 32 bfloat16 numbers.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct LeftTile([[u16; STEP]; LINES]);

/// A tile of a right matrix: 16 columns of 32 bfloat16 numbers. Line i holds the numbers 2·i and 2·i + 1 of each
/// column, the first in the lower half of a value.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct RightTile([[u32; WIDTH]; STEP / 2]);

/// Tiles in memory of the arena.
struct Tiles {
    values: Vec<f32>,
    count: usize,
}

impl Tiles {
    fn new(count: usize) -> Self {
        // Memory for one more tile is taken, because the memory may begin at an address that is not aligned for tiles.
        Self { values: arena::take((count + 1) * size_of::<LeftTile>() / size_of::<f32>()), count }
    }

    /// # Safety
    /// `T` is one of the two kinds of tiles, of which every bit pattern is valid.
    unsafe fn all<T>(&self) -> &[T] {
        // SAFETY: the caller promises it.
        &unsafe { self.values.align_to::<T>() }.1[..self.count]
    }

    /// # Safety
    /// As [`Tiles::all`].
    unsafe fn all_mut<T>(&mut self) -> &mut [T] {
        // SAFETY: the caller promises it, and every bit pattern is a valid float.
        &mut unsafe { self.values.align_to_mut::<T>() }.1[..self.count]
    }
}

/// Some columns of a left matrix. For each 16 lines and each step of 32 columns there are three tiles.
pub(crate) struct Left {
    tiles: Tiles,
    pub(super) lines: usize,
    pub(super) steps: usize,
}

impl Left {
    /// Splits columns of `lines` lines that begin `stride` values apart. Missing lines and columns are zero.
    pub fn split(matrix: &[f32], stride: usize, lines: usize, columns: Range<usize>) -> Self {
        let steps = columns.len().div_ceil(STEP);
        let mut left = Self { tiles: Tiles::new(lines.div_ceil(LINES) * steps * PLANES), lines, steps };
        // SAFETY: the tiles are those of a left matrix.
        let tiles = unsafe { left.tiles.all_mut::<LeftTile>() }.as_chunks_mut::<PLANES>().0;
        vectorized(
            #[inline(always)]
            || {
                for (at, planes) in tiles.iter_mut().enumerate() {
                    let (group, first) = (at / steps, columns.start + at % steps * STEP);
                    let width = STEP.min(columns.end - first);
                    for i in 0..LINES {
                        let line = group * LINES + i;
                        let values = if line < lines { &matrix[line * stride + first..][..width] } else { &[] };
                        split_line(values, i, planes);
                    }
                }
            },
        );
        left
    }

    /// The tiles of 16 lines, three for each step.
    pub(super) fn group(&self, group: usize) -> &[[LeftTile; PLANES]] {
        // SAFETY: the tiles are those of a left matrix.
        let tiles: &[LeftTile] = unsafe { self.tiles.all() };
        &tiles.as_chunks().0[group * self.steps..][..self.steps]
    }
}

/// Splits at most 32 values into line `i` of the tiles.
#[inline(always)]
fn split_line(values: &[f32], i: usize, tiles: &mut [LeftTile; PLANES]) {
    let mut padded = [0.0; STEP];
    let values = match values.as_array() {
        Some(values) => values,
        None => {
            padded[..values.len()].copy_from_slice(values);
            &padded
        }
    };
    let [a, b, c] = tiles;
    for k in 0..STEP {
        let [first, second, third] = split(values[k]);
        a.0[i][k] = (first >> 16) as u16;
        b.0[i][k] = (second >> 16) as u16;
        c.0[i][k] = (third >> 16) as u16;
    }
}

/// Panels (K, 16) of a right matrix. For each panel and each step of 32 lines there is a tile for each plane.
pub(crate) struct Right {
    tiles: Tiles,
    pub(super) planes: usize,
    pub(super) steps: usize,
}

impl Right {
    /// Room for `panels` panels of `depth` lines whose numbers have `planes` planes.
    pub fn new(panels: usize, depth: usize, planes: usize) -> Self {
        let steps = depth.div_ceil(STEP);
        Self { tiles: Tiles::new(panels * steps * planes), planes, steps }
    }

    /// Splits a panel. Missing lines are zero.
    pub fn split(&mut self, panel: usize, values: &[f32]) {
        let (planes, steps) = (self.planes, self.steps);
        // SAFETY: the tiles are those of a right matrix.
        let tiles = &mut unsafe { self.tiles.all_mut::<RightTile>() }[panel * steps * planes..][..steps * planes];
        let lines = values.as_chunks::<WIDTH>().0;
        assert!(lines.len().div_ceil(STEP) == steps);
        vectorized(
            #[inline(always)]
            || match planes {
                1 => split_panel::<1>(lines, tiles.as_chunks_mut().0),
                _ => split_panel::<PLANES>(lines, tiles.as_chunks_mut().0),
            },
        );
    }

    /// Sets a panel to the bfloat16 numbers whose bytes are `numbers`, line by line. Missing lines are zero.
    pub fn set(&mut self, panel: usize, numbers: &[[u8; WIDTH]]) {
        let steps = self.steps;
        // SAFETY: the tiles are those of a right matrix.
        let tiles = &mut unsafe { self.tiles.all_mut::<RightTile>() }[panel * steps..][..steps];
        let lines = numbers.as_chunks::<2>().0;
        assert!(self.planes == 1 && lines.len().div_ceil(STEP) == steps);
        vectorized(
            #[inline(always)]
            || {
                let zero = [[0; WIDTH]; 2];
                for (tile, lines) in tiles.iter_mut().zip(lines.chunks(STEP)) {
                    for i in 0..STEP / 2 {
                        let (even, odd) = (lines.get(2 * i).unwrap_or(&zero), lines.get(2 * i + 1).unwrap_or(&zero));
                        let (even, odd) =
                            (even.as_flattened().as_chunks::<2>().0, odd.as_flattened().as_chunks::<2>().0);
                        for j in 0..WIDTH {
                            let of = |number: [u8; 2]| u32::from(u16::from_le_bytes(number));
                            tile.0[i][j] = of(even[j]) | of(odd[j]) << 16;
                        }
                    }
                }
            },
        );
    }

    /// The tiles of a panel, one for each plane of each step.
    pub(super) fn panel(&self, panel: usize) -> &[RightTile] {
        // SAFETY: the tiles are those of a right matrix.
        let tiles: &[RightTile] = unsafe { self.tiles.all() };
        &tiles[panel * self.steps * self.planes..][..self.steps * self.planes]
    }
}

#[inline(always)]
fn split_panel<const P: usize>(lines: &[[f32; WIDTH]], tiles: &mut [[RightTile; P]]) {
    for (tiles, lines) in tiles.iter_mut().zip(lines.chunks(STEP)) {
        for i in 0..STEP / 2 {
            let (even, odd) =
                (lines.get(2 * i).unwrap_or(&[0.0; WIDTH]), lines.get(2 * i + 1).unwrap_or(&[0.0; WIDTH]));
            for j in 0..WIDTH {
                let (even, odd) = (split(even[j]), split(odd[j]));
                for p in 0..P {
                    tiles[p].0[i][j] = even[p] >> 16 | odd[p];
                }
            }
        }
    }
}

/// The planes of a number: bfloat16 numbers whose sum is the number, largest first, as the bits of float32 numbers.
#[inline(always)]
fn split(value: f32) -> [u32; PLANES] {
    let first = nearest(value);
    let rest = value - f32::from_bits(first);
    let second = nearest(rest);
    // At most 8 bits of the mantissa are left, so this is exact.
    let third = (rest - f32::from_bits(second)).to_bits();
    [first, second, third]
}

/// The bits of the nearest bfloat16 number.
#[inline(always)]
fn nearest(value: f32) -> u32 {
    value.to_bits().wrapping_add(0x8000) & 0xffff_0000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_is_the_sum_of_its_planes(value in -1e30f32..1e30) {
            let planes = split(value);
            prop_assert!(planes.iter().all(|plane| plane & 0xffff == 0), "{planes:x?}");
            let [a, b, c] = planes.map(f32::from_bits);
            prop_assert_eq!(a + (b + c), value);
            prop_assert!(b.abs() <= a.abs() / 256.0 && c.abs() <= a.abs() / 65536.0);
        }
    }

    #[test]
    fn a_number_that_is_not_finite_stays_so() {
        for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            assert!(!split(value).map(f32::from_bits).iter().sum::<f32>().is_finite());
        }
    }
}
