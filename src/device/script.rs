//! Scripts, with which tests decide when a device is slow or fails.

use super::{FaultError, GpuMemory};

/// Decides when a device is slow or fails, for tests of faults that cannot be caused on a real device. See
/// [`Device::with_script`](super::Device::with_script).
pub trait Script: std::fmt::Debug + Send + Sync {
    /// The engine calls this before the device computes a layer. This method may block, as a slow or hanging device
    /// does.
    ///
    /// # Errors
    /// The fault of the device, which ends the batch.
    fn before(&self, layer: Layer) -> Result<(), FaultError>;

    /// Whether the device has memory of its own, as a GPU has. Always the same.
    fn is_gpu(&self) -> bool {
        false
    }

    /// What the device reports when the engine waits for it.
    ///
    /// # Errors
    /// The fault of work that the device was given before.
    fn waited(&self) -> Result<(), FaultError> {
        Ok(())
    }

    /// The memory of the device; `None` if the script does not say.
    fn memory(&self) -> Option<GpuMemory> {
        None
    }
}

/// A layer of a batch that a device is about to compute.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// The name of the network, as in metrics.
    pub network: &'static str,
    /// Number of rows of the batch.
    pub rows: usize,
    /// Maximum bytes that the activations of all rows together take.
    pub bytes: u64,
    /// The number of layers of the batch that were computed before this one.
    pub index: usize,
}
