//! Scripts: what a test lets happen on a device.

use super::{FaultError, GpuMemory};

/// Decides what happens on a device, for tests of faults that cannot be caused on a real one. See
/// [`Device::with_script`](super::Device::with_script).
pub trait Script: std::fmt::Debug + Send + Sync {
    /// Called before the device computes a layer. It may block, as a slow or hanging device does.
    ///
    /// # Errors
    /// The fault of the device, which ends the batch.
    fn before(&self, layer: Layer) -> Result<(), FaultError>;

    /// The memory of the device; `None` if the script does not say.
    fn memory(&self) -> Option<GpuMemory> {
        None
    }
}

/// A layer of a batch that a device is about to compute.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// The network, as in metrics.
    pub network: &'static str,
    /// Number of rows of the batch.
    pub rows: usize,
    /// Maximum bytes of activations of all rows together.
    pub bytes: u64,
    /// The number of layers that the batch has computed before.
    pub index: usize,
}
