//! Matrix multiplication, the basis of convolutions, linear layers and attention.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{
    arena,
    block::Block,
    simd::{dispatch, prefetch},
};

/// Columns of a panel.
pub(super) const WIDTH: usize = 16;
/// Lines of the largest tile. A tile is a rectangle of the result that is summed in registers. A block of the result
/// (see `partition.rs`) whose number of lines is a multiple of `HEIGHT` needs no smaller tiles.
pub(super) const HEIGHT: usize = 12;
/// Maximum number of products per element of the result that are summed in registers at a time. Each of these products
/// takes its own line of a panel, so at most `DEPTH` lines of a panel are in use at a time. These lines stay in the
/// cache. `DEPTH` is a multiple of the number of values in a quantized block of each [`super::format::Format`].
pub(super) const DEPTH: usize = 512;

/// A (K, N) matrix in the layout of the micro-kernel: panels (K, 16) of 16 columns, the last padded with zeros.
#[derive(Clone)]
pub(super) struct Panels {
    pub k: usize,
    pub n: usize,
    values: Vec<f32>,
}

impl Panels {
    /// Packs the matrix whose element (i, j) is `values[i * row + j * column]`.
    pub fn pack(values: &[f32], k: usize, n: usize, row: usize, column: usize) -> Self {
        let mut panels = Self { k, n, values: arena::take(n.div_ceil(WIDTH) * k * WIDTH) };
        let whole = n / WIDTH * k * WIDTH;
        panels.values[whole..].fill(0.0);
        if k > 0 {
            for (panel, packed) in panels.values.chunks_exact_mut(k * WIDTH).enumerate() {
                pack_panel(packed, &values[panel * WIDTH * column..], WIDTH.min(n - panel * WIDTH), row, column);
            }
        }
        panels
    }

    /// The number of panels.
    pub fn count(&self) -> usize {
        self.n.div_ceil(WIDTH)
    }

    /// The values of one panel, (K, 16).
    pub fn panel(&self, panel: usize) -> &[f32] {
        &self.values[panel * self.k * WIDTH..][..self.k * WIDTH]
    }

    pub fn whole(&self) -> PanelsRef<'_> {
        PanelsRef { k: self.k, n: self.n, values: &self.values }
    }
}

/// Packs at most 16 columns into one panel, (k, 16). The other columns of the panel must be zero already.
pub(super) fn pack_panel(packed: &mut [f32], values: &[f32], columns: usize, row: usize, column: usize) {
    if row == 1 && column > 1 {
        return pack_columns(packed, values, columns, column);
    }
    for (i, packed) in packed.chunks_exact_mut(WIDTH).enumerate() {
        let from = i * row;
        if column == 1 {
            packed[..columns].copy_from_slice(&values[from..from + columns]);
        } else {
            (0..columns).for_each(|j| packed[j] = values[from + j * column]);
        }
    }
}

/// Like [`pack_panel`], for columns that begin `column` values apart. Each cache line is read as a whole, because with
/// widths such as 4096, the cache lines of different columns displace one another from the L1 cache.
fn pack_columns(packed: &mut [f32], values: &[f32], columns: usize, column: usize) {
    for (square, packed) in packed.chunks_mut(WIDTH * WIDTH).enumerate() {
        for j in 0..columns {
            let values = &values[square * WIDTH + j * column..][..packed.len() / WIDTH];
            packed.iter_mut().skip(j).step_by(WIDTH).zip(values).for_each(|(packed, value)| *packed = *value);
        }
    }
}

/// Borrowed panels: ⌈n/16⌉ times (k, 16).
#[derive(Clone, Copy)]
pub(super) struct PanelsRef<'a> {
    pub k: usize,
    pub n: usize,
    pub values: &'a [f32],
}

/// The left matrix of a product.
#[derive(Clone, Copy)]
pub(super) enum Lines<'a> {
    /// The matrix as it lies in memory, and the number of values from the beginning of a line to the beginning of the
    /// next line.
    Apart(&'a [f32], usize),
    /// At most `DEPTH` columns of the matrix, copied into the order of [`super::tiles::Tile`].
    Tiled(&'a [f32]),
}

/// out = a · b or out += a · b, for some panels and some lines of b.
///
/// Each element is summed over k in ascending order with fused multiply-adds, starting from 0 or from the old value. So
/// the bits of an element do not depend on the tile, on the numbers of lines, threads and vector lanes, or on the
/// division of k into pieces.
pub(super) struct Product<'a> {
    /// One line of `depth.len()` values for each line of `out`.
    pub a: Lines<'a>,
    pub b: PanelsRef<'a>,
    /// The lines of b to use.
    pub depth: Range<usize>,
    /// The panels of b to use.
    pub panels: Range<usize>,
    /// The result. Its columns are the columns of the panels, without the padding of the last panel.
    pub out: Block<'a>,
    /// Whether the product is added to the values in `out` or replaces them.
    pub add: bool,
    /// The bytes that are read after this product; `None` if these are the next panels of b.
    pub ahead: Option<[&'a [u8]; 2]>,
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
        // Tiles that fill the vector registers: 12 × 32 sums in the 32 registers of AVX-512, 6 × 16 sums in the 16 of
        // AVX2 or the 32 of NEON.
        match S::F32_LANES {
            16 => self.pieces::<S, HEIGHT, 2, 1, 1>(simd),
            8 => self.pieces::<S, { HEIGHT / 2 }, 1, 2, 1>(simd),
            4 => self.pieces::<S, { HEIGHT / 2 }, 1, 4, 2>(simd),
            _ => self.pieces::<S, { HEIGHT / 2 }, 1, WIDTH, { WIDTH / 2 }>(simd),
        }
    }
}

impl Product<'_> {
    /// Iterates over pieces of k and over groups of `P` panels, with tiles of up to `H` lines. If at most half of the
    /// last panel is used and `a` is not tiled, the tiles of this panel have up to 12 lines. A panel is `V` vectors
    /// wide, and half a panel is `HALF` vectors wide.
    #[inline(always)]
    fn pieces<S: Simd, const H: usize, const P: usize, const V: usize, const HALF: usize>(mut self, simd: S) {
        let rows = self.out.lines();
        let tiled = match self.a {
            Lines::Apart(values, stride) => {
                assert!(rows == 0 || values.len() >= (rows - 1) * stride + self.depth.len());
                false
            }
            Lines::Tiled(values) => {
                assert!(values.len() == rows * self.depth.len() && self.depth.len() <= DEPTH);
                true
            }
        };
        assert!(self.depth.end <= self.b.k && self.panels.end * WIDTH < self.b.n + WIDTH);
        assert_eq!(self.out.columns(), self.b.n.min(self.panels.end * WIDTH) - self.panels.start * WIDTH);
        if self.depth.is_empty() && !self.add {
            (0..rows).for_each(|row| self.out.line(row).fill(0.0));
        }
        for first in self.depth.clone().step_by(DEPTH) {
            let ks = first..self.depth.end.min(first + DEPTH);
            self.add |= first > self.depth.start;
            let mut panel = self.panels.start;
            while panel < self.panels.end {
                let columns = self.b.n - panel * WIDTH;
                if P > 1 && columns >= P * WIDTH && self.panels.end - panel >= P {
                    match tiled {
                        true => self.columns::<S, H, P, V, V, true>(simd, &ks, panel),
                        false => self.columns::<S, H, P, V, V, false>(simd, &ks, panel),
                    }
                    panel += P;
                    continue;
                }
                match (columns <= WIDTH / 2, tiled) {
                    (true, true) => self.columns::<S, H, 1, HALF, V, true>(simd, &ks, panel),
                    (true, false) => self.columns::<S, 12, 1, HALF, V, false>(simd, &ks, panel),
                    (false, true) => self.columns::<S, H, 1, V, V, true>(simd, &ks, panel),
                    (false, false) => self.columns::<S, H, 1, V, V, false>(simd, &ks, panel),
                }
                panel += 1;
            }
        }
    }

    /// Computes all lines of the result for the lines `ks` of b and for `P` panels. A line of a panel has `LINE`
    /// vectors; the first `V` of them are used.
    #[inline(always)]
    fn columns<S: Simd, const H: usize, const P: usize, const V: usize, const LINE: usize, const TILED: bool>(
        &mut self,
        simd: S,
        ks: &Range<usize>,
        panel: usize,
    ) {
        let mut row = 0;
        self.rows::<S, H, P, V, LINE, TILED>(simd, ks, panel, &mut row);
        if H > 8 {
            self.rows::<S, 8, P, V, LINE, TILED>(simd, ks, panel, &mut row);
        }
        self.rows::<S, 4, P, V, LINE, TILED>(simd, ks, panel, &mut row);
        self.rows::<S, 2, P, V, LINE, TILED>(simd, ks, panel, &mut row);
        self.rows::<S, 1, P, V, LINE, TILED>(simd, ks, panel, &mut row);
    }

    /// Computes as many tiles of `H` lines as fit from line `row` on, and advances `row`.
    #[inline(always)]
    fn rows<S: Simd, const H: usize, const P: usize, const V: usize, const LINE: usize, const TILED: bool>(
        &mut self,
        simd: S,
        ks: &Range<usize>,
        panel: usize,
        row: &mut usize,
    ) {
        let count = (self.out.lines() - *row) / H;
        if count == 0 {
            return;
        }
        let width = (P - 1) * WIDTH + WIDTH * V / LINE;
        let column = (panel - self.panels.start) * WIDTH;
        let columns = width.min(self.b.n - panel * WIDTH);
        let next = self.b.k * WIDTH;
        let b = &self.b.values[panel * next..][..P * next];
        let first = ks.start - self.depth.start;
        let (values, offset, a_stride) = match self.a {
            Lines::Apart(values, stride) => (values, *row * stride + first, stride),
            Lines::Tiled(values) => (values, *row * ks.len(), ks.len()),
        };
        // SAFETY: `pieces` has asserted that `a` holds `depth.len()` values for each line of the result.
        let a = unsafe { values.as_ptr().add(offset) };
        let add = self.add;
        // Weights mostly come from memory, and the processor does not predict where reading continues after these
        // panels. The first tiles prefetch what is read next, each tile a part, because memory is slower than the
        // products of one tile. If `ahead` is `None`, reading continues at the same lines of the next panels.
        let ahead = std::array::from_fn(|p| match self.ahead {
            Some(ahead) => ahead[(panel - self.panels.start + p) % 2].as_ptr(),
            None => b.as_ptr().wrapping_add((P + p) * next + ks.start * WIDTH).cast(),
        });
        let bytes = self.ahead.map_or(ks.len() * WIDTH * size_of::<f32>(), |[first, _]| first.len());
        let step = bytes / ks.len() / PARTS;
        if columns == width {
            let (out, stride) = self.out.rectangle(*row..*row + count * H, column..column + width);
            // SAFETY: from this pointer on, each line of `a` has at least ks.len() values. The rectangle of the result
            // has count·H lines of `width` values, `stride` apart.
            simd.vectorize(TileKernel::<H, P, V, LINE, TILED> {
                a,
                a_stride,
                b,
                next,
                ks: ks.clone(),
                out,
                stride,
                count,
                add,
                ahead,
                step,
            });
            *row += count * H;
            return;
        }
        for tile in 0..count {
            let mut corner = [[0f32; WIDTH]; H];
            for (i, sums) in corner.iter_mut().enumerate().filter(|_| add) {
                sums[..columns].copy_from_slice(&self.out.line(*row + tile * H + i)[column..column + columns]);
            }
            let (out, stride) = (corner.as_mut_ptr().cast(), WIDTH);
            // SAFETY: `tile` is less than `count`.
            let a = unsafe { a.add(tile * H * a_stride) };
            // SAFETY: as above. The corner has H lines of 16 values, and an incomplete panel is computed alone.
            simd.vectorize(TileKernel::<H, P, V, LINE, TILED> {
                a,
                a_stride,
                b,
                next,
                ks: ks.clone(),
                out,
                stride,
                count: 1,
                add,
                ahead,
                step,
            });
            for (i, sums) in corner.iter().enumerate() {
                self.out.line(*row + tile * H + i)[column..column + columns].copy_from_slice(&sums[..columns]);
            }
        }
        *row += count * H;
    }
}

/// The number of tiles that prefetch what is multiplied next.
const PARTS: usize = 8;

/// The micro-kernel. Computes `count` tiles of `H` lines times `P` panels of `V` vectors, summed over k in registers.
///
/// The creator must ensure two things. `a` points to `count · H` lines of `ks.len()` values, which begin `a_stride`
/// values apart, or to `count` tiles if they are `TILED`. `out` points to `count · H` lines with `V` vectors for each
/// of the `P` panels, which begin `stride` values apart.
struct TileKernel<'a, const H: usize, const P: usize, const V: usize, const LINE: usize, const TILED: bool> {
    a: *const f32,
    a_stride: usize,
    /// `P` panels of `next` values each.
    b: &'a [f32],
    next: usize,
    /// The lines of b to use.
    ks: Range<usize>,
    out: *mut f32,
    stride: usize,
    count: usize,
    add: bool,
    /// The places from which the first tiles prefetch, and the number of bytes for each product.
    ahead: [*const u8; P],
    step: usize,
}

impl<const H: usize, const P: usize, const V: usize, const LINE: usize, const TILED: bool> WithSimd
    for TileKernel<'_, H, P, V, LINE, TILED>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { a, a_stride, b, next, ks, out, stride, count, add, ahead, step } = self;
        let mut panels: [&[[S::f32s; LINE]]; P] = [&[]; P];
        for p in 0..P {
            panels[p] = S::as_simd_f32s(&b[p * next + ks.start * WIDTH..][..ks.len() * WIDTH]).0.as_chunks::<LINE>().0;
            assert!(panels[p].len() == ks.len());
        }
        for tile in 0..count {
            // SAFETY: `tile` is less than `count`, and a tile starts H lines after the previous one.
            let (first, out) = unsafe { (a.add(tile * H * a_stride), out.add(tile * H * stride)) };
            let mut lines = [first; H];
            for i in 1..H {
                // SAFETY: a tile has H lines.
                lines[i] = unsafe { first.add(if TILED { i } else { i * a_stride }) };
            }
            // SAFETY: as below.
            let at = |i: usize, p: usize, v: usize| unsafe { out.add(i * stride + p * WIDTH).cast::<S::f32s>().add(v) };
            let mut sums = [[[simd.splat_f32s(0.0); V]; P]; H];
            if add {
                for i in 0..H {
                    for p in 0..P {
                        for v in 0..V {
                            // SAFETY: a tile of `out` has H lines of P · V vectors. The access needs no alignment.
                            sums[i][p][v] = unsafe { at(i, p, v).read_unaligned() };
                        }
                    }
                }
            }
            // The next tile adds to sums in lines that are far apart.
            for i in 0..H {
                for p in 0..P {
                    prefetch(out.wrapping_add((H + i) * stride + p * WIDTH).cast());
                }
            }
            let ahead = ahead.map(|from| from.wrapping_add(if tile < PARTS { tile * (ks.len() * step) } else { 0 }));
            let step = if tile < PARTS { step } else { 0 };
            for k in 0..ks.len() {
                for p in 0..P {
                    prefetch(ahead[p].wrapping_add(k.wrapping_mul(step)));
                }
                for i in 0..H {
                    // SAFETY: k is less than ks.len(), and each of the H lines of `a` has ks.len() values.
                    let a = simd.splat_f32s(unsafe { lines[i].add(if TILED { H * k } else { k }).read() });
                    for p in 0..P {
                        // SAFETY: the assertion above has checked that every panel has ks.len() lines.
                        let line = unsafe { panels[p].get_unchecked(k) };
                        for v in 0..V {
                            sums[i][p][v] = simd.mul_add_f32s(a, line[v], sums[i][p][v]);
                        }
                    }
                }
            }
            for i in 0..H {
                for p in 0..P {
                    for v in 0..V {
                        // SAFETY: as above.
                        unsafe { at(i, p, v).write_unaligned(sums[i][p][v]) };
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tiles::Tile;

    fn product(a: &[f32], k: usize, b: &Panels, panels: Range<usize>, out: &mut [f32], width: usize) {
        let out = Block::new(out, width);
        Product { a: Lines::Apart(a, k), b: b.whole(), depth: 0..k, panels, out, add: false, ahead: None }.run();
    }

    /// A computation that a test runs on a chosen vector unit.
    enum Work<'a> {
        Tile(Tile<'a>),
        Product(Product<'a>),
    }

    impl WithSimd for Work<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            match self {
                Work::Tile(tile) => tile.with_simd(simd),
                Work::Product(product) => product.with_simd(simd),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn like_the_definition_and_alike_on_every_vector_unit(
            rows in 1usize..30, k in prop_oneof![1usize..40, 500usize..530, 1020usize..1030],
            n in 1usize..40, seed: u32,
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
            let b = &panels;
            let alike = |unit: &str, run: &dyn Fn(Work<'_>)| -> Result<(), TestCaseError> {
                let mut made = vec![f32::NAN; rows * n];
                let product = Product {
                    a: Lines::Apart(&a, k),
                    b: b.whole(),
                    depth: 0..k,
                    panels: 0..b.count(),
                    out: Block::new(&mut made, n),
                    add: false,
                    ahead: None,
                };
                run(Work::Product(product));
                prop_assert_eq!(&out, &made, "{}", unit);
                let mut made = vec![f32::NAN; rows * n];
                for first in (0..k).step_by(DEPTH) {
                    let depth = first..k.min(first + DEPTH);
                    let mut values = vec![f32::NAN; rows * depth.len()];
                    run(Work::Tile(Tile::new(&a, k, rows, depth.clone(), &mut values)));
                    let (out, panels, add) = (Block::new(&mut made, n), 0..b.count(), first > 0);
                    let a = Lines::Tiled(&values);
                    run(Work::Product(Product { a, b: b.whole(), depth, panels, out, add, ahead: None }));
                }
                prop_assert_eq!(&out, &made, "{} in tiles", unit);
                Ok(())
            };
            alike("the best", &|work| dispatch(work))?;
            alike("scalar", &|work| work.with_simd(pulp::Scalar::new()))?;
            #[cfg(target_arch = "x86_64")]
            if let Some(avx2) = pulp::x86::V3::try_new() {
                alike("AVX2", &|work| Simd::vectorize(avx2, work))?;
            }
            // The last row alone, and the last panel alone.
            let (last, panel) = (rows - 1, b.count() - 1);
            let mut alone = vec![f32::NAN; n];
            product(&a[last * k..], k, b, 0..b.count(), &mut alone, n);
            prop_assert_eq!(&out[last * n..], &alone);
            let mut corner = vec![f32::NAN; n - panel * WIDTH];
            let width = corner.len();
            product(&a[last * k..], k, b, panel..panel + 1, &mut corner, width);
            prop_assert_eq!(&alone[panel * WIDTH..], &corner);
            // The result is the same if one product sums a part of k and a second product adds the rest.
            let mut parts = vec![f32::NAN; rows * n];
            for depth in [0..k / 3, k / 3..k] {
                let (a, add, panels) = (&a[depth.start..], depth.start > 0, 0..b.count());
                let (a, out) = (Lines::Apart(a, k), Block::new(&mut parts, n));
                Product { a, b: b.whole(), depth, panels, out, add, ahead: None }.run();
            }
            prop_assert_eq!(&out, &parts);
        }
    }
}
