//! Transforms weights to G·g·Gᵀ and stores them in the order in which products read them.

use std::ops::Range;

use super::transform::{LANES, Transform};
use crate::{arena, gemm::WIDTH, matrix::Packed, simd::vectorized};

/// The panels of outputs that a thread computes at a time.
pub(super) const PANELS: usize = 2;

/// Computes G·g·Gᵀ of up to [`PANELS`] panels for the input channels `inputs`. For each of the N² places of a
/// transformed tile, `out` gets the panels of a matrix (inputs, outputs).
pub(super) fn transform_weights<T: Transform<N, M>, const N: usize, const M: usize>(
    weights: &Packed,
    panels: Range<usize>,
    inputs: Range<usize>,
    out: &mut [f32],
) {
    let ((k, _), depth) = (weights.shape(), inputs.len());
    let (all, next) = (k / 9, from_place_to_place(depth));
    let transform = |g: &[f32], all: usize, inputs: Range<usize>, out: &mut [f32]| {
        vectorized(
            #[inline(always)]
            || transform_panel::<T, N, M>(g, all, inputs.clone(), out, next),
        );
    };
    for (i, panel) in panels.enumerate() {
        let out = &mut out[i * depth * WIDTH..];
        match weights {
            Packed::Wide(wide, _) => transform(wide.panel(panel), all, inputs.clone(), out),
            Packed::Narrow(narrow) => {
                let mut g = arena::take(9 * depth * WIDTH);
                for (tap, g) in g.chunks_exact_mut(depth * WIDTH).enumerate() {
                    narrow.widen(panel, &(tap * all + inputs.start..tap * all + inputs.end), g);
                }
                transform(&g, depth, 0..depth, out);
            }
        }
    }
}

/// Computes G·g·Gᵀ of one panel for the input channels `inputs`; `all` is the number of input channels of the layer.
/// The N² places of `out` are `next` floats apart.
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

/// The distance in floats between the matrices of two consecutive places: [`PANELS`] panels and a gap, so that the
/// matrices do not share cache sets.
pub(super) fn from_place_to_place(inputs: usize) -> usize {
    PANELS * inputs * WIDTH + WIDTH
}

/// The number of floats of the transformed weights of [`PANELS`] panels, which are stored together.
pub(super) fn transformed_floats<const N: usize>(inputs: usize) -> usize {
    N * N * from_place_to_place(inputs)
}

#[inline(always)]
fn lanes(values: &[f32]) -> &[f32; LANES] {
    values.first_chunk().expect("a line of a panel has LANES values")
}
