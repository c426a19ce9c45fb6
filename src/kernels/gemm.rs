//! The product of two matrices, which convolutions, linear layers and attention come down to.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{block::Block, simd::dispatch};

/// Columns of a panel.
pub(super) const WIDTH: usize = 16;
/// Rows of a tile: 6 × 16 sums and what they are made of fill the sixteen registers of AVX2.
pub(super) const HEIGHT: usize = 6;
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
        let mut panels = Self { k, n, values: vec![0.0; n.div_ceil(WIDTH) * k * WIDTH] };
        if k > 0 {
            for (panel, packed) in panels.values.chunks_exact_mut(k * WIDTH).enumerate() {
                pack_panel(packed, &values[panel * WIDTH * column..], WIDTH.min(n - panel * WIDTH), row, column);
            }
        }
        panels
    }

    /// How many panels there are.
    pub fn count(&self) -> usize {
        self.n.div_ceil(WIDTH)
    }

    /// One panel, (K, 16).
    pub fn panel(&self, panel: usize) -> &[f32] {
        &self.values[panel * self.k * WIDTH..][..self.k * WIDTH]
    }

    pub fn whole(&self) -> PanelsRef<'_> {
        PanelsRef { k: self.k, n: self.n, values: &self.values }
    }
}

/// Packs one panel, (k, 16), of at most 16 columns; what is beyond them must be zero already.
pub(super) fn pack_panel(packed: &mut [f32], values: &[f32], columns: usize, row: usize, column: usize) {
    for (i, packed) in packed.chunks_exact_mut(WIDTH).enumerate() {
        let from = i * row;
        if column == 1 {
            packed[..columns].copy_from_slice(&values[from..from + columns]);
        } else {
            (0..columns).for_each(|j| packed[j] = values[from + j * column]);
        }
    }
}

/// Panels in somebody's memory: ⌈n/16⌉ times (k, 16).
#[derive(Clone, Copy)]
pub(super) struct PanelsRef<'a> {
    pub k: usize,
    pub n: usize,
    pub values: &'a [f32],
}

/// out = a · b, or out += a · b, for some panels of b and some of its lines.
///
/// An element is the sum over k in order, in fused multiply-adds, in pieces of [`DEPTH`] that are added up in order. That
/// depends on K alone: not on the tile the element falls into, not on the number of rows, threads or vector lanes.
pub(super) struct Product<'a> {
    /// Lines of as many values as `depth` is long, `a_stride` apart; as many as `out` has.
    pub a: &'a [f32],
    pub a_stride: usize,
    pub b: PanelsRef<'a>,
    /// The lines of b.
    pub depth: Range<usize>,
    /// The panels of b.
    pub panels: Range<usize>,
    /// As wide as the panels, the last cut off at the last column of b.
    pub out: Block<'a>,
    /// Whether the product is added to what `out` holds.
    pub add: bool,
}

impl Product<'_> {
    pub fn run(self) {
        dispatch(self);
    }
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            8 => self.tiles::<S, { WIDTH / 8 }, { WIDTH / 16 }>(simd),
            4 => self.tiles::<S, { WIDTH / 4 }, { WIDTH / 8 }>(simd),
            _ => self.tiles::<S, WIDTH, { WIDTH / 2 }>(simd),
        }
    }
}

impl Product<'_> {
    /// Goes through the tiles; a panel is `V` vectors wide, half a panel `HALF`.
    #[inline(always)]
    fn tiles<S: Simd, const V: usize, const HALF: usize>(mut self, simd: S) {
        let rows = self.out.rows();
        assert!(rows == 0 || self.a.len() >= (rows - 1) * self.a_stride + self.depth.len());
        assert!(self.depth.end <= self.b.k && self.panels.end * WIDTH < self.b.n + WIDTH);
        assert_eq!(self.out.columns(), self.b.n.min(self.panels.end * WIDTH) - self.panels.start * WIDTH);
        if self.depth.is_empty() && !self.add {
            (0..rows).for_each(|row| self.out.line(row).fill(0.0));
        }
        for first in self.depth.clone().step_by(DEPTH) {
            let ks = first..self.depth.end.min(first + DEPTH);
            self.add |= first > self.depth.start;
            for panel in self.panels.clone() {
                if self.b.n - panel * WIDTH <= WIDTH / 2 {
                    self.column::<S, 8, HALF, V>(simd, &ks, panel);
                } else {
                    self.column::<S, HEIGHT, V, V>(simd, &ks, panel);
                }
            }
        }
    }

    /// One panel, for the lines `ks` of b: tiles of `H` rows and `V` vectors, of the `LINE` that a line of the panel has.
    #[inline(always)]
    fn column<S: Simd, const H: usize, const V: usize, const LINE: usize>(
        &mut self,
        simd: S,
        ks: &Range<usize>,
        panel: usize,
    ) {
        let width = WIDTH * V / LINE;
        let column = (panel - self.panels.start) * WIDTH;
        let columns = width.min(self.b.n - panel * WIDTH);
        let b = &self.b.values[(panel * self.b.k + ks.start) * WIDTH..][..ks.len() * WIDTH];
        let (rows, add) = (self.out.rows(), self.add);
        let first = ks.start - self.depth.start;
        let whole = if columns == width { rows / H } else { 0 };
        if whole > 0 {
            // SAFETY: `tiles` has seen that `a` holds `rows` lines of `depth` values.
            let a = std::array::from_fn(|i| unsafe { self.a.as_ptr().add(i * self.a_stride + first) });
            let (out, stride) = self.out.rectangle(0..whole * H, column..column + width);
            // SAFETY: each line of `a` has ks.len() values from there on, `b` as many lines, and the rectangle of the result
            // is whole·H × width, with lines `stride` apart.
            simd.vectorize(Tiles::<H, V, LINE> { a, a_stride: self.a_stride, b, out, stride, count: whole, add });
        }
        for row in (whole * H..rows).step_by(H) {
            let height = H.min(rows - row);
            // Rows that are not there repeat the last one.
            // SAFETY: as above, and row + i is below `rows`.
            let a = std::array::from_fn(|i| unsafe {
                self.a.as_ptr().add((row + i.min(height - 1)) * self.a_stride + first)
            });
            let mut corner = [[0f32; WIDTH]; H];
            let (out, stride) = (corner.as_mut_ptr().cast(), WIDTH);
            // SAFETY: as above, and the corner has H lines of 16 values.
            simd.vectorize(Tiles::<H, V, LINE> { a, a_stride: 0, b, out, stride, count: 1, add: false });
            for (i, sums) in corner.iter().enumerate().take(height) {
                let out = &mut self.out.line(row + i)[column..column + columns];
                match add {
                    true => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
                    false => out.copy_from_slice(&sums[..columns]),
                }
            }
        }
    }
}

/// The micro-kernel, tile after tile: `H` rows times `V` vectors, summed over k in registers. Whoever makes one vouches for
/// its pointers: as many values behind each of `a`, and what is H lines further down, as `b` has lines, and `count` times `H`
/// lines of `V` vectors, `stride` apart, behind `out`.
struct Tiles<'a, const H: usize, const V: usize, const LINE: usize> {
    a: [*const f32; H],
    a_stride: usize,
    b: &'a [f32],
    out: *mut f32,
    stride: usize,
    count: usize,
    add: bool,
}

impl<const H: usize, const V: usize, const LINE: usize> WithSimd for Tiles<'_, H, V, LINE> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { mut a, a_stride, b, mut out, stride, count, add } = self;
        let lines = S::as_simd_f32s(b).0.as_chunks::<LINE>().0;
        let (fours, rest) = lines.as_chunks::<4>();
        for tile in 0..count {
            let mut sums = [[simd.splat_f32s(0.0); V]; H];
            let mut k = 0usize;
            macro_rules! step {
                ($line:expr) => {
                    for i in 0..H {
                        // SAFETY: k counts the lines of b, and `a` has as many values.
                        let a = simd.splat_f32s(unsafe { a[i].add(k).read() });
                        for v in 0..V {
                            sums[i][v] = simd.mul_add_f32s(a, $line[v], sums[i][v]);
                        }
                    }
                    k = k.wrapping_add(1);
                };
            }
            // Four at a time, since the pointers then move on once for four.
            for four in fours {
                step!(four[0]);
                step!(four[1]);
                step!(four[2]);
                step!(four[3]);
            }
            for line in rest {
                step!(line);
            }
            for i in 0..H {
                // SAFETY: there are H lines of V vectors, which need not be aligned.
                unsafe {
                    let out = out.add(i * stride).cast::<[S::f32s; V]>();
                    if add {
                        let was = out.read_unaligned();
                        for v in 0..V {
                            sums[i][v] = simd.add_f32s(was[v], sums[i][v]);
                        }
                    }
                    out.write_unaligned(sums[i]);
                }
            }
            if tile + 1 < count {
                // SAFETY: there is one more tile, H lines further down.
                unsafe {
                    a = a.map(|a| a.add(H * a_stride));
                    out = out.add(H * stride);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn product(a: &[f32], k: usize, b: &Panels, panels: Range<usize>, out: &mut [f32], width: usize) {
        let out = Block::new(out, width);
        Product { a, a_stride: k, b: b.whole(), depth: 0..k, panels, out, add: false }.run();
    }

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
            product(&a, k, &panels, 0..panels.count(), &mut out, n);
            for (at, made) in out.iter().enumerate() {
                let exact: f64 = (0..k).map(|i| f64::from(a[at / n * k + i]) * f64::from(b[i * n + at % n])).sum();
                prop_assert!((f64::from(*made) - exact).abs() < 1e-4, "{} {}", made, exact);
            }
            let mut scalar = vec![f32::NAN; rows * n];
            let (b, panels) = (&panels, 0..panels.count());
            let whole = Product {
                a: &a, a_stride: k, b: b.whole(), depth: 0..k, panels, out: Block::new(&mut scalar, n), add: false,
            };
            whole.with_simd(pulp::Scalar::new());
            prop_assert_eq!(&out, &scalar);
            // The last row by itself, and the last panel by itself.
            let (last, panel) = (rows - 1, b.count() - 1);
            let mut alone = vec![f32::NAN; n];
            product(&a[last * k..], k, b, 0..b.count(), &mut alone, n);
            prop_assert_eq!(&out[last * n..], &alone);
            let mut corner = vec![f32::NAN; n - panel * WIDTH];
            let width = corner.len();
            product(&a[last * k..], k, b, panel..panel + 1, &mut corner, width);
            prop_assert_eq!(&alone[panel * WIDTH..], &corner);
            // In two parts of k, where the second begins with a piece.
            if k > DEPTH {
                let mut parts = vec![f32::NAN; rows * n];
                for depth in [0..DEPTH, DEPTH..k] {
                    let (a, add, panels) = (&a[depth.start..], depth.start > 0, 0..b.count());
                    Product { a, a_stride: k, b: b.whole(), depth, panels, out: Block::new(&mut parts, n), add }.run();
                }
                prop_assert_eq!(&out, &parts);
            }
        }
    }
}
