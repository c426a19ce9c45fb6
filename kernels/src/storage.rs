//! Access of the kernels to the memory of candle's tensors.

use std::ops::Deref;

use candle_core::{CpuStorage, Layout, Result, Shape, Storage, Tensor, WithDType};

use super::arena;

/// The floats of a contiguous float32 tensor.
pub(super) fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => candle_core::bail!("expected a contiguous tensor, got {layout:?}"),
    }
}

/// The mutable floats of a contiguous float32 tensor.
pub(super) fn floats_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("expected a contiguous tensor, got {layout:?}")
    };
    match storage {
        CpuStorage::F32(values) => Ok(&mut values[start..end]),
        _ => candle_core::bail!("expected float32"),
    }
}

/// The result of a custom operation: float32 values and their shape.
pub(super) fn made(values: Vec<f32>, shape: impl Into<Shape>) -> Result<(CpuStorage, Shape)> {
    Ok((f32::to_cpu_storage_owned(values), shape.into()))
}

/// The locked storage of a tensor that a custom operation holds in a field. candle passes to an operation only the
/// storage of the operation's arguments.
pub(super) struct Operand<'a>(Box<dyn Deref<Target = Storage> + 'a>, &'a Layout);

impl<'a> Operand<'a> {
    pub fn of(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self(Box::new(storage), layout)
    }

    pub fn floats(&self) -> Result<&[f32]> {
        match &**self.0 {
            Storage::Cpu(storage) => floats(storage, self.1),
            _ => candle_core::bail!("expected a tensor on the CPU"),
        }
    }
}

/// The first `len` floats of a scratch buffer, with unspecified values. The buffer grows if it is too short.
pub(super) fn at_least(scratch: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if scratch.len() < len {
        *scratch = arena::take(len);
    }
    &mut scratch[..len]
}

/// Memory for a result, with unspecified values. The caller must write every value.
pub(super) fn blank(len: usize) -> Vec<f32> {
    arena::take(len)
}
