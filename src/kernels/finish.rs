//! Terms that are added to a product while it is in the cache.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::{block::Block, storage::Operand};

/// The terms that a kernel adds to a product in the same pass, after the biases.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// (B, N): one vector for each row of the batch, such as a time embedding.
    pub per_sample: Option<&'a Tensor>,
    /// A residual, which has the shape of the product.
    pub residual: Option<&'a Tensor>,
}

impl<'a> Epilogue<'a> {
    /// Only a residual.
    pub fn residual(residual: &'a Tensor) -> Self {
        Self { per_sample: None, residual: Some(residual) }
    }

    /// Adds the terms to y (B, …, N) by candle's operations, in the precision of y.
    pub(super) fn composite(self, y: Tensor) -> Result<Tensor> {
        let y = match self.per_sample {
            Some(vectors) => {
                let (b, n) = vectors.dims2()?;
                let mut dims = vec![1; y.rank()];
                (dims[0], dims[y.rank() - 1]) = (b, n);
                y.broadcast_add(&vectors.reshape(dims)?.to_dtype(y.dtype())?)?
            }
            None => y,
        };
        self.residual.into_iter().try_fold(y, |y, residual| &y + residual.to_dtype(y.dtype())?)
    }

    pub(super) fn lock(self) -> LockedEpilogue<'a> {
        LockedEpilogue { per_sample: self.per_sample.map(Operand::of), residual: self.residual.map(Operand::of) }
    }
}

/// The storage of an [`Epilogue`]'s tensors, locked for reading while an operation runs.
pub(super) struct LockedEpilogue<'a> {
    per_sample: Option<Operand<'a>>,
    residual: Option<Operand<'a>>,
}

impl LockedEpilogue<'_> {
    /// Checks the sizes of the terms for a product of `batch · lines` lines and as many columns as there are biases.
    pub fn finish<'s>(&'s self, bias: &'s [f32], batch: usize, lines: usize) -> Result<Finish<'s>> {
        let per_sample = self.per_sample.as_ref().map(Operand::floats).transpose()?;
        let residual = self.residual.as_ref().map(Operand::floats).transpose()?;
        for (what, made, wanted) in [
            ("vectors for the samples", per_sample.map(<[f32]>::len), batch * bias.len()),
            ("a residual", residual.map(<[f32]>::len), batch * lines * bias.len()),
        ] {
            if let Some(made) = made.filter(|made| *made != wanted) {
                candle_core::bail!("{what}: {made} values, expected {wanted}");
            }
        }
        Ok(Finish { bias, per_sample, residual, lines })
    }
}

/// Adds three terms to each sum: first the bias, then the vector of the row of the batch, then the residual.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    bias: &'a [f32],
    per_sample: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
    /// Lines of the product per row of the batch.
    lines: usize,
}

impl Finish<'_> {
    /// Adds the terms to a block of lines that starts at line `first` of the whole product.
    #[inline(always)]
    pub fn block(&self, out: &mut Block<'_>, first: usize, columns: Range<usize>) {
        for line in 0..out.lines() {
            self.line(out.line(line), first + line, columns.clone());
        }
    }

    /// Adds the terms to some columns of line `line` of the whole product.
    #[inline(always)]
    pub fn line(&self, out: &mut [f32], line: usize, columns: Range<usize>) {
        out.iter_mut().zip(&self.bias[columns.clone()]).for_each(|(out, bias)| *out += bias);
        let n = self.bias.len();
        if let Some(vectors) = self.per_sample {
            let vector = &vectors[line / self.lines * n..][columns.clone()];
            out.iter_mut().zip(vector).for_each(|(out, value)| *out += value);
        }
        if let Some(residual) = self.residual {
            out.iter_mut().zip(&residual[line * n..][columns]).for_each(|(out, residual)| *out += residual);
        }
    }
}
