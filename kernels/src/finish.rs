//! The operations on a product while the product is in the cache.

use std::ops::Range;

use candle_core::{D, Result, Tensor};

use super::{activation::gelu_tanh_of, block::Block, storage::Operand};

/// The operations of a kernel on a product in the same pass, after it has added the biases. They run in the order of
/// the fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One vector for each row of the batch, such as a time embedding, that is added to the product: (B, N).
    pub per_sample: Option<&'a Tensor>,
    pub activation: Option<Activation>,
    /// One vector for each row of the batch, by which the product is multiplied: (B, N) or (B, 1, N).
    pub gate: Option<&'a Tensor>,
    /// A residual that is added. It has the shape of the product.
    pub residual: Option<&'a Tensor>,
}

/// A function that is applied to each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `gelu-approximate` in diffusers, as [`super::Kernels::gelu_tanh`].
    GeluTanh,
}

impl<'a> Epilogue<'a> {
    /// Only a residual.
    pub fn residual(residual: &'a Tensor) -> Self {
        Self { residual: Some(residual), ..Self::default() }
    }

    /// Adds the terms to y (B, …, N) by candle's operations, in the precision of y.
    pub(super) fn composite(self, y: Tensor) -> Result<Tensor> {
        let of_rows = |vectors: &Tensor| -> Result<Tensor> {
            let mut dims = vec![1; y.rank()];
            (dims[0], dims[y.rank() - 1]) = (vectors.dim(0)?, vectors.dim(D::Minus1)?);
            vectors.reshape(dims)?.to_dtype(y.dtype())
        };
        let (added, gate) = (self.per_sample.map(of_rows).transpose()?, self.gate.map(of_rows).transpose()?);
        let y = added.iter().try_fold(y, |y, added| y.broadcast_add(added))?;
        let y = if self.activation == Some(Activation::GeluTanh) { y.gelu()? } else { y };
        let y = gate.iter().try_fold(y, |y, gate| y.broadcast_mul(gate))?;
        self.residual.into_iter().try_fold(y, |y, residual| &y + residual.to_dtype(y.dtype())?)
    }

    pub(super) fn lock(self) -> LockedEpilogue<'a> {
        let Self { per_sample, activation, gate, residual } = self;
        let [per_sample, gate, residual] = [per_sample, gate, residual].map(|tensor| tensor.map(Operand::of));
        LockedEpilogue { per_sample, activation, gate, residual }
    }
}

/// The storage of an [`Epilogue`]'s tensors, locked for reading while an operation runs.
pub(super) struct LockedEpilogue<'a> {
    per_sample: Option<Operand<'a>>,
    activation: Option<Activation>,
    gate: Option<Operand<'a>>,
    residual: Option<Operand<'a>>,
}

impl LockedEpilogue<'_> {
    /// Checks the sizes of the terms for a product of `batch · lines` lines and as many columns as there are biases.
    pub fn finish<'s>(&'s self, bias: &'s [f32], batch: usize, lines: usize) -> Result<Finish<'s>> {
        let per_sample = self.per_sample.as_ref().map(Operand::floats).transpose()?;
        let gate = self.gate.as_ref().map(Operand::floats).transpose()?;
        let residual = self.residual.as_ref().map(Operand::floats).transpose()?;
        for (what, made, wanted) in [
            ("vectors for the samples", per_sample.map(<[f32]>::len), batch * bias.len()),
            ("factors for the samples", gate.map(<[f32]>::len), batch * bias.len()),
            ("a residual", residual.map(<[f32]>::len), batch * lines * bias.len()),
        ] {
            if let Some(made) = made.filter(|made| *made != wanted) {
                candle_core::bail!("{what}: {made} values, expected {wanted}");
            }
        }
        Ok(Finish { bias, per_sample, activation: self.activation, gate, residual, lines })
    }
}

/// Adds the bias to each sum, and then does what the epilogue says.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    bias: &'a [f32],
    per_sample: Option<&'a [f32]>,
    activation: Option<Activation>,
    gate: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
    /// Lines of the product per row of the batch.
    lines: usize,
}

impl Finish<'_> {
    /// Finishes a block of lines that starts at line `first` of the whole product.
    #[inline(always)]
    pub fn block(&self, out: &mut Block<'_>, first: usize, columns: Range<usize>) {
        for line in 0..out.lines() {
            self.line(out.line(line), first + line, columns.clone());
        }
    }

    /// Finishes some columns of line `line` of the whole product.
    #[inline(always)]
    pub fn line(&self, out: &mut [f32], line: usize, columns: Range<usize>) {
        out.iter_mut().zip(&self.bias[columns.clone()]).for_each(|(out, bias)| *out += bias);
        let n = self.bias.len();
        if let Some(vectors) = self.per_sample {
            let vector = &vectors[line / self.lines * n..][columns.clone()];
            out.iter_mut().zip(vector).for_each(|(out, value)| *out += value);
        }
        if self.activation == Some(Activation::GeluTanh) {
            out.iter_mut().for_each(|out| *out = gelu_tanh_of(*out));
        }
        if let Some(gate) = self.gate {
            let gate = &gate[line / self.lines * n..][columns.clone()];
            out.iter_mut().zip(gate).for_each(|(out, gate)| *out *= gate);
        }
        if let Some(residual) = self.residual {
            out.iter_mut().zip(&residual[line * n..][columns]).for_each(|(out, residual)| *out += residual);
        }
    }
}
