//! Which rows of a batch reference kernels multiply together.

use candle_core::{Result, Tensor};

/// Which rows of a batch a reference kernel multiplies or convolves in one operation.
///
/// A library chooses the algorithm of a matrix product by the shapes of the operands. So the last bits of a row can
/// depend on the number of rows in the operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rows {
    /// One row, so the shapes are the same in each batch, and the bits of a row do not depend on other rows.
    #[default]
    Apart,
    /// All rows of the batch, which is faster on a GPU.
    Together,
}

/// The alignment in bytes of the memory that CUDA allocates. Libraries also choose algorithms by the alignment of the
/// operands.
const ALIGNMENT: usize = 256;

impl Rows {
    /// Applies `operation` to the operands (B, …): once to all rows, or to each row as a batch (1, …). Returns the
    /// results joined in the first dimension. Operands of `operation` are contiguous.
    pub(super) fn each<const N: usize>(
        self,
        operands: [&Tensor; N],
        operation: impl Fn([Tensor; N]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let batch = operands.first().map_or(Ok(0), |first| first.dim(0))?;
        let of = |take: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<Tensor> {
            let taken = operands.iter().map(|operand| take(operand)).collect::<Result<Vec<_>>>()?;
            operation(taken.try_into().expect("each operand is taken once"))
        };
        match (self, batch) {
            (Rows::Together, _) | (Rows::Apart, 0) => of(&|operand| operand.contiguous()),
            (Rows::Apart, 1) => of(&aligned),
            (Rows::Apart, _) => {
                let rows = (0..batch).map(|row| of(&|operand| aligned(&operand.narrow(0, row, 1)?)));
                Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)
            }
        }
    }
}

/// x as a contiguous tensor. On a GPU, this is a copy if the numbers of x do not begin at an aligned address.
fn aligned(x: &Tensor) -> Result<Tensor> {
    let offset = x.layout().start_offset() * x.dtype().size_in_bytes();
    if x.device().is_cpu() || offset.is_multiple_of(ALIGNMENT) { x.contiguous() } else { x.force_contiguous() }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::random::Random;

    #[test]
    fn operations_have_the_same_shapes_in_each_batch() {
        let mut random = Random::new(1);
        for batch in [1, 2, 5] {
            let (x, y) =
                (random.normal(&[batch, 3, 4], 0.0), random.normal(&[4, batch, 3], 0.0).transpose(0, 1).unwrap());
            for (rows, wanted) in [(Rows::Apart, vec![1; batch]), (Rows::Together, vec![batch])] {
                let seen = RefCell::new(Vec::new());
                let sum = rows.each([&x, &y.transpose(1, 2).unwrap()], |[x, y]| {
                    assert!(x.is_contiguous() && y.is_contiguous());
                    seen.borrow_mut().push(x.dim(0)?);
                    x + y
                });
                assert_eq!(seen.into_inner(), wanted, "{rows:?}");
                let expected = (&x + y.transpose(1, 2).unwrap()).unwrap();
                assert_eq!(sum.unwrap().to_vec3::<f32>().unwrap(), expected.to_vec3::<f32>().unwrap());
            }
        }
    }
}
