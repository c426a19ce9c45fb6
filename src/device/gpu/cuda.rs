//! NVIDIA's GPUs, as the driver lists them.

use candle_core::cuda_backend::cudarc::driver::{CudaContext, DriverError, sys};

use super::{Gpu, GpuKind, GpuMemory};

/// The GPUs, by ascending number. The error is the text of the driver's error.
pub(super) fn gpus() -> Result<Vec<Gpu>, String> {
    let count = match CudaContext::device_count() {
        Ok(count) => usize::try_from(count).unwrap_or(0),
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => 0,
        Err(error) => return Err(error.to_string()),
    };
    (0..count).map(gpu).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// The memory of a GPU at this time.
pub(super) fn memory(index: usize) -> Option<GpuMemory> {
    let (free, total) = CudaContext::new(index).and_then(|context| context.mem_get_info()).ok()?;
    Some(GpuMemory { total: total as u64, free: free as u64 })
}

fn gpu(index: usize) -> Result<Gpu, DriverError> {
    let context = CudaContext::new(index)?;
    let (free, total) = context.mem_get_info()?;
    let cores = context.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    let (major, minor) = context.compute_capability()?;
    Ok(Gpu {
        kind: GpuKind::Cuda,
        index,
        model: context.name()?,
        cores: usize::try_from(cores).ok(),
        memory: Some(GpuMemory { total: total as u64, free: free as u64 }),
        compute_capability: u32::try_from(major).ok().zip(u32::try_from(minor).ok()),
    })
}
