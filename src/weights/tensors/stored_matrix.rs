//! Weights that stay in memory as their file stores them, in half precision or less.

use std::fmt;

use super::{super::numbers, Weights};
use crate::{
    device::Precision,
    kernels::{Kernels, format::Format},
};

/// A matrix (outputs, inputs) of a file, or the weight (outputs, inputs, kh, kw) of a convolution: its rows one after
/// the other, in whole blocks. Its numbers have been checked.
pub struct StoredMatrix {
    pub format: Format,
    /// The matrix is the stored numbers times this.
    pub scale: f32,
    pub bytes: Vec<u8>,
}

impl fmt::Debug for StoredMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredMatrix({:?}, {} bytes)", self.format, self.bytes.len())
    }
}

/// The minimum count of numbers of a weight that stays as it is stored, unless [`Weights::with_stored_matrices`] says
/// otherwise. Smaller weights become float32: this takes at most half a megabyte more, and saves the time to widen them
/// again and again.
pub(in crate::weights) const LARGE: usize = 1 << 18;

/// Whether kernels can multiply by a weight of this shape, (outputs, inputs) or (outputs, inputs, kh, kw), as it is
/// stored, and whether the weight takes less memory in this form.
pub(in crate::weights) fn stays(format: Format, shape: &[usize]) -> bool {
    match *shape {
        [_, inputs] | [_, inputs, 1, 1] => format.is_narrow() && format.bytes(inputs).is_some(),
        // The numbers of a block belong to several places of the kernel.
        [_, _, _, _] => format.is_narrow() && format.block().0 == 1,
        _ => false,
    }
}

impl Weights {
    /// The same weights, in which small matrices of half precision or less stay as they are stored, too. Transformers
    /// and large text encoders use it. Products have the same bits, but take a little longer if a batch has few lines.
    pub fn with_stored_matrices(&self) -> Self {
        Self { stored_from: 0, ..self.clone() }
    }

    /// A matrix (outputs, inputs) as it is stored, if it is large ([`Weights::with_stored_matrices`]), if the kernels
    /// can multiply by it, and if it takes less memory than in float32. Otherwise `None`: the caller then requests
    /// [`Weights::matrix`], which also notes what is wrong with the tensor.
    pub fn stored_matrix(&self, name: &str, outputs: usize, inputs: usize) -> Option<StoredMatrix> {
        self.as_stored(name, &[outputs, inputs])
    }

    /// As [`Weights::stored_matrix`], for the weight of a convolution, (outputs, inputs, kh, kw). The caller otherwise
    /// requests [`Weights::conv2d`].
    pub fn stored_conv2d(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
        (kh, kw): (usize, usize),
    ) -> Option<StoredMatrix> {
        self.as_stored(name, &[outputs, inputs, kh, kw])
    }

    fn as_stored(&self, name: &str, shape: &[usize]) -> Option<StoredMatrix> {
        let is_packed = matches!(self.kernels(), Kernels::Packed(_)) && self.precision == Precision::F32;
        if !is_packed || !self.source.reads || shape.iter().product::<usize>() < self.stored_from {
            return None;
        }
        let name = self.name(name);
        let entry = self.source.entries.as_ref()?.get(&name)?;
        let format = entry.dtype.format().filter(|format| stays(*format, shape) && !entry.transposed)?;
        if entry.shape != shape || entry.bytes.is_empty() {
            return None;
        }
        self.report().requested.insert(name.clone(), entry.shape.clone());
        let (bytes, scale) = self.read(entry)?;
        if let Err(reason) = numbers::check_stored(&bytes, format, scale) {
            self.fail_at(entry, name, reason);
        }
        Some(StoredMatrix { format, scale, bytes: bytes.into_owned() })
    }
}
