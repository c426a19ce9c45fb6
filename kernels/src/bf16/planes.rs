//! Matrices of float32 numbers as planes of bfloat16 numbers.

use std::{marker::PhantomData, ops::Range};

use super::{
    Unit, half,
    tile::{LINES, RightTile, STEP},
};
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

/// 32 bfloat16 numbers: a line of a tile of the left matrix.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Numbers([u16; STEP]);

/// Elements of one type, [`Numbers`] or [`RightTile`], in memory of the arena.
struct Elements<T> {
    values: Vec<f32>,
    count: usize,
    kind: PhantomData<T>,
}

impl<T> Elements<T> {
    /// # Safety
    /// Every bit pattern is a valid `T`.
    unsafe fn new(count: usize) -> Self {
        // Memory for one more element is taken, because the memory may begin at an address that is not aligned for `T`.
        Self { values: arena::take((count + 1) * size_of::<T>() / size_of::<f32>()), count, kind: PhantomData }
    }

    fn all(&self) -> &[T] {
        // SAFETY: the creator has promised it.
        &unsafe { self.values.align_to::<T>() }.1[..self.count]
    }

    fn all_mut(&mut self) -> &mut [T] {
        // SAFETY: the creator has promised it, and every bit pattern is a valid float.
        &mut unsafe { self.values.align_to_mut::<T>() }.1[..self.count]
    }
}

/// Lines of a left matrix, line by line in each of the planes.
pub(crate) struct Left {
    numbers: Elements<Numbers>,
    pub(super) unit: Unit,
    pub(super) planes: usize,
    lines: usize,
    /// The number of steps of 32 columns.
    pub(super) steps: usize,
    /// The distance between two lines, in steps: odd, so that the lines of a tile are in different cache sets.
    stride: usize,
}

impl Left {
    /// Room for `lines` lines of `columns` numbers, of which `planes` planes are kept for a product on `unit`.
    pub fn new((unit, planes): (Unit, usize), lines: usize, columns: usize) -> Self {
        let steps = columns.div_ceil(STEP);
        let stride = steps | 1;
        // The last tile may end up to 15 lines behind the last line.
        let count = planes * (lines + LINES - 1) * stride;
        // SAFETY: numbers are integers.
        Self { numbers: unsafe { Elements::new(count) }, unit, planes, lines, steps, stride }
    }

    /// Splits columns of `lines` lines that begin `stride` values apart.
    pub fn split(of: (Unit, usize), matrix: &[f32], stride: usize, lines: usize, columns: Range<usize>) -> Self {
        let mut left = Self::new(of, lines, columns.len());
        left.fill(|line| Some(&matrix[line * stride..][columns.clone()]));
        left
    }

    /// Sets each line to the numbers that `of` returns for it, or to zeros. Missing columns are zero, too.
    pub fn fill<'a>(&mut self, of: impl Fn(usize) -> Option<&'a [f32]>) {
        let (lines, steps, stride, planes) = (self.lines, self.steps, self.stride, self.planes);
        let all = self.numbers.all_mut();
        let plane = all.len() / planes;
        vectorized(
            #[inline(always)]
            || {
                for line in 0..lines {
                    let values = of(line).unwrap_or(&[]);
                    for step in 0..steps {
                        let values = values.get(step * STEP..).unwrap_or(&[]);
                        let values = &values[..values.len().min(STEP)];
                        let at = line * stride + step;
                        match planes {
                            1 => all[at] = rounded(values),
                            _ => [all[at], all[plane + at], all[2 * plane + at]] = split_line::<PLANES>(values),
                        }
                    }
                }
            },
        );
    }

    /// Where a line begins in one plane.
    pub(super) fn line(&self, line: usize, plane: usize) -> *const u8 {
        let all = self.numbers.all();
        all[all.len() / self.planes * plane + line * self.stride..].as_ptr().cast()
    }

    /// The bytes from a line to the next.
    pub(super) fn stride(&self) -> usize {
        self.stride * size_of::<Numbers>()
    }

    /// The bytes from a number to the one that lies `lines` lines and `steps` steps later.
    pub fn offset(&self, lines: usize, steps: usize) -> usize {
        (lines * self.stride + steps) * size_of::<Numbers>()
    }

    pub(super) fn lines(&self) -> usize {
        self.lines
    }
}

/// At most 32 values, each as the nearest number; of two equally near numbers, the one with the even mantissa.
#[inline(always)]
fn rounded(values: &[f32]) -> Numbers {
    let values = padded(values);
    let mut numbers = Numbers([0; STEP]);
    for k in 0..STEP {
        numbers.0[k] = (nearest_even(values[k]) >> 16) as u16;
    }
    numbers
}

/// The planes of at most 32 values.
#[inline(always)]
fn split_line<const P: usize>(values: &[f32]) -> [Numbers; P] {
    let values = padded(values);
    let mut numbers = [Numbers([0; STEP]); P];
    for k in 0..STEP {
        let planes = split(values[k]);
        for p in 0..P {
            numbers[p].0[k] = (planes[p] >> 16) as u16;
        }
    }
    numbers
}

#[inline(always)]
fn padded(values: &[f32]) -> [f32; STEP] {
    match values.as_array() {
        Some(values) => *values,
        None => {
            let mut padded = [0.0; STEP];
            padded[..values.len()].copy_from_slice(values);
            padded
        }
    }
}

/// Panels (K, 16) of a right matrix. For each panel and each step of 32 lines there is a tile for each plane.
pub(crate) struct Right {
    tiles: Elements<RightTile>,
    pub(super) planes: usize,
    pub(super) steps: usize,
}

impl Right {
    /// Room for `panels` panels of `depth` lines whose numbers have `planes` planes.
    pub fn new(panels: usize, depth: usize, planes: usize) -> Self {
        let steps = depth.div_ceil(STEP);
        // SAFETY: the numbers of a tile are integers.
        Self { tiles: unsafe { Elements::new(panels * steps * planes) }, planes, steps }
    }

    /// Splits lines of a panel, which become its steps from `step` on. Missing lines of the last step are zero.
    pub fn split(&mut self, panel: usize, step: usize, values: &[f32]) {
        let lines = values.as_chunks::<WIDTH>().0;
        let planes = self.planes;
        let tiles = self.steps_mut(panel, step, lines.len());
        vectorized(
            #[inline(always)]
            || match planes {
                1 => split_panel::<1>(lines, tiles.as_chunks_mut().0),
                _ => split_panel::<PLANES>(lines, tiles.as_chunks_mut().0),
            },
        );
    }

    /// Sets steps of a panel to the bfloat16 numbers whose bytes are `numbers`, line by line. Missing lines are zero.
    pub fn set(&mut self, panel: usize, step: usize, numbers: &[[u8; WIDTH]]) {
        let lines = numbers.as_chunks::<2>().0;
        assert!(self.planes == 1);
        let tiles = self.steps_mut(panel, step, lines.len());
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

    /// As [`Right::split`], for the float16 numbers whose bytes are `numbers`, line by line. Returns false and changes
    /// nothing if there is more than one plane, or if the machine has no instruction for the conversion.
    pub fn set_half(&mut self, panel: usize, step: usize, numbers: &[[u8; WIDTH]]) -> bool {
        let suits = self.planes == 1 && half::is_available();
        if suits {
            let lines = numbers.as_chunks::<2>().0;
            half::set(lines, self.steps_mut(panel, step, lines.len()));
        }
        suits
    }

    /// The tiles of a panel, one for each plane of each step.
    pub(super) fn panel(&self, panel: usize) -> &[RightTile] {
        &self.tiles.all()[panel * self.steps * self.planes..][..self.steps * self.planes]
    }

    /// The tiles of the steps from `step` on that have `lines` lines.
    fn steps_mut(&mut self, panel: usize, step: usize, lines: usize) -> &mut [RightTile] {
        let (planes, steps) = (self.planes, lines.div_ceil(STEP));
        assert!(step + steps <= self.steps);
        &mut self.tiles.all_mut()[(panel * self.steps + step) * planes..][..steps * planes]
    }
}

#[inline(always)]
fn split_panel<const P: usize>(lines: &[[f32; WIDTH]], tiles: &mut [[RightTile; P]]) {
    let split = |value: f32| match P {
        // Numbers of one plane are exact if the weights are bfloat16 numbers, and otherwise rounded.
        1 => [nearest_even(value), 0, 0],
        _ => split(value),
    };
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

/// As [`nearest`]; of two equally near numbers, the one with the even mantissa.
#[inline(always)]
fn nearest_even(value: f32) -> u32 {
    let bits = value.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000
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
