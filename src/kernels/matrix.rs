//! Products with a layer's weights.

use std::{fmt, ops::Range, sync::Arc};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    gemm::{Panels, product},
    storage::{floats, made},
};

/// A (K, N) matrix and N biases, laid out for the device they are on.
#[derive(Clone)]
pub struct Matrix {
    held: Held,
    bias: Option<Tensor>,
    shape: (usize, usize),
}

#[derive(Clone)]
enum Held {
    Packed {
        panels: Arc<Panels>,
        bias: Arc<[f32]>,
    },
    Plain(Tensor),
}

impl Matrix {
    /// Takes a (K, N) matrix and, if there are any, N biases. On the CPU the matrix is packed, once.
    pub fn new(matrix: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let (k, n) = matrix.dims2()?;
        // A tensor that is one number seen many times stands for a matrix that is not there; it is not given memory.
        let held = if matrix.device().is_cpu() && matrix.is_contiguous() {
            let (storage, layout) = matrix.storage_and_layout();
            let candle_core::Storage::Cpu(storage) = &*storage else {
                candle_core::bail!("not on the CPU")
            };
            let panels = Arc::new(Panels::pack(floats(storage, layout)?, k, n, n, 1));
            let bias = bias
                .map(|bias| bias.to_vec1())
                .transpose()?
                .unwrap_or_else(|| vec![0.0; n]);
            if bias.len() != n {
                candle_core::bail!("{} biases for {n} columns", bias.len());
            }
            Held::Packed {
                panels,
                bias: bias.into(),
            }
        } else {
            Held::Plain(matrix.clone())
        };
        Ok(Self {
            held,
            bias: bias.cloned(),
            shape: (k, n),
        })
    }

    /// (K, N)
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// x (…, K) · matrix + bias → (…, N). The bytes of a row of x do not depend on the other rows.
    pub fn times(&self, x: &Tensor) -> Result<Tensor> {
        match &self.held {
            Held::Packed { panels, bias } => x.apply_op1_no_bwd(&Times { panels, bias }),
            Held::Plain(matrix) => {
                let (k, n) = self.shape;
                let shape = [&x.dims()[..x.rank() - 1], &[n]].concat();
                let product = x.reshape(((), k))?.matmul(matrix)?.reshape(shape)?;
                self.bias
                    .iter()
                    .try_fold(product, |product, bias| product.broadcast_add(bias))
            }
        }
    }

    /// The matrix as a tensor, for devices that do not pack it.
    pub(super) fn plain(&self) -> Option<(&Tensor, Option<&Tensor>)> {
        match &self.held {
            Held::Plain(matrix) => Some((matrix, self.bias.as_ref())),
            Held::Packed { .. } => None,
        }
    }

    /// `rows` lines made on the fly by `fill(first, lines)`, times the matrix, plus the bias; for the CPU.
    pub(super) fn times_made(
        &self,
        rows: usize,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Vec<f32>> {
        let Held::Packed { panels, bias } = &self.held else {
            candle_core::bail!("the matrix is not packed")
        };
        let (k, n) = self.shape;
        // What a thread makes at a time stays in its second cache.
        let block = block_of(rows).min((HELD / k.max(1)).max(24));
        let mut out = vec![0.0; rows * n];
        out.par_chunks_mut(block * n).enumerate().for_each_init(
            Vec::new,
            |lines: &mut Vec<f32>, (i, out)| {
                lines.clear();
                lines.resize(out.len() / n * k, 0.0);
                fill(i * block, lines);
                product(lines, k, out.len() / n, panels, 0..panels.count(), out, n);
                add_bias(out, bias);
            },
        );
        Ok(out)
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matrix{:?}", self.shape)
    }
}

/// Floats of lines that are made at a time: 512 KiB.
const HELD: usize = 1 << 17;

/// Rows that one thread multiplies at a time: tiles are six rows high, and every thread should have some work.
fn block_of(rows: usize) -> usize {
    (rows / (2 * rayon::current_num_threads()))
        .next_multiple_of(6)
        .clamp(24, 96)
}

struct Times<'a> {
    panels: &'a Panels,
    bias: &'a [f32],
}

impl CustomOp1 for Times<'_> {
    fn name(&self) -> &'static str {
        "times"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (k, n) = (self.panels.k, self.panels.n);
        let (x, dims) = (floats(storage, layout)?, layout.dims());
        if dims.last() != Some(&k) || k == 0 || n == 0 {
            candle_core::bail!("times: {dims:?} by a matrix of {k}×{n}");
        }
        let rows = x.len() / k;
        let out = if rows <= 48 && k * n >= 1 << 14 {
            self.by_columns(x, rows)
        } else {
            self.by_rows(x, rows)
        };
        made(out, [&dims[..dims.len() - 1], &[n]].concat())
    }
}

impl Times<'_> {
    fn by_rows(&self, x: &[f32], rows: usize) -> Vec<f32> {
        let (k, n) = (self.panels.k, self.panels.n);
        let block = block_of(rows);
        let mut out = vec![0.0; rows * n];
        out.par_chunks_mut(block * n)
            .zip(x.par_chunks(block * k))
            .for_each(|(out, x)| {
                product(
                    x,
                    k,
                    out.len() / n,
                    self.panels,
                    0..self.panels.count(),
                    out,
                    n,
                );
                add_bias(out, self.bias);
            });
        out
    }

    /// Few rows: every thread reads some of the matrix.
    fn by_columns(&self, x: &[f32], rows: usize) -> Vec<f32> {
        let (k, n, count) = (self.panels.k, self.panels.n, self.panels.count());
        let each = count.div_ceil(2 * rayon::current_num_threads());
        let parts: Vec<(Range<usize>, Vec<f32>)> = (0..count.div_ceil(each))
            .into_par_iter()
            .map(|i| {
                let panels = i * each..count.min((i + 1) * each);
                let columns =
                    panels.start * super::gemm::WIDTH..n.min(panels.end * super::gemm::WIDTH);
                let mut out = vec![0.0; rows * columns.len()];
                product(x, k, rows, self.panels, panels, &mut out, columns.len());
                add_bias(&mut out, &self.bias[columns.clone()]);
                (columns, out)
            })
            .collect();
        let mut out = vec![0.0; rows * n];
        for (columns, part) in parts {
            for (out, part) in out
                .chunks_exact_mut(n)
                .zip(part.chunks_exact(columns.len()))
            {
                out[columns.clone()].copy_from_slice(part);
            }
        }
        out
    }
}

fn add_bias(out: &mut [f32], bias: &[f32]) {
    for out in out.chunks_exact_mut(bias.len()) {
        out.iter_mut()
            .zip(bias)
            .for_each(|(out, bias)| *out += bias);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;

    fn bits(x: &Tensor) -> Vec<u32> {
        x.flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
            .iter()
            .map(|x| x.to_bits())
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn a_row_is_the_same_in_every_company(
            m in prop_oneof![Just(1usize), 2usize..9, 60usize..200],
            k in prop_oneof![1usize..70, 513usize..1300],
            n in prop_oneof![1usize..9, 60usize..140],
            batch in 2usize..6,
            threads in 1usize..4,
        ) {
            let random = |shape: &[usize]| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
            let (x, plain, bias) = (random(&[batch, m, k]), random(&[k, n]), random(&[n]));
            let matrix = Matrix::new(&plain, Some(&bias)).unwrap();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let together = pool.install(|| matrix.times(&x)).unwrap();
            for b in 0..batch {
                let alone = matrix.times(&x.narrow(0, b, 1).unwrap()).unwrap();
                prop_assert_eq!(bits(&alone), bits(&together.narrow(0, b, 1).unwrap()), "m {} k {} n {}", m, k, n);
            }
            let plain = Matrix { held: Held::Plain(plain), bias: Some(bias), shape: (k, n) };
            let difference = (together - plain.times(&x).unwrap()).unwrap().abs().unwrap().max_all().unwrap();
            prop_assert!(difference.to_scalar::<f32>().unwrap() < 1e-3);
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let zeros =
            |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(Matrix::new(&zeros(&[3, 4]), Some(&zeros(&[3]))).is_err());
        let matrix = Matrix::new(&zeros(&[3, 4]), None).unwrap();
        assert!(matrix.times(&zeros(&[2, 4])).is_err());
        assert_eq!(matrix.times(&zeros(&[5, 2, 3])).unwrap().dims(), [5, 2, 4]);
    }
}
