//! NVIDIA's GPUs, as the driver lists them, and how latentd opens them.

use std::{ffi::c_void, sync::Arc};

use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, DriverError,
    result::{device, mem_pool},
    sys::{self, CUmemPool_attribute},
};

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

/// The memory of a GPU at this time. Memory of the pool that no tensor uses is free for tensors.
pub(super) fn memory(index: usize) -> Option<GpuMemory> {
    let context = CudaContext::new(index).ok()?;
    let (free, total) = context.mem_get_info().ok()?;
    let kept = Pool::of(context).and_then(|pool| pool.kept()).unwrap_or(0);
    Some(GpuMemory { total: total as u64, free: free as u64 + kept })
}

/// Opens a GPU with one stream for all threads. candle's usual handle has one stream per thread, so the GPU would not
/// keep the order in which two threads submit work.
pub(super) fn open(index: usize) -> candle_core::Result<candle_core::Device> {
    let opened = candle_core::Device::new_cuda_with_stream(index)?;
    // By default, cudarc marks each use of a tensor in the stream with an event, and makes each later use wait for
    // these events, in case another stream uses the tensor.
    //
    // SAFETY: events are needed only if tensors are used on several streams. The handle has one stream, which each of
    // its clones uses, and candle refuses operations on tensors of different handles.
    unsafe { opened.as_cuda_device()?.disable_event_tracking() };
    let context = CudaContext::new(index).map_err(candle_core::Error::wrap)?;
    if let Some(pool) = Pool::of(context) {
        pool.keep_all().map_err(candle_core::Error::wrap)?;
    }
    Ok(opened)
}

/// Gives memory of the pool that no tensor uses back to the driver, after the GPU has computed everything that may use
/// it. On a GPU that does not answer, nothing happens: its next call reports the error.
pub(super) fn release_memory(index: usize) {
    let pool = CudaContext::new(index).and_then(|context| context.synchronize().map(|()| Pool::of(context)));
    if let Ok(Some(pool)) = pool {
        pool.release();
    }
}

/// CUDA's memory pool of a GPU, from which candle allocates all tensors.
struct Pool {
    pool: sys::CUmemoryPool,
    /// The context that keeps the GPU initialized.
    _context: Arc<CudaContext>,
}

impl Pool {
    /// `None` if the GPU has no pool. Then tensors are allocated one by one.
    fn of(context: Arc<CudaContext>) -> Option<Pool> {
        if !context.has_async_alloc() {
            return None;
        }
        // SAFETY: the number comes from an open context, so it is a device of the driver.
        let pool = unsafe { device::get_mem_pool(context.cu_device()) }.ok()?;
        Some(Pool { pool, _context: context })
    }

    /// Makes the pool keep freed memory. By default, a pool gives it back to the driver each time that the process
    /// waits for the GPU, which the engine does after each batch, and the next batch would allocate the memory again.
    fn keep_all(&self) -> Result<(), DriverError> {
        let mut threshold = u64::MAX;
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the pool belongs to an open device, and the attribute is a number of 64 bits, which the call reads.
        unsafe { mem_pool::set_attribute(self.pool, attribute, (&raw mut threshold).cast::<c_void>()) }
    }

    /// Bytes that the pool keeps and no tensor uses.
    fn kept(&self) -> Option<u64> {
        let read = |attribute| {
            let mut value = 0u64;
            // SAFETY: the pool belongs to an open device, and both attributes are numbers of 64 bits.
            unsafe { mem_pool::get_attribute(self.pool, attribute, (&raw mut value).cast::<c_void>()) }.ok()?;
            Some(value)
        };
        let reserved = read(CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
        Some(reserved.saturating_sub(read(CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?))
    }

    fn release(&self) {
        // SAFETY: the pool belongs to an open device. An error leaves the pool as it is.
        let _ = unsafe { mem_pool::trim_to(self.pool, 0) };
    }
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
