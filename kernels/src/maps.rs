//! Copies feature maps with all threads of the pool: changes the order of their axes, and joins two maps or the tokens
//! of two sequences.
//!
//! These operations only move values, so they have gradients and one implementation for all kernel sets. candle's own
//! copies use one thread, which the other threads would wait for.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::storage::{blank, floats, made};

/// The number of floats that a thread copies at a time. Smaller maps are copied by one thread.
const GRAIN: usize = 1 << 13;

/// (B, C, h, w) → (B, h, w, C), contiguous.
pub fn channels_last(x: &Tensor) -> Result<Tensor> {
    let (batch, channels, h, w) = x.dims4()?;
    if !is_copied_here(x) {
        return x.permute((0, 2, 3, 1))?.contiguous();
    }
    x.reshape((batch, channels, h * w))?.apply_op1(Transpose)?.reshape((batch, h, w, channels))
}

/// (B, h, w, C) → (B, C, h, w), contiguous.
pub fn channels_first(x: &Tensor) -> Result<Tensor> {
    let (batch, h, w, channels) = x.dims4()?;
    if !is_copied_here(x) {
        return x.permute((0, 3, 1, 2))?.contiguous();
    }
    x.reshape((batch, h * w, channels))?.apply_op1(Transpose)?.reshape((batch, channels, h, w))
}

/// x (B, h, w, A), y (B, h, w, C) → (B, h, w, A + C)
pub fn beside(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    joined(x, y, x.rank().saturating_sub(1))
}

/// x (B, N, D), y (B, M, D) → (B, N + M, D): the tokens of x, then the tokens of y.
pub fn after(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    joined(x, y, 1)
}

/// x (B, N, M, C) → (B, M, N, C), contiguous.
pub fn swapped(x: &Tensor) -> Result<Tensor> {
    if !is_copied_here(x) || x.elem_count() == 0 {
        return x.transpose(1, 2)?.contiguous();
    }
    x.apply_op1(Swap)
}

/// Joins two tensors whose other axes are the same.
fn joined(x: &Tensor, y: &Tensor, axis: usize) -> Result<Tensor> {
    let others = |x: &Tensor| -> Vec<usize> {
        x.dims().iter().enumerate().filter(|(at, _)| *at != axis).map(|(_, size)| *size).collect()
    };
    if !(axis < x.rank()
        && others(x) == others(y)
        && x.elem_count() > 0
        && y.elem_count() > 0
        && is_copied_here(x)
        && is_copied_here(y))
    {
        return Tensor::cat(&[x, y], axis);
    }
    let (mut dims, outer) = (x.dims().to_vec(), x.dims()[..axis].iter().product::<usize>());
    dims[axis] += y.dim(axis)?;
    x.reshape((outer, ()))?.apply_op2(&y.reshape((outer, ()))?, Beside)?.reshape(dims)
}

/// Whether the operations of this file can read the tensor.
fn is_copied_here(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32 && x.is_contiguous()
}

/// (B, R, S) → (B, S, R)
struct Transpose;

impl CustomOp1 for Transpose {
    fn name(&self) -> &'static str {
        "transpose"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, rows, columns) = layout.shape().dims3()?;
        let x = floats(storage, layout)?;
        let mut y = blank(x.len());
        y.par_chunks_mut(GRAIN).enumerate().for_each(|(i, y)| {
            let begin = i * GRAIN;
            let (mut row, mut column) = (begin % rows, begin / rows % columns);
            let mut matrix = &x[begin / (rows * columns) * rows * columns..];
            for y in y {
                *y = matrix[row * columns + column];
                row += 1;
                if row == rows {
                    (row, column) = (0, column + 1);
                }
                if column == columns {
                    (column, matrix) = (0, &matrix[rows * columns..]);
                }
            }
        });
        made(y, (batch, columns, rows))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        gradient.transpose(1, 2)?.contiguous().map(Some)
    }
}

/// (B, N, M, C) → (B, M, N, C)
struct Swap;

impl CustomOp1 for Swap {
    fn name(&self) -> &'static str {
        "swap"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, n, m, width) = layout.shape().dims4()?;
        let x = floats(storage, layout)?;
        let mut y = blank(x.len());
        let lines = GRAIN.div_ceil(width);
        y.par_chunks_mut(lines * width).enumerate().for_each(|(i, y)| {
            for (line, y) in (i * lines..).zip(y.chunks_mut(width)) {
                let (of, row, column) = (line / (n * m), line / n % m, line % n);
                y.copy_from_slice(&x[((of * n + column) * m + row) * width..][..width]);
            }
        });
        made(y, (batch, m, n, width))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        gradient.transpose(1, 2)?.contiguous().map(Some)
    }
}

/// (R, A), (R, C) → (R, A + C)
struct Beside;

impl CustomOp2 for Beside {
    fn name(&self) -> &'static str {
        "beside"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, a) = x_layout.shape().dims2()?;
        let (x, y, width) = (floats(x, x_layout)?, floats(y, y_layout)?, a + y_layout.shape().dims2()?.1);
        let mut both = blank(rows * width);
        both.par_chunks_mut(GRAIN).enumerate().for_each(|(i, mut both)| {
            let (mut row, mut column) = (i * GRAIN / width, i * GRAIN % width);
            while !both.is_empty() {
                let from = if column < a {
                    &x[row * a + column..][..a - column]
                } else {
                    &y[row * (width - a)..][column - a..width - a]
                };
                let (part, rest) = both.split_at_mut(from.len().min(both.len()));
                part.copy_from_slice(&from[..part.len()]);
                column += part.len();
                if column == width {
                    (row, column) = (row + 1, 0);
                }
                both = rest;
            }
        });
        made(both, (rows, width))
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        _both: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (last, a) = (x.rank() - 1, x.dim(x.rank() - 1)?);
        let part = |from, len| gradient.narrow(last, from, len)?.contiguous();
        Ok((Some(part(0, a)?), Some(part(a, y.dim(last)?)?)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use proptest::prelude::*;

    use super::*;
    use crate::random::Random;

    fn flat(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn copies_are_those_of_candle(
            b in 1usize..4, h in 1usize..40, w in 1usize..40, c in 1usize..9, other in 1usize..9, seed: u64,
        ) {
            let mut random = Random::new(seed);
            let (x, y) = (random.normal(&[b, h, w, c], 1.0), random.normal(&[b, h, w, other], 1.0));
            let first = channels_first(&x).unwrap();
            prop_assert_eq!(first.dims(), [b, c, h, w]);
            prop_assert_eq!(flat(&first), flat(&x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap()));
            let last = channels_last(&first).unwrap();
            prop_assert_eq!(last.dims(), [b, h, w, c]);
            prop_assert_eq!(flat(&last), flat(&x));
            prop_assert_eq!(flat(&swapped(&x).unwrap()), flat(&x.transpose(1, 2).unwrap().contiguous().unwrap()));
            let both = beside(&x, &y).unwrap();
            prop_assert_eq!(both.dims(), [b, h, w, c + other]);
            prop_assert_eq!(flat(&both), flat(&Tensor::cat(&[&x, &y], 3).unwrap()));
            let (x, y) = (random.normal(&[b, h, 700 * c], 1.0), random.normal(&[b, w, 700 * c], 1.0));
            prop_assert_eq!(flat(&after(&x, &y).unwrap()), flat(&Tensor::cat(&[&x, &y], 1).unwrap()));
        }
    }

    #[test]
    fn gradients_go_back_to_where_the_values_came_from() {
        let (x, y) =
            (Var::zeros((2, 3, 2, 2), DType::F32, &Device::Cpu), Var::zeros((2, 2, 2, 1), DType::F32, &Device::Cpu));
        let (x, y) = (x.unwrap(), y.unwrap());
        let weight = Random::new(1).normal(&[2, 2, 2, 4], 1.0);
        let both = beside(&channels_last(&x).unwrap(), &y).unwrap();
        let gradients = both.mul(&weight).unwrap().sum_all().unwrap().backward().unwrap();
        let part = |from, len| weight.narrow(3, from, len).unwrap().contiguous().unwrap();
        assert_eq!(flat(gradients.get(&x).unwrap()), flat(&channels_first(&part(0, 3)).unwrap()));
        assert_eq!(flat(gradients.get(&y).unwrap()), flat(&part(3, 1)));
    }

    #[test]
    fn mismatched_shapes_are_errors() {
        let of = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
        assert!(beside(&of(&[1, 2, 2, 3]), &of(&[1, 2, 3, 3])).is_err());
        assert!(channels_first(&of(&[2, 2, 3])).is_err() && channels_last(&of(&[2, 2, 3])).is_err());
    }
}
