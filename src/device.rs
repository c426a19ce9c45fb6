//! Where networks compute: a device is a value with the kernels that its networks are built of, and with threads of its own.

use std::sync::Arc;

use rayon::ThreadPool;

use crate::kernels::Kernels;

/// The place of latents, pictures and everything else that no network has asked for yet: the memory of the process.
pub const HOST: candle_core::Device = candle_core::Device::Cpu;

/// A device. A cheap handle.
#[derive(Clone, Debug)]
pub struct Device {
    candle: candle_core::Device,
    kernels: Kernels,
    /// `None`: rayon's current pool computes.
    pool: Option<Arc<ThreadPool>>,
}

impl Default for Device {
    fn default() -> Device {
        Device::host()
    }
}

impl Device {
    /// The processor, whose work is done by the caller's pool of threads.
    pub fn host() -> Device {
        Device { candle: HOST, kernels: Kernels::default(), pool: None }
    }

    /// The same device, for networks that are built of these kernels.
    pub fn with_kernels(self, kernels: Kernels) -> Device {
        Device { kernels, ..self }
    }

    /// Where candle puts tensors.
    pub fn candle(&self) -> &candle_core::Device {
        &self.candle
    }

    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// Does some work on the threads of the device.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}
