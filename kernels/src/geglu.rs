//! Linear layers with a gate: GEGLU and its relatives (Shazeer 2020, arXiv:2002.05202).

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};

use super::{
    Kernels,
    activation::{gelu_erf_of, gelu_tanh_of, silu_of},
    bf16::Way,
    block::Block,
    finish::Epilogue,
    format::Format,
    gemm::WIDTH,
    matrix::{Matrix, Packed},
    narrow::Narrow,
    partition::Partition,
    simd::vectorized,
    storage::{Operand, at_least, blank, floats, made},
};

/// The function of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// GELU with the error function: diffusers' `geglu`.
    GeluErf,
    /// GELU with the tanh approximation: T5's `gated-gelu`.
    GeluTanh,
    /// SiLU: SwiGLU.
    Silu,
}

/// (x·V + b) ⊙ gate(x·W + c), with one matrix (K, 2·N): its first N columns are V, the others W.
#[derive(Clone, Debug)]
pub struct Geglu {
    /// If packed, groups of columns of V alternate with groups of the same columns of W, so that a value and its gate
    /// are in the cache at the same time, and the product of width 2·N is never stored.
    matrix: Matrix,
    /// The number of columns in each group.
    alternating: usize,
    gate: Gate,
}

impl Geglu {
    /// Creates a layer from a matrix (K, 2·N) and a bias (2·N).
    pub fn new(matrix: &Tensor, bias: &Tensor, gate: Gate, kernels: Kernels) -> Result<Self> {
        let (k, columns) = matrix.dims2()?;
        if columns == 0 || columns % 2 != 0 || bias.dims() != [columns] {
            candle_core::bail!("geglu: {columns} columns with biases {:?}", bias.shape());
        }
        if matches!(kernels, Kernels::Reference(_)) || !matrix.is_contiguous() {
            return Ok(Self { matrix: Matrix::new(matrix, Some(bias), kernels)?, alternating: columns / 2, gate });
        }
        let n = columns / 2;
        let alternating = alternating(n);
        let reorder = |tensor: &Tensor| -> Result<Vec<f32>> {
            let values = Operand::of(tensor);
            let lines = values.floats()?.chunks_exact(columns);
            let pairs = |line: &'_ [f32]| -> Vec<f32> {
                let (value, gate) = line.split_at(n);
                let pairs = value.chunks_exact(alternating).zip(gate.chunks_exact(alternating));
                pairs.flat_map(|(value, gate)| value.iter().chain(gate)).copied().collect()
            };
            Ok(lines.flat_map(pairs).collect())
        };
        let matrix = Tensor::from_vec(reorder(matrix)?, (k, columns), matrix.device())?;
        let bias = Tensor::from_vec(reorder(bias)?, columns, bias.device())?;
        Ok(Self { matrix: Matrix::new(&matrix, Some(&bias), kernels)?, alternating, gate })
    }

    /// As [`Geglu::new`], from 2·N rows of K numbers that stay as they are stored, and an optional bias (2·N). It
    /// computes what packed kernels compute with the matrix in float32, bit by bit.
    ///
    /// # Errors
    /// The bytes are not those of 2·N rows, or the bias does not have 2·N values.
    pub fn narrow(
        format: Format,
        scale: f32,
        rows: &[u8],
        (k, n): (usize, usize),
        bias: Option<&Tensor>,
        gate: Gate,
    ) -> Result<Self> {
        let alternating = alternating(n);
        let row_of = |column: usize| {
            let (pair, within) = (column / (2 * alternating), column % (2 * alternating));
            let first = pair * alternating + within % alternating;
            if within < alternating { first } else { n + first }
        };
        let matrix = Narrow::pack(format, scale, rows, (k, 2 * n), row_of)?;
        let reordered = |bias: &Tensor| -> Result<Tensor> {
            let values = bias.broadcast_as(2 * n)?.to_vec1::<f32>()?;
            Tensor::from_iter((0..2 * n).map(|column| values[row_of(column)]), bias.device())
        };
        let bias = bias.map(reordered).transpose()?;
        Ok(Self { matrix: Matrix::narrow(matrix, bias.as_ref())?, alternating, gate })
    }

    /// x (…, K) → (…, N).
    pub fn times(&self, x: &Tensor) -> Result<Tensor> {
        self.gated(x, None)
    }

    /// x (…, K) → (…, N), with `added` (…, 2·N) added to both products before the gate.
    pub fn times_with(&self, x: &Tensor, added: &Tensor) -> Result<Tensor> {
        self.gated(x, Some(added))
    }

    fn gated(&self, x: &Tensor, added: Option<&Tensor>) -> Result<Tensor> {
        match self.matrix.packed() {
            Some((panels, bias)) => {
                x.apply_op1_no_bwd(&Op { panels, bias, alternating: self.alternating, gate: self.gate, added })
            }
            None => {
                let epilogue = Epilogue { residual: added, ..Epilogue::default() };
                let halves = self.matrix.times_with(x, epilogue)?.chunk(2, D::Minus1)?;
                let gate = match self.gate {
                    Gate::GeluErf => halves[1].gelu_erf()?,
                    Gate::GeluTanh => halves[1].gelu()?,
                    Gate::Silu => halves[1].silu()?,
                };
                &halves[0] * gate
            }
        }
    }
}

/// The number of columns in each of the alternating groups of a layer with N columns: the largest power of two that
/// divides N, but at most the width of a panel.
fn alternating(n: usize) -> usize {
    (1usize << n.trailing_zeros().min(4)).min(WIDTH)
}

struct Op<'a> {
    panels: &'a Packed,
    bias: &'a [f32],
    alternating: usize,
    gate: Gate,
    /// (…, 2·N): first all values, then all gates.
    added: Option<&'a Tensor>,
}

impl CustomOp1 for Op<'_> {
    fn name(&self) -> &'static str {
        "geglu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (k, both) = self.panels.shape();
        let (x, dims) = (floats(storage, layout)?, layout.dims());
        if dims.last() != Some(&k) || k == 0 {
            candle_core::bail!("geglu: {dims:?} by a matrix of {k}×{both}");
        }
        let added = self.added.map(Operand::of);
        let added = added.as_ref().map(Operand::floats).transpose()?;
        if added.is_some_and(|added| added.len() != x.len() / k * both) {
            candle_core::bail!("geglu: the added values do not have the shape of the product, {dims:?} by {k}×{both}");
        }
        let mut out = blank(x.len() / k * both / 2);
        let whole = Block::new(&mut out, both / 2);
        let lines = x.len() / k;
        let batch = if dims.len() > 1 { dims[0].max(1) } else { 1 };
        let way = Way::for_rows_of(lines / batch);
        let partition = Partition::product(lines, k, both, self.panels.costs(way)).in_pairs_of_panels();
        partition.run(|wide, rows, panels| {
            let columns = panels.start * WIDTH..both.min(panels.end * WIDTH);
            let wide = at_least(wide, rows.len() * columns.len());
            let a = &x[rows.start * k..rows.end * k];
            self.panels.times(way, a, panels, &mut Block::new(wide, columns.len()), |_, _| {});
            // SAFETY: the blocks of a partition do not overlap, and each block begins with a whole pair of values and
            // gates.
            let mut out = unsafe { whole.part(rows.clone(), columns.start / 2..columns.end / 2) };
            if let Some(added) = added {
                let lines = added.chunks_exact(both).skip(rows.start);
                wide.chunks_exact_mut(columns.len())
                    .zip(lines)
                    .for_each(|(wide, line)| self.add(wide, line, columns.start));
            }
            let bias = &self.bias[columns.clone()];
            vectorized(
                #[inline(always)]
                || {
                    for (i, wide) in wide.chunks_exact(columns.len()).enumerate() {
                        match self.gate {
                            Gate::GeluErf => self.gate(wide, bias, out.line(i), gelu_erf_of),
                            Gate::GeluTanh => self.gate(wide, bias, out.line(i), gelu_tanh_of),
                            Gate::Silu => self.gate(wide, bias, out.line(i), silu_of),
                        }
                    }
                },
            );
        });
        made(out, [&dims[..dims.len() - 1], &[both / 2]].concat())
    }
}

impl Op<'_> {
    /// Adds values of `line` (2·N) to `wide`, which is one line of a product from the alternating column `first` on.
    fn add(&self, wide: &mut [f32], line: &[f32], first: usize) {
        let (value, gate) = line.split_at(line.len() / 2);
        for (i, pair) in wide.chunks_exact_mut(2 * self.alternating).enumerate() {
            let from = first / 2 + i * self.alternating..first / 2 + (i + 1) * self.alternating;
            let line = value[from.clone()].iter().chain(&gate[from]);
            pair.iter_mut().zip(line).for_each(|(sum, added)| *sum += added);
        }
    }

    /// Applies biases and gate to one line of a product with alternating columns.
    #[inline(always)]
    fn gate(&self, wide: &[f32], bias: &[f32], out: &mut [f32], gate_of: impl Fn(f32) -> f32) {
        let pair = 2 * self.alternating;
        let sums = wide.chunks_exact(pair).zip(bias.chunks_exact(pair));
        for (out, (wide, bias)) in out.chunks_exact_mut(self.alternating).zip(sums) {
            let ((value, gate), (value_bias, gate_bias)) = (wide.split_at(pair / 2), bias.split_at(pair / 2));
            for (((out, value), gate), (b, c)) in
                out.iter_mut().zip(value).zip(gate).zip(value_bias.iter().zip(gate_bias))
            {
                *out = (value + b) * gate_of(gate + c);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Random;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn like_the_definition(
            rows in prop_oneof![1usize..10, 60usize..130], k in 1usize..40, n in 1usize..70, reference: bool,
            gate in prop::sample::select(vec![Gate::GeluErf, Gate::GeluTanh, Gate::Silu]), seed: u64,
        ) {
            let mut random = Random::new(seed);
            let mut random = |shape: &[usize]| random.normal(shape, 0.0);
            let (x, matrix, bias) = (random(&[rows, k]), random(&[k, 2 * n]), random(&[2 * n]));
            let kernels = if reference { Kernels::REFERENCE } else { Kernels::default() };
            let made = Geglu::new(&matrix, &bias, gate, kernels).unwrap().times(&x).unwrap().to_vec2::<f32>().unwrap();
            let function = |x: f64| match gate {
                Gate::GeluErf => 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt())),
                Gate::GeluTanh => 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x.powi(3))).tanh()),
                Gate::Silu => x / (1.0 + (-x).exp()),
            };
            let wide = x.matmul(&matrix).unwrap().broadcast_add(&bias).unwrap().to_vec2::<f32>().unwrap();
            for (made, wide) in made.iter().flatten().zip(wide.iter().flat_map(|wide| wide[..n].iter().zip(&wide[n..]))) {
                let (value, gate) = (f64::from(*wide.0), f64::from(*wide.1));
                let exact = value * function(gate);
                prop_assert!((f64::from(*made) - exact).abs() < 1e-4 * (1.0 + exact.abs()), "{} {}", made, exact);
            }
            // Added values act like a bias of each line.
            let added = bias.broadcast_as((rows, 2 * n)).unwrap().contiguous().unwrap();
            let unbiased = Geglu::new(&matrix, &bias.zeros_like().unwrap(), gate, kernels).unwrap();
            let unbiased = unbiased.times_with(&x, &added).unwrap().to_vec2::<f32>().unwrap();
            prop_assert!(made.iter().flatten().zip(unbiased.iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-4));
        }
    }

    #[test]
    fn stored_weights_give_the_bits_of_weights_in_float32() {
        for (n, rows) in [(5, 3), (24, 1), (48, 100)] {
            let k = 64;
            let stored: Vec<u8> = (0..2 * n * 68).map(|i| (i * 37 % 251) as u8 & 0x2f).collect();
            let wide = Tensor::from_vec(Format::Q8_0.widened(&stored), (2 * n, k), &candle_core::Device::Cpu).unwrap();
            let (wide, x) = (wide.t().unwrap().contiguous().unwrap(), Random::new(3).normal(&[rows, k], 0.0));
            let bias = Random::new(4).normal(&[2 * n], 0.0);
            let wide = Geglu::new(&wide, &bias, Gate::GeluTanh, Kernels::default()).unwrap();
            let narrow = Geglu::narrow(Format::Q8_0, 1.0, &stored, (k, n), Some(&bias), Gate::GeluTanh).unwrap();
            let bits = |layer: &Geglu| -> Vec<u32> {
                let y = layer.times(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                y.into_iter().map(f32::to_bits).collect()
            };
            assert_eq!(bits(&narrow), bits(&wide), "{n}");
        }
    }
}
