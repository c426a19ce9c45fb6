//! Convolution with planes, as a sum of matrix products with a shifted map.
//!
//! The pixels of a padded map lie line by line, and each pixel is followed by the same pixel of all other maps of the
//! batch. Then the pixels under a tap (a position of the kernel) are those under the first tap, shifted by a constant
//! number of pixels. So the map is copied only once, instead of once for each tap. The price is some results that belong
//! to the padding, and are dropped.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    arena,
    bf16::{self, Unit, Way},
    block::Block,
    finish::Finish,
    gemm::WIDTH,
    geometry::Geometry,
    matrix::Packed,
    simd::vectorized,
    winograd::Map,
};

/// The panels that are multiplied at a time.
const SET: usize = 8;
/// The steps of 32 products that are summed at a time. The tiles of these steps and panels fit into the L2 cache.
const STEPS: usize = 40;
/// The most results of a part, unless the map is wide. So many results share the weights that are converted for them.
const MOST: usize = 2048;
/// A part has a multiple of this many results, so that all tiles are full.
const TILES: usize = 32;
/// The fewest channels of a map. A step has 32, so fewer channels waste most of it.
const LEAST: usize = 16;

/// A convolution of stride 1 whose numbers are rounded.
#[derive(Clone, Copy)]
pub(super) struct Shifted<'a> {
    of: (Unit, usize),
    geometry: Geometry,
    weight: &'a Packed,
    map: Map<'a>,
    /// The channels of the map.
    c: usize,
    /// The pixels of a line of the padded map.
    padded: usize,
}

impl<'a> Shifted<'a> {
    /// `None` if this convolution is computed otherwise. The choice does not depend on the batch.
    pub fn new(way: Way, geometry: Geometry, weight: &'a Packed, map: Map<'a>) -> Option<Self> {
        let Way::Planes(unit, planes) = way else { return None };
        let c = weight.shape().0 / (geometry.kernel.0 * geometry.kernel.1);
        let suits = way.rounds() && geometry.stride == 1 && c >= LEAST;
        let padded = map.width + geometry.left + geometry.right;
        suits.then_some(Self { of: (unit, planes), geometry, weight, map, c, padded })
    }

    /// Convolves the map into `out` (B, H, W, out), where `size` is (H, W).
    pub fn convolve(self, size: (usize, usize), finish: Finish<'_>, out: &mut [f32]) {
        let (height, width) = size;
        let n = self.weight.shape().1;
        let results = ((height - 1) * self.padded + width) * self.map.batch;
        let panels = n.div_ceil(WIDTH);
        let sets = panels.div_ceil(SET);
        let threads = rayon::current_num_threads();
        // A part also copies the pixels up to the last tap. Large parts keep this copy small beside the results.
        let taps = self.geometry.kernel.0 * self.geometry.kernel.1;
        let most = MOST.max(2 * self.shift(taps - 1));
        let down = match results.div_ceil(most) {
            1 if sets > threads => 1,
            down => down.next_multiple_of(threads),
        };
        let at_a_time = results.div_ceil(down).next_multiple_of(TILES);
        let down = results.div_ceil(at_a_time);
        let across = (2 * threads).div_ceil(down).clamp(1, sets);
        let whole = Block::new(out, n);
        let run = |part: usize| {
            let (down, across_at) = (part / across, part % across);
            let results = down * at_a_time..results.min((down + 1) * at_a_time);
            let [first, last] = [across_at, across_at + 1].map(|at| panels.min(sets * at / across * SET));
            self.part(size, results, first..last, finish, &whole);
        };
        match down * across {
            1 => run(0),
            parts => (0..parts).into_par_iter().with_max_len(1).for_each(run),
        }
    }

    /// Computes some results for some panels.
    fn part(
        self,
        (height, width): (usize, usize),
        results: Range<usize>,
        panels: Range<usize>,
        finish: Finish<'_>,
        out: &Block<'_>,
    ) {
        let Self { of, weight, c, padded, map: Map { batch, .. }, .. } = self;
        let n = weight.shape().1;
        let steps = c.div_ceil(bf16::STEP);
        let taps = self.geometry.kernel.0 * self.geometry.kernel.1;
        let left = self.left(&results);
        let mut sums = arena::take(results.len() * SET.min(panels.len()) * WIDTH);
        let mut scratch = arena::take(c.min(STEPS * bf16::STEP) * WIDTH);
        for first in panels.clone().step_by(SET) {
            let set = first..panels.end.min(first + SET);
            let columns = first * WIDTH..n.min(set.end * WIDTH);
            let sums = &mut sums[..results.len() * columns.len()];
            for first in (0..taps * steps).step_by(STEPS) {
                let piece = first..(taps * steps).min(first + STEPS);
                let mut right = bf16::Right::new(set.len(), piece.len() * bf16::STEP, weight.planes().min(of.1));
                for (at, panel) in set.clone().enumerate() {
                    for (lines, step) in lines_of(&piece, steps, c) {
                        weight.split(panel, lines, &mut right, (at, step), &mut scratch);
                    }
                }
                let offset = |step: usize| left.offset(self.shift(step / steps), step % steps);
                let offsets: Vec<usize> = piece.map(offset).collect();
                bf16::multiply_at(&left, &offsets, &right, &mut Block::new(sums, columns.len()), first > 0);
            }
            vectorized(
                #[inline(always)]
                || {
                    for (result, sums) in results.clone().zip(sums.chunks_exact(columns.len())) {
                        let (pixel, b) = (result / batch, result % batch);
                        let (y, x) = (pixel / padded, pixel % padded);
                        if x >= width {
                            continue;
                        }
                        let line = (b * height + y) * width + x;
                        // SAFETY: each line belongs to one result, and only one part has these columns of the result.
                        let mut out = unsafe { out.part(line..line + 1, columns.clone()) };
                        out.line(0).copy_from_slice(sums);
                        finish.line(out.line(0), line, columns.clone());
                    }
                },
            );
        }
    }

    /// The pixels of the padded map that some results need.
    fn left(&self, results: &Range<usize>) -> bf16::Left {
        let Self { of, geometry, c, padded, map: Map { x, batch, height, width }, .. } = *self;
        let taps = geometry.kernel.0 * geometry.kernel.1;
        let mut left = bf16::Left::new(of, results.len() + self.shift(taps - 1), c);
        left.fill(|line| {
            let (pixel, b) = ((results.start + line) / batch, (results.start + line) % batch);
            let (y, column) =
                ((pixel / padded).checked_sub(geometry.top)?, (pixel % padded).checked_sub(geometry.left)?);
            (y < height && column < width).then(|| &x[((b * height + y) * width + column) * c..][..c])
        });
        left
    }

    /// How many lines lie between the pixels under the first tap and those under another.
    fn shift(&self, tap: usize) -> usize {
        let columns = self.geometry.kernel.1;
        (tap / columns * self.padded + tap % columns) * self.map.batch
    }
}

/// The lines of the matrix of weights for some steps, in pieces of one tap each, and the position of the first step of
/// each piece. A tap has `steps` steps and `c` lines.
fn lines_of(of: &Range<usize>, steps: usize, c: usize) -> impl Iterator<Item = (Range<usize>, usize)> {
    let of = of.clone();
    (of.start / steps..of.end.div_ceil(steps)).map(move |tap| {
        let (first, last) = (of.start.max(tap * steps), of.end.min((tap + 1) * steps));
        let line = |step: usize| tap * c + c.min((step - tap * steps) * bf16::STEP);
        (line(first)..line(last), first - of.start)
    })
}
