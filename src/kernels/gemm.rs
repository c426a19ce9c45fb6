use std::ops::Range;

use pulp::{Simd, WithSimd};

/// Columns of a panel.
pub(super) const WIDTH: usize = 16;
/// Rows of a tile.
const HEIGHT: usize = 6;
/// How much of k is summed in registers at a time: a panel's share of it stays in the first cache.
const DEPTH: usize = 512;

/// A (K, N) matrix as the micro-kernel reads it: panels of 16 columns, each (K, 16), the last filled up with zeros.
#[derive(Clone)]
pub(super) struct Panels {
    pub k: usize,
    pub n: usize,
    values: Vec<f32>,
}

impl Panels {
    /// Packs the matrix whose element (i, j) is `values[i * row + j * column]`.
    pub fn pack(values: &[f32], k: usize, n: usize, row: usize, column: usize) -> Self {
        let mut packed = vec![0.0; n.div_ceil(WIDTH) * k * WIDTH];
        if k > 0 {
            for (panel, packed) in packed.chunks_exact_mut(k * WIDTH).enumerate() {
                let columns = WIDTH.min(n - panel * WIDTH);
                for (i, packed) in packed.chunks_exact_mut(WIDTH).enumerate() {
                    let from = i * row + panel * WIDTH * column;
                    if column == 1 {
                        packed[..columns].copy_from_slice(&values[from..from + columns]);
                    } else {
                        (0..columns).for_each(|j| packed[j] = values[from + j * column]);
                    }
                }
            }
        }
        Self {
            k,
            n,
            values: packed,
        }
    }

    /// How many panels there are.
    pub fn count(&self) -> usize {
        self.n.div_ceil(WIDTH)
    }
}

/// out = a · b for some panels of b: a (rows, K) with lines `a_stride` apart, out (rows, 16 · panels) with lines
/// `out_stride` apart, cut off at the last column of b.
///
/// An element is the sum over k in order, in fused multiply-adds, in pieces of [`DEPTH`] that are added up in order. That
/// depends on K alone: not on the tile the element falls into, not on the number of rows, threads or vector lanes.
pub(super) fn product(
    a: &[f32],
    a_stride: usize,
    rows: usize,
    b: &Panels,
    panels: Range<usize>,
    out: &mut [f32],
    out_stride: usize,
) {
    let product = Product {
        a,
        a_stride,
        rows,
        b,
        panels,
        out,
        out_stride,
    };
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = pulp::x86::V3::try_new() {
        return Simd::vectorize(avx2, product);
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(neon) = pulp::aarch64::Neon::try_new() {
        return Simd::vectorize(neon, product);
    }
    product.with_simd(pulp::Scalar::new());
}

struct Product<'a> {
    a: &'a [f32],
    a_stride: usize,
    rows: usize,
    b: &'a Panels,
    panels: Range<usize>,
    out: &'a mut [f32],
    out_stride: usize,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            8 => self.run::<S, { WIDTH / 8 }>(simd),
            4 => self.run::<S, { WIDTH / 4 }>(simd),
            _ => self.run::<S, WIDTH>(simd),
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn run<S: Simd, const VECTORS: usize>(self, simd: S) {
        let Self {
            a,
            a_stride,
            rows,
            b,
            panels,
            out,
            out_stride,
        } = self;
        let mut tiles = vec![[0f32; HEIGHT]; rows.div_ceil(HEIGHT) * DEPTH.min(b.k)];
        for first in (0..b.k).step_by(DEPTH) {
            let depth = DEPTH.min(b.k - first);
            interleave(&mut tiles, a, a_stride, rows, first..first + depth);
            for panel in panels.clone() {
                let column = (panel - panels.start) * WIDTH;
                let columns = WIDTH.min(b.n - panel * WIDTH);
                let b = &b.values[(panel * b.k + first) * WIDTH..][..depth * WIDTH];
                for (tile, row) in tiles.chunks_exact(depth).zip((0..rows).step_by(HEIGHT)) {
                    let sums = sums::<S, VECTORS>(simd, tile, b);
                    for (i, sums) in sums.iter().enumerate().take(rows - row) {
                        let out = &mut out[(row + i) * out_stride + column..][..columns];
                        if first == 0 {
                            out.copy_from_slice(&sums[..columns]);
                        } else {
                            out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
                        }
                    }
                }
            }
        }
    }
}

/// Six rows side by side for every k, so that the micro-kernel reads them in order; rows that are not there are zero.
#[inline(always)]
fn interleave(
    tiles: &mut [[f32; HEIGHT]],
    a: &[f32],
    a_stride: usize,
    rows: usize,
    k: Range<usize>,
) {
    for (tile, row) in tiles
        .chunks_exact_mut(k.len())
        .zip((0..rows).step_by(HEIGHT))
    {
        for i in 0..HEIGHT {
            if row + i < rows {
                let line = &a[(row + i) * a_stride + k.start..][..k.len()];
                tile.iter_mut().zip(line).for_each(|(tile, a)| tile[i] = *a);
            } else {
                tile.iter_mut().for_each(|tile| tile[i] = 0.0);
            }
        }
    }
}

/// The micro-kernel: six rows times sixteen columns, summed over k in registers.
#[inline(always)]
fn sums<S: Simd, const VECTORS: usize>(
    simd: S,
    a: &[[f32; HEIGHT]],
    b: &[f32],
) -> [[f32; WIDTH]; HEIGHT] {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; HEIGHT];
    for (a, b) in a.iter().zip(S::as_simd_f32s(b).0.as_chunks::<VECTORS>().0) {
        for i in 0..HEIGHT {
            let a = simd.splat_f32s(a[i]);
            for v in 0..VECTORS {
                sums[i][v] = simd.mul_add_f32s(a, b[v], sums[i][v]);
            }
        }
    }
    let mut out = [[0f32; WIDTH]; HEIGHT];
    for (out, sums) in out.iter_mut().zip(sums) {
        S::as_mut_simd_f32s(out).0.copy_from_slice(&sums);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn like_the_definition_and_alike_on_every_vector_unit(
            rows in 1usize..30, k in prop_oneof![1usize..40, 500usize..530, 1020usize..1030], n in 1usize..40, seed: u32,
        ) {
            let mut state = seed;
            let mut random = |count: usize| -> Vec<f32> {
                (0..count).map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / (1 << 23) as f32 - 1.0
                }).collect()
            };
            let (a, b) = (random(rows * k), random(k * n));
            let transposed: Vec<f32> = (0..n * k).map(|at| b[at % k * n + at / k]).collect();
            let panels = Panels::pack(&b, k, n, n, 1);
            prop_assert_eq!(&panels.values, &Panels::pack(&transposed, k, n, 1, k).values);
            let mut out = vec![f32::NAN; rows * n];
            product(&a, k, rows, &panels, 0..panels.count(), &mut out, n);
            for (at, made) in out.iter().enumerate() {
                let exact: f64 = (0..k).map(|i| f64::from(a[at / n * k + i]) * f64::from(b[i * n + at % n])).sum();
                prop_assert!((f64::from(*made) - exact).abs() < 1e-4, "{} {}", made, exact);
            }
            let mut scalar = vec![f32::NAN; rows * n];
            let (b, panels) = (&panels, 0..panels.count());
            Product { a: &a, a_stride: k, rows, b, panels, out: &mut scalar, out_stride: n }.with_simd(pulp::Scalar::new());
            prop_assert_eq!(out, scalar);
            // The last row by itself, and the last panel by itself.
            let (last, panel) = (rows - 1, b.count() - 1);
            let mut alone = vec![f32::NAN; n];
            product(&a[last * k..], k, 1, b, 0..b.count(), &mut alone, n);
            let mut corner = vec![f32::NAN; n - panel * WIDTH];
            let width = corner.len();
            product(&a[last * k..], k, 1, b, panel..panel + 1, &mut corner, width);
            prop_assert_eq!(&alone[panel * WIDTH..], &corner);
            let mut all = vec![f32::NAN; rows * n];
            product(&a, k, rows, b, 0..b.count(), &mut all, n);
            prop_assert_eq!(&all[last * n..], &alone);
        }
    }
}
