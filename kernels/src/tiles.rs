//! The left matrix of a product in the order in which the micro-kernel reads it.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{gemm::HEIGHT, simd::dispatch};

/// Copies a part of a matrix into tiles: for each tile of lines and each column, the values of the tile's lines side by
/// side. The tiles have the same number of lines as the micro-kernel's tiles on the same vector unit.
///
/// Lines that begin some KiB apart compete for the same places in the L1 cache. The values of a tile lie together.
pub(super) struct Tile<'a> {
    matrix: &'a [f32],
    stride: usize,
    lines: usize,
    columns: Range<usize>,
    values: &'a mut [f32],
}

impl<'a> Tile<'a> {
    /// The lines of the matrix begin `stride` values apart. `values` has room for all values of the part.
    pub fn new(matrix: &'a [f32], stride: usize, lines: usize, columns: Range<usize>, values: &'a mut [f32]) -> Self {
        assert_eq!(values.len(), lines * columns.len());
        Self { matrix, stride, lines, columns, values }
    }

    pub fn run(self) {
        dispatch(self);
    }
}

impl WithSimd for Tile<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        let mut line = 0;
        if S::F32_LANES == 16 {
            self.tiles::<HEIGHT>(&mut line);
            self.tiles::<8>(&mut line);
        } else {
            self.tiles::<{ HEIGHT / 2 }>(&mut line);
        }
        self.tiles::<4>(&mut line);
        self.tiles::<2>(&mut line);
        self.tiles::<1>(&mut line);
    }
}

impl Tile<'_> {
    /// Copies as many tiles of `H` lines as fit from `line` on, and advances `line`.
    #[inline(always)]
    fn tiles<const H: usize>(&mut self, line: &mut usize) {
        let depth = self.columns.len();
        while self.lines - *line >= H {
            let matrix = &self.matrix[*line * self.stride + self.columns.start..];
            let rows: [&[f32]; H] = std::array::from_fn(|i| &matrix[i * self.stride..][..depth]);
            let values = self.values[*line * depth..][..H * depth].as_chunks_mut::<H>().0;
            for k in 0..depth {
                for i in 0..H {
                    values[k][i] = rows[i][k];
                }
            }
            *line += H;
        }
    }
}
