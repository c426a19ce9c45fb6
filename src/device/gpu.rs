//! GPUs: which kinds the build supports, and which GPUs the machine has.

#[cfg(feature = "cuda")]
#[allow(unsafe_code, reason = "settings of CUDA that are unsafe to call; each has its proof")]
mod cuda;

/// A kind of GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuKind {
    /// NVIDIA's GPUs.
    Cuda,
    /// The GPU of Apple's computers.
    Metal,
}

/// A GPU of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    pub kind: GpuKind,
    /// The number that the driver gives the GPU.
    pub index: usize,
    /// The name of the product, such as `NVIDIA H200`.
    pub model: String,
    /// The number of streaming multiprocessors; `None` if it is unknown.
    pub cores: Option<usize>,
    /// The memory of the GPU; `None` if it is unknown.
    pub memory: Option<GpuMemory>,
    /// (major, minor); `None` if the driver does not report it.
    pub compute_capability: Option<(u32, u32)>,
}

/// The memory of a GPU, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuMemory {
    pub total: u64,
    /// The bytes that no process used when the driver was asked. For a GPU that is open, also the memory that this
    /// process keeps for later tensors.
    pub free: u64,
}

/// The driver of a kind of GPU does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the driver of {} GPUs cannot be used: {reason}", .kind.name())]
pub struct DriverError {
    kind: GpuKind,
    reason: String,
}

impl GpuKind {
    pub const ALL: [GpuKind; 2] = [GpuKind::Cuda, GpuKind::Metal];

    /// The name of the kind in the settings, and of the Cargo feature that supports it.
    pub fn name(self) -> &'static str {
        match self {
            GpuKind::Cuda => "cuda",
            GpuKind::Metal => "metal",
        }
    }

    /// The name of the GPU with this number in the settings: `cuda:0`, `metal`.
    pub(super) fn name_of(self, index: usize) -> String {
        match self {
            GpuKind::Cuda => format!("cuda:{index}"),
            GpuKind::Metal => "metal".to_owned(),
        }
    }

    /// Whether the build supports the kind.
    pub fn is_in_build(self) -> bool {
        match self {
            GpuKind::Cuda => cfg!(feature = "cuda"),
            GpuKind::Metal => cfg!(feature = "metal"),
        }
    }

    /// The GPUs of this kind, by ascending number; none if the build does not support the kind.
    ///
    /// # Errors
    /// The driver does not answer. A driver without GPUs is no error.
    pub fn gpus(self) -> Result<Vec<Gpu>, DriverError> {
        let found = match self {
            #[cfg(feature = "cuda")]
            GpuKind::Cuda => cuda::gpus(),
            // candle opens the first GPU, and computers of Apple have only one.
            GpuKind::Metal if self.is_in_build() => {
                let model = "Apple GPU".to_owned();
                let gpu = Gpu { kind: self, index: 0, model, cores: None, memory: None, compute_capability: None };
                candle_core::Device::new_metal(0).map(|_| vec![gpu]).map_err(|error| error.to_string())
            }
            _ => Ok(Vec::new()),
        };
        found.map_err(|reason| DriverError { kind: self, reason })
    }
}

impl Gpu {
    /// All GPUs that the build supports and the machine has.
    ///
    /// # Errors
    /// A driver does not answer.
    pub fn all() -> Result<Vec<Gpu>, DriverError> {
        let found = GpuKind::ALL.map(GpuKind::gpus).into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The GPU's name in the settings: `cuda:0`, `metal`.
    pub fn name(&self) -> String {
        self.kind.name_of(self.index)
    }

    /// The memory at this time; `None` if the driver does not report it. Memory that the process keeps for later
    /// tensors counts as free.
    pub(super) fn memory_now(&self) -> Option<GpuMemory> {
        match self.kind {
            #[cfg(feature = "cuda")]
            GpuKind::Cuda => cuda::memory(self.index),
            _ => None,
        }
    }

    /// Opens the GPU. No operation takes tensors of two handles, even of the same GPU, so each GPU is opened once.
    pub(super) fn open(&self) -> candle_core::Result<candle_core::Device> {
        match self.kind {
            #[cfg(feature = "cuda")]
            GpuKind::Cuda => cuda::open(self.index),
            #[cfg(not(feature = "cuda"))]
            GpuKind::Cuda => candle_core::Device::new_cuda_with_stream(self.index),
            GpuKind::Metal => candle_core::Device::new_metal(self.index),
        }
    }

    /// Gives the memory that the process keeps for later tensors back to the driver.
    pub(super) fn release_memory(&self) {
        match self.kind {
            #[cfg(feature = "cuda")]
            GpuKind::Cuda => cuda::release_memory(self.index),
            _ => {}
        }
    }
}
