//! Products of activations with the weight matrix of a layer.

use std::{fmt, ops::Range, sync::Arc};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{
    Kernels, Rows, arena,
    bf16::{self, PLANES, Unit, Way},
    block::Block,
    finish::Epilogue,
    gemm::{DEPTH, HEIGHT, Lines, Panels, Product, WIDTH},
    narrow::Narrow,
    partition::{Costs, Partition},
    simd::vectorized,
    storage::{Operand, blank, floats, made},
    tiles::Tile,
};

/// A linear layer: a (K, N) matrix and perhaps a bias (N), in the layout of the kernels.
#[derive(Clone)]
pub struct Matrix {
    held: Held,
    bias: Option<Tensor>,
    shape: (usize, usize),
}

#[derive(Clone)]
enum Held {
    Packed { panels: Packed, bias: Arc<[f32]> },
    Plain(Tensor, Rows),
}

/// The values of a matrix in the layout of the micro-kernel: as float32, or as they are stored.
#[derive(Clone)]
pub(super) enum Packed {
    /// The panels in float32, and how many planes each number has (see [`bf16`]).
    Wide(Arc<Panels>, usize),
    Narrow(Arc<Narrow>),
}

impl Packed {
    /// (K, N).
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Packed::Wide(panels, _) => (panels.k, panels.n),
            Packed::Narrow(narrow) => (narrow.k, narrow.n),
        }
    }

    /// What the blocks of a product with the matrix cost.
    pub fn costs(&self, way: Way) -> Costs {
        match (self, way) {
            _ if way.rounds() => Costs::FAST,
            (_, Way::Planes(..)) => Costs::PLANES,
            (Packed::Wide(..), Way::Wide) => Costs::WIDE,
            (Packed::Narrow(_), Way::Wide) => Costs::NARROW,
        }
    }

    /// out = a · the matrix, for some panels. `a` has a line of K values for each line of `out`. Calls `finish` with
    /// each part of the result that is complete, and with its panels, while the part is in the cache.
    pub fn times(
        &self,
        way: Way,
        a: &[f32],
        panels: Range<usize>,
        out: &mut Block<'_>,
        mut finish: impl FnMut(&mut Block<'_>, Range<usize>),
    ) {
        if let Way::Planes(unit, most) = way {
            return self.times_in_planes((unit, most), a, panels, out, finish);
        }
        let ((k, _), lines) = (self.shape(), out.lines());
        let is_tiled = lines >= HEIGHT && panels.len() >= TILED;
        let mut tiles = arena::take(if is_tiled { lines * k.min(DEPTH) } else { 0 });
        for first in (0..k).step_by(DEPTH) {
            let depth = first..k.min(first + DEPTH);
            let a = if is_tiled {
                let tiles = &mut tiles[..lines * depth.len()];
                Tile::new(a, k, lines, depth.clone(), tiles).run();
                Lines::Tiled(tiles)
            } else {
                Lines::Apart(&a[depth.start..], k)
            };
            let multiply = |panels: Range<usize>, out: Block<'_>| match self {
                Packed::Wide(wide, _) => {
                    let (b, depth, add) = (wide.whole(), depth.clone(), first > 0);
                    Product { a, b, depth, panels, out, add, ahead: None }.run();
                }
                Packed::Narrow(narrow) => narrow.times(a, depth.clone(), panels, out, first > 0),
            };
            if depth.end < k {
                multiply(panels.clone(), out.reborrow());
                continue;
            }
            for part in panels.clone().step_by(FINISHED) {
                let part = part..panels.end.min(part + FINISHED);
                let columns = (part.start - panels.start) * WIDTH..out.columns().min((part.end - panels.start) * WIDTH);
                // SAFETY: `out` is borrowed mutably, and this is its only part.
                let mut out = unsafe { out.part(0..lines, columns) };
                multiply(part.clone(), out.reborrow());
                finish(&mut out, part);
            }
        }
    }

    /// [`Packed::times`] with planes: at most `most`, on this unit.
    fn times_in_planes(
        &self,
        (unit, most): (Unit, usize),
        a: &[f32],
        panels: Range<usize>,
        out: &mut Block<'_>,
        mut finish: impl FnMut(&mut Block<'_>, Range<usize>),
    ) {
        let ((k, n), lines) = (self.shape(), out.lines());
        let planes = self.planes().min(most);
        let mut scratch = arena::take(DEPTH.min(k) * WIDTH);
        // The planes of the left matrix that are multiplied by all panels should stay in the cache.
        let at_a_time = DEPTH * (PLANES - most).max(1);
        for begin in (0..k).step_by(at_a_time) {
            let part = begin..k.min(begin + at_a_time);
            let left = bf16::Left::split((unit, most), a, k, lines, part.clone());
            for set in panels.clone().step_by(SET) {
                let set = set..panels.end.min(set + SET);
                let columns = set.start * WIDTH..n.min(set.end * WIDTH);
                let first_column = panels.start * WIDTH;
                // SAFETY: `out` is borrowed mutably, and this is its only part.
                let mut out = unsafe { out.part(0..lines, columns.start - first_column..columns.end - first_column) };
                for first in part.clone().step_by(DEPTH) {
                    let depth = first..part.end.min(first + DEPTH);
                    let mut right = bf16::Right::new(set.len(), depth.len(), planes);
                    for (at, panel) in set.clone().enumerate() {
                        self.split(panel, depth.clone(), &mut right, (at, 0), &mut scratch);
                    }
                    let step = (first - begin) / bf16::STEP;
                    let steps = step..step + depth.len().div_ceil(bf16::STEP);
                    let offsets: Vec<usize> = steps.map(|step| left.offset(0, step)).collect();
                    bf16::multiply_at(&left, &offsets, &right, &mut out, first > 0);
                }
                if part.end == k {
                    finish(&mut out, set);
                }
            }
        }
    }

    /// The number of planes of each number, see [`bf16`].
    pub fn planes(&self) -> usize {
        match self {
            Packed::Wide(_, planes) => *planes,
            Packed::Narrow(narrow) => narrow.planes(),
        }
    }

    /// Splits lines of a panel, which become steps of a panel of `right`; `at` is this panel and its first step. The
    /// first line begins a block. `scratch` is room for the lines.
    pub fn split(
        &self,
        panel: usize,
        lines: Range<usize>,
        right: &mut bf16::Right,
        at: (usize, usize),
        scratch: &mut [f32],
    ) {
        match self {
            Packed::Wide(wide, _) => {
                right.split(at.0, at.1, &wide.panel(panel)[lines.start * WIDTH..lines.end * WIDTH])
            }
            Packed::Narrow(narrow) => narrow.split(panel, &lines, right, at, scratch),
        }
    }
}

/// The number of panels that the matrix unit multiplies at a time.
const SET: usize = 8;

/// The least number of panels for which copying the lines of the left matrix into tiles saves time.
const TILED: usize = 16;
/// The number of panels that are finished at a time.
const FINISHED: usize = 8;

impl Matrix {
    /// Creates a layer from a matrix (K, N) and an optional bias (N). Packed kernels pack the matrix here.
    pub fn new(matrix: &Tensor, bias: Option<&Tensor>, kernels: Kernels) -> Result<Self> {
        let (k, n) = matrix.dims2()?;
        if let Some(bias) = bias.filter(|bias| bias.dims() != [n]) {
            candle_core::bail!("biases {:?} for {n} columns", bias.dims());
        }
        // A matrix that is not contiguous is a broadcast scalar: a placeholder that needs no memory.
        let held = if matches!(kernels, Kernels::Packed(_)) && matrix.is_contiguous() {
            let values = Operand::of(matrix);
            let values = values.floats()?;
            let panels = Packed::Wide(Arc::new(Panels::pack(values, k, n, n, 1)), bf16::planes_of(values));
            Held::Packed { panels, bias: biases(bias, n)? }
        } else {
            Held::Plain(matrix.clone(), kernels.rows())
        };
        Ok(Self { held, bias: bias.cloned(), shape: (k, n) })
    }

    /// Creates a layer from a matrix that stays as it is stored, and an optional bias (N). It computes what packed
    /// kernels compute with the matrix in float32, bit by bit.
    ///
    /// # Errors
    /// The bias does not have N values.
    pub fn narrow(matrix: Narrow, bias: Option<&Tensor>) -> Result<Self> {
        let shape = (matrix.k, matrix.n);
        if let Some(bias) = bias.filter(|bias| bias.dims() != [shape.1]) {
            candle_core::bail!("biases {:?} for {} columns", bias.dims(), shape.1);
        }
        let held = Held::Packed { panels: Packed::Narrow(Arc::new(matrix)), bias: biases(bias, shape.1)? };
        Ok(Self { held, bias: bias.cloned(), shape })
    }

    /// (K, N).
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// x (B, …, K) · matrix + bias → (B, …, N), in the precision of the matrix. The bits of a row of the batch do not
    /// depend on the other rows, except with [`Rows::Together`].
    pub fn times(&self, x: &Tensor) -> Result<Tensor> {
        self.times_with(x, Epilogue::default())
    }

    /// x (B, …, K) · matrix + bias + the terms of `epilogue` → (B, …, N).
    pub fn times_with(&self, x: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        match &self.held {
            Held::Packed { panels, bias } => x.apply_op1_no_bwd(&Times { panels, bias, epilogue }),
            Held::Plain(matrix, rows) => {
                let product = self.composite(x, matrix, *rows)?;
                epilogue.composite(self.bias.iter().try_fold(product, |product, bias| product.broadcast_add(bias))?)
            }
        }
    }

    /// The product by candle's operations, with contiguous two-dimensional operands only: candle's product of a
    /// transposed view is wrong from the second row of a batch on.
    fn composite(&self, x: &Tensor, matrix: &Tensor, rows: Rows) -> Result<Tensor> {
        let (k, n) = self.shape;
        let dims = x.dims();
        if dims.last() != Some(&k) {
            candle_core::bail!("times: {dims:?} by a matrix of {k}×{n}");
        }
        let shape = [&dims[..dims.len() - 1], &[n]].concat();
        let x = x.to_dtype(matrix.dtype())?.contiguous()?;
        let batch = if dims.len() > 1 { dims[0].max(1) } else { 1 };
        let lines = x.reshape((batch, x.elem_count() / k.max(1) / batch, k))?;
        rows.each([&lines], |[lines]| lines.flatten_to(1)?.matmul(matrix))?.reshape(shape)
    }

    pub(super) fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// The panels of the matrix and the bias, for packed kernels; `None` for reference kernels and placeholders.
    pub(super) fn packed(&self) -> Option<(&Packed, &[f32])> {
        match &self.held {
            Held::Packed { panels, bias } => Some((panels, bias)),
            Held::Plain(..) => None,
        }
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matrix{:?}", self.shape)
    }
}

/// The biases of `n` columns; zeros if there are none.
fn biases(bias: Option<&Tensor>, n: usize) -> Result<Arc<[f32]>> {
    Ok(bias.map(|bias| bias.to_vec1()).transpose()?.unwrap_or_else(|| vec![0.0; n]).into())
}

struct Times<'a> {
    panels: &'a Packed,
    bias: &'a [f32],
    epilogue: Epilogue<'a>,
}

impl CustomOp1 for Times<'_> {
    fn name(&self) -> &'static str {
        "times"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (k, n) = self.panels.shape();
        let (x, dims) = (floats(storage, layout)?, layout.dims());
        if dims.last() != Some(&k) || k == 0 || n == 0 {
            candle_core::bail!("times: {dims:?} by a matrix of {k}×{n}");
        }
        let lines = x.len() / k;
        let batch = if dims.len() > 1 { dims[0].max(1) } else { 1 };
        let held = self.epilogue.lock();
        let finish = held.finish(self.bias, batch, lines / batch)?;
        let mut out = blank(lines * n);
        let whole = Block::new(&mut out, n);
        let way = Way::for_rows_of(lines / batch);
        Partition::product(lines, k, n, self.panels.costs(way)).run(|_, rows, panels| {
            let columns = panels.start * WIDTH..n.min(panels.end * WIDTH);
            // SAFETY: the blocks of a partition do not overlap.
            let mut out = unsafe { whole.part(rows.clone(), columns) };
            self.panels.times(way, &x[rows.start * k..rows.end * k], panels, &mut out, |out, panels| {
                let columns = panels.start * WIDTH..n.min(panels.end * WIDTH);
                vectorized(
                    #[inline(always)]
                    || finish.block(out, rows.start, columns),
                );
            });
        });
        made(out, [&dims[..dims.len() - 1], &[n]].concat())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;
    use crate::{finish::Activation, random::Random};

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn bits(x: &Tensor) -> Vec<u32> {
        values(x).iter().map(|x| x.to_bits()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn a_row_is_the_same_in_every_company(
            m in prop_oneof![Just(1usize), 2usize..9, 60usize..200],
            k in prop_oneof![1usize..70, 513usize..1300],
            n in prop_oneof![1usize..9, 60usize..140, 250usize..300],
            batch in 2usize..6,
            threads in 1usize..4,
            seed: u64,
        ) {
            let mut random = Random::new(seed);
            let mut random = |shape: &[usize]| random.normal(shape, 0.0);
            let (x, plain, bias) = (random(&[batch, m, k]), random(&[k, n]), random(&[n]));
            let (rows, residual) = (random(&[batch, n]), random(&[batch, m, n]));
            let epilogue = Epilogue { per_sample: Some(&rows), residual: Some(&residual), ..Epilogue::default() };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let of_kernels = |kernels| {
                let matrix = Matrix::new(&plain, Some(&bias), kernels).unwrap();
                let together = pool.install(|| matrix.times_with(&x, epilogue)).unwrap();
                (matrix, together)
            };
            let (packed, reference) = (of_kernels(Kernels::default()), of_kernels(Kernels::REFERENCE));
            for (a, b) in values(&packed.1).iter().zip(values(&reference.1)) {
                prop_assert!((a - b).abs() < 1e-3, "{a} {b}");
            }
            for ((matrix, together), b) in [packed, reference].iter().flat_map(|of| (0..batch).map(move |b| (of, b))) {
                let of = |x: &Tensor| x.narrow(0, b, 1).unwrap();
                let (rows, residual) = (of(&rows), of(&residual));
                let epilogue = Epilogue { per_sample: Some(&rows), residual: Some(&residual), ..Epilogue::default() };
                let alone = matrix.times_with(&of(&x), epilogue).unwrap();
                prop_assert_eq!(bits(&alone), bits(&together.narrow(0, b, 1).unwrap()), "m {} k {} n {}", m, k, n);
            }
        }
    }

    #[test]
    fn an_epilogue_computes_what_its_parts_compute_one_after_another() {
        let mut random = Random::new(5);
        let mut random = |shape: &[usize]| random.normal(shape, 0.0);
        let (x, plain, bias) = (random(&[3, 40, 70]), random(&[70, 300]), random(&[300]));
        let (gate, residual) = (random(&[3, 1, 300]), random(&[3, 40, 300]));
        for kernels in [Kernels::default(), Kernels::REFERENCE] {
            let matrix = Matrix::new(&plain, Some(&bias), kernels).unwrap();
            let product = matrix.times(&x).unwrap();
            let gelu = Epilogue { activation: Some(Activation::GeluTanh), ..Epilogue::default() };
            let made = matrix.times_with(&x, gelu).unwrap();
            assert_eq!(bits(&made), bits(&kernels.gelu_tanh(&product).unwrap()));
            let gated = Epilogue { gate: Some(&gate), residual: Some(&residual), ..Epilogue::default() };
            let made = matrix.times_with(&x, gated).unwrap();
            assert_eq!(bits(&made), bits(&kernels.gated_sum(&residual, &product, &gate).unwrap()));
            let wrong = Epilogue { gate: Some(&bias), ..Epilogue::default() };
            assert!(matrix.times_with(&x, wrong).is_err());
        }
    }

    #[test]
    fn mismatched_shapes_are_errors() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(Matrix::new(&zeros(&[3, 4]), Some(&zeros(&[3])), Kernels::default()).is_err());
        let matrix = Matrix::new(&zeros(&[3, 4]), None, Kernels::default()).unwrap();
        assert!(matrix.times(&zeros(&[2, 4])).is_err());
        let wrong = zeros(&[2, 3]);
        assert!(matrix.times_with(&zeros(&[2, 3]), Epilogue::residual(&wrong)).is_err());
        assert_eq!(matrix.times(&zeros(&[5, 2, 3])).unwrap().dims(), [5, 2, 4]);
    }
}
