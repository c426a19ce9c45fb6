//! The transformed weights, G·g·Gᵀ, in the order in which they are read.

use std::ops::Range;

use super::transform::{LANES, Transform};
use crate::kernels::{
    gemm::{Panels, WIDTH},
    simd::vectorized,
};

/// Panels of results that are made at a time.
pub(super) const PANELS: usize = 2;

/// G·g·Gᵀ of up to [`PANELS`] panels, for some inputs: for each of the N² places the panels of a matrix (inputs, out), one
/// behind the other.
pub(super) fn transform_weights<T: Transform<N, M>, const N: usize, const M: usize>(
    weights: &Panels,
    panels: Range<usize>,
    inputs: Range<usize>,
    out: &mut [f32],
) {
    let (strip, next) = (inputs.len() * WIDTH, from_place_to_place(inputs.len()));
    for (i, panel) in panels.enumerate() {
        let g = weights.panel(panel);
        vectorized(
            #[inline(always)]
            || transform_panel::<T, N, M>(g, weights.k / 9, inputs.clone(), &mut out[i * strip..], next),
        );
    }
}

/// The same of one panel, of all inputs; the places of `out` are `next` apart.
#[inline(always)]
fn transform_panel<T: Transform<N, M>, const N: usize, const M: usize>(
    g: &[f32],
    all: usize,
    inputs: Range<usize>,
    out: &mut [f32],
    next: usize,
) {
    for (i, c) in inputs.enumerate() {
        let mut columns = [[[0f32; LANES]; 3]; N];
        for x in 0..3 {
            let (first, tap) = ((x * all + c) * WIDTH, 3 * all * WIDTH);
            let transformed =
                T::weight(&[*lanes(&g[first..]), *lanes(&g[first + tap..]), *lanes(&g[first + 2 * tap..])]);
            for y in 0..N {
                columns[y][x] = transformed[y];
            }
        }
        for y in 0..N {
            let line = T::weight(&columns[y]);
            for x in 0..N {
                out[(y * N + x).wrapping_mul(next).wrapping_add(i * WIDTH)..][..WIDTH].copy_from_slice(&line[x]);
            }
        }
    }
}

/// Floats between the panels of one place and those of the next, with a gap so that they do not meet in the cache.
pub(super) fn from_place_to_place(inputs: usize) -> usize {
    PANELS * inputs * WIDTH + WIDTH
}

/// Floats of the transformed weights of [`PANELS`] panels: what is read together lies together.
pub(super) fn portion<const N: usize>(inputs: usize) -> usize {
    N * N * from_place_to_place(inputs)
}

#[inline(always)]
fn lanes(values: &[f32]) -> &[f32; LANES] {
    values.first_chunk().expect("a line of a panel is as long as there are lanes")
}
