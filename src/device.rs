//! Devices, on which networks compute. A device is a value that consists of a device of candle (where tensors are
//! stored), a set of kernels, and threads.

#[allow(unsafe_code, reason = "the system's calls that tie threads to cores take pointers; each has its proof")]
mod affinity;
mod fault;
mod gpu;
mod precision;
mod script;

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rayon::{ThreadPool, ThreadPoolBuilder};

pub use fault::{Fault, FaultError};
pub use gpu::{DriverError, Gpu, GpuKind, GpuMemory};
pub use precision::Precision;
pub use script::{Layer, Script};

use crate::{
    generation,
    kernels::{self, Kernels, arena},
};

/// candle's device for latents, pictures and all other data outside networks, which are in the memory of the process.
pub const HOST: candle_core::Device = candle_core::Device::Cpu;

/// The stack size of each compute thread, in bytes. It is large because a thread of rayon that waits for the results of
/// other threads runs further work on its own stack.
const COMPUTE_STACK: usize = 8 << 20;

/// Bytes for what a GPU's kernels copy besides activations: the patches of a convolution (`kernels/src/conv2d.rs`), the
/// scores of a part of an attention (`src/models/attention.rs`), and workspaces of its libraries. Not measured yet.
const GPU_SCRATCH: u64 = 2 << 30;

/// A device that computes networks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Device {
    name: Arc<str>,
    candle: candle_core::Device,
    kernels: Kernels,
    /// The precision of networks that support several.
    precision: Precision,
    /// The GPU; `None` if the device is the CPU.
    gpu: Option<Arc<Gpu>>,
    /// The cores of the device; `None` means all cores that the process may use.
    cores: Option<Arc<[usize]>>,
    /// The threads of the device; `None` means that rayon's current pool computes.
    pool: Option<Arc<ThreadPool>>,
    /// How many bytes of weights were copied to the device for calls; `None` if the device offloads no networks.
    offload: Option<Arc<AtomicU64>>,
    /// In tests: decides which faults the device has.
    script: Option<Arc<dyn Script>>,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("core {core} of {name:?} cannot be used; this process may use the cores {allowed}")]
    Core { name: String, core: usize, allowed: String },
    #[error("the threads of {name:?} cannot be started: {source}")]
    Threads { name: String, source: rayon::ThreadPoolBuildError },
    #[error(
        "{name:?} needs a build with the Cargo feature {kind}, such as the container image latentd:{kind}; this build \
         computes on {} only; see docs/gpu.md",
        kinds_of_build()
    )]
    NotInBuild { name: String, kind: &'static str },
    #[error("there is no {name:?}; this machine has {there}")]
    NoGpu { name: String, there: String },
    #[error("{name:?}: {source}")]
    Driver { name: String, source: DriverError },
    #[error("{name:?} cannot be opened: {source}")]
    Gpu { name: String, source: candle_core::Error },
    #[error("models.precision is {}, but {name:?} cannot compute with it: {reason}", .precision.name())]
    Precision { name: String, precision: Precision, reason: &'static str },
}

impl Default for Device {
    fn default() -> Device {
        Device::host()
    }
}

impl Device {
    /// The CPU, with rayon's current thread pool.
    pub fn host() -> Device {
        let (gpu, cores, pool, offload, script) = (None, None, None, None, None);
        let (kernels, precision) = (Kernels::default(), Precision::F32);
        Device { name: "cpu".into(), candle: HOST, kernels, precision, gpu, cores, pool, offload, script }
    }

    /// The CPU with a thread pool of its own, on all cores or pinned to `cores`. `threads` is the number of threads; 0
    /// means one per core. If the system cannot pin threads, the device has the same number of threads without pinning.
    ///
    /// # Errors
    /// The process may not use one of the cores, or the threads cannot be started.
    pub fn cpu(name: &str, cores: Option<RangeInclusive<usize>>, threads: usize) -> Result<Device, DeviceError> {
        let cores = cores.map(|cores| allowed(name, cores)).transpose()?;
        let threads = match (threads, &cores) {
            (0, Some(cores)) => cores.len(),
            _ => threads,
        };
        let named = name.to_owned();
        let mut pool = ThreadPoolBuilder::new().num_threads(threads).stack_size(COMPUTE_STACK);
        pool = pool.thread_name(move |i| format!("{named}-{i}"));
        if let Some(cores) = cores.clone() {
            pool = pool.start_handler(move |_| affinity::pin_current_thread(&cores));
        }
        let pool = pool.build().map_err(|source| DeviceError::Threads { name: name.to_owned(), source })?;
        Ok(Device { name: name.into(), cores, pool: Some(Arc::new(pool)), ..Device::host() })
    }

    /// Opens the GPU of this kind with this number. It uses the reference kernels, because all other kernels are for
    /// the CPU. Each call opens the GPU again, and no operation takes tensors of two such devices, so open a GPU once
    /// and clone the device.
    ///
    /// # Errors
    /// The build does not support the kind, the machine has no such GPU, or the driver refuses.
    pub fn gpu(kind: GpuKind, index: usize) -> Result<Device, DeviceError> {
        let name = kind.name_of(index);
        if !kind.is_in_build() {
            return Err(DeviceError::NotInBuild { name, kind: kind.name() });
        }
        let gpus = kind.gpus().map_err(|source| DeviceError::Driver { name: name.clone(), source })?;
        let Some(gpu) = gpus.iter().find(|gpu| gpu.index == index) else {
            return Err(DeviceError::NoGpu { name, there: names(&gpus) });
        };
        let candle = gpu.open().map_err(|source| DeviceError::Gpu { name: name.clone(), source })?;
        Ok(Device {
            name: name.into(),
            candle,
            kernels: Kernels::REFERENCE,
            gpu: Some(Arc::new(gpu.clone())),
            ..Device::host()
        })
    }

    /// The same device with another set of kernels.
    pub fn with_kernels(self, kernels: Kernels) -> Device {
        Device { kernels, ..self }
    }

    /// The same device with another precision of networks. `None` chooses the best precision: float32 on the CPU, where
    /// float32 is the fastest, and 16 bits on a GPU.
    ///
    /// # Errors
    /// The device cannot compute with this precision.
    pub fn with_precision(self, precision: Option<Precision>) -> Result<Device, DeviceError> {
        let best = || self.gpu.as_ref().map_or(Precision::F32, |gpu| Precision::of_gpu(gpu.compute_capability));
        let precision = precision.unwrap_or_else(best);
        let reason = match (&self.gpu, self.kernels, precision) {
            (None, Kernels::Packed(_), Precision::F16 | Precision::Bf16) => {
                "the kernels of the CPU compute in f32; auto is f32 there"
            }
            (None, Kernels::Reference(_), Precision::Bf16) => "candle has no convolutions in bf16 for the CPU",
            (Some(gpu), _, Precision::Bf16) if Precision::of_gpu(gpu.compute_capability) != Precision::Bf16 => {
                "a GPU needs compute capability 8.0 or higher for bf16; f16 is possible"
            }
            _ => return Ok(Device { precision, ..self }),
        };
        Err(DeviceError::Precision { name: self.name.to_string(), precision, reason })
    }

    /// The same device; with `offloads`, text encoders and autoencoders of models stay in the memory of the host and
    /// are copied to the device for their calls. This changes nothing for the CPU, which has no other memory.
    pub fn with_offload(self, offloads: bool) -> Device {
        let offload = (offloads && self.has_own_memory()).then(Arc::default);
        Device { offload, ..self }
    }

    /// The same device under the control of a test: `script` decides before each layer whether the device computes it.
    pub fn with_script(self, script: Arc<dyn Script>) -> Device {
        Device { script: Some(script), ..self }
    }

    /// The device's name in the settings: `cpu`, `cpu:0`, `cpu:0-7`, `cuda:0`, `metal`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hardware of the device: `cpu`, or the kind and the product of a GPU. Two devices with the same hardware and
    /// the same kernels compute the same bits.
    pub fn hardware(&self) -> String {
        self.gpu.as_ref().map_or_else(|| "cpu".to_owned(), |gpu| format!("{} {}", gpu.kind.name(), gpu.model))
    }

    /// The name of the memory that contains the tensors of the device. Devices with the same memory can share tensors:
    /// all CPU devices share `cpu`, and each GPU has its own.
    pub fn memory(&self) -> &str {
        if self.has_own_memory() { &self.name } else { "cpu" }
    }

    /// Whether the device has memory of its own, as a GPU has, and a device whose test script says so.
    pub fn has_own_memory(&self) -> bool {
        self.is_gpu() || self.script.as_ref().is_some_and(|script| script.is_gpu())
    }

    /// Whether text encoders and autoencoders stay in the memory of the host; see [`Device::with_offload`].
    pub fn offloads(&self) -> bool {
        self.offload.is_some()
    }

    /// Counts bytes of weights that are copied to the device for a call.
    pub fn note_copied(&self, bytes: u64) {
        if let Some(copied) = &self.offload {
            copied.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// The bytes that were counted since this method was called last.
    pub fn take_copied(&self) -> u64 {
        self.offload.as_ref().map_or(0, |copied| copied.swap(0, Ordering::Relaxed))
    }

    /// The device on which candle allocates tensors.
    pub fn candle(&self) -> &candle_core::Device {
        &self.candle
    }

    /// The kernels with which networks on this device compute.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// Whether the device is a GPU.
    pub fn is_gpu(&self) -> bool {
        self.gpu.is_some()
    }

    /// The precision of networks that support several; others compute in float32.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Runs `work` on the threads of the device, with exact operations.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.install_with(generation::Precision::Exact, work)
    }

    /// Runs `work` on the threads of the device, with operations of this precision.
    pub fn install_with<T: Send>(&self, precision: generation::Precision, work: impl FnOnce() -> T + Send) -> T {
        let precision = match precision {
            generation::Precision::Exact => kernels::precision::Precision::Exact,
            generation::Precision::Fast => kernels::precision::Precision::Fast,
        };
        // Also for exact work: a thread that waits within fast work may begin other work meanwhile.
        let work = || precision.during(work);
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Waits until the device has computed everything that it was given. Operations on the CPU return when they have
    /// computed, so there is nothing to wait for. A GPU computes later, and reports errors only here or when results
    /// are read.
    ///
    /// # Errors
    /// Work of the device has failed.
    pub fn synchronize(&self) -> Result<(), FaultError> {
        let failed = |error: candle_core::Error| FaultError { fault: Fault::of(&error), detail: error.to_string() };
        self.candle.synchronize().map_err(failed)?;
        self.script.as_ref().map_or(Ok(()), |script| script.waited())
    }

    /// The engine calls this before the device computes a layer.
    ///
    /// # Errors
    /// The fault that the script of a test causes at this layer. Without a script there is no error.
    pub fn before(&self, layer: Layer) -> Result<(), FaultError> {
        self.script.as_ref().map_or(Ok(()), |script| script.before(layer))
    }

    /// The memory that is free now on a device with memory of its own. `None` if it is unknown, and for the CPU, whose
    /// memory is planned for the whole process. Asks the driver.
    pub fn own_memory(&self) -> Option<GpuMemory> {
        let scripted = self.script.as_ref().and_then(|script| script.memory());
        scripted.or_else(|| self.gpu.as_ref()?.memory_now())
    }

    /// Bytes of the device's own memory, used or not. `None` in the cases of [`Device::own_memory`].
    pub fn own_bytes(&self) -> Option<u64> {
        let scripted = self.script.as_ref().and_then(|script| script.memory());
        scripted.or_else(|| self.gpu.as_ref()?.memory).map(|memory| memory.total)
    }

    /// Bytes of the device's own memory that the activations of a batch may take now. On a GPU, some of the free memory
    /// stays reserved for copies that no plan contains.
    pub fn bytes_for_batch(&self) -> Option<u64> {
        let scratch = if self.is_gpu() { GPU_SCRATCH } else { 0 };
        self.own_memory().map(|memory| memory.free.saturating_sub(scratch))
    }

    /// Gives the memory that no tensor uses, which the process keeps for later calls, back to the system.
    pub fn release_memory(&self) {
        arena::release();
        if let Some(gpu) = &self.gpu {
            gpu.release_memory();
        }
    }

    /// Pins the calling thread to the cores of the device, if the device has cores of its own.
    pub fn pin_current_thread(&self) {
        if let Some(cores) = &self.cores {
            affinity::pin_current_thread(cores);
        }
    }
}

/// The kinds of devices that the build supports: `the CPU`, `the CPU and cuda`.
fn kinds_of_build() -> String {
    let gpus = GpuKind::ALL.into_iter().filter(|kind| kind.is_in_build()).map(GpuKind::name);
    ["the CPU"].into_iter().chain(gpus).collect::<Vec<_>>().join(" and ")
}

/// The names of GPUs in an error.
fn names(gpus: &[Gpu]) -> String {
    match gpus {
        [] => "no GPU that its driver lists".to_owned(),
        gpus => gpus.iter().map(Gpu::name).collect::<Vec<_>>().join(", "),
    }
}

/// The cores as a list, if the process may use all of them.
fn allowed(name: &str, cores: RangeInclusive<usize>) -> Result<Arc<[usize]>, DeviceError> {
    let allowed = affinity::allowed();
    if let Some(core) = cores.clone().find(|core| !allowed.contains(core)) {
        return Err(DeviceError::Core { name: name.to_owned(), core, allowed: ranges(&allowed) });
    }
    Ok(cores.collect())
}

/// Formats ascending numbers as ranges: `0-3, 8`.
fn ranges(numbers: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut().filter(|(_, last)| last + 1 == number) {
            Some((_, last)) => *last = number,
            None => ranges.push((number, number)),
        }
    }
    let texts = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_computes_on_its_own_cores() {
        let core = affinity::allowed()[0];
        let device = Device::cpu("cpu:one", Some(core..=core), 0).unwrap();
        assert_eq!(device.install(rayon::current_num_threads), 1);
        if cfg!(target_os = "linux") {
            assert_eq!(device.install(affinity::allowed), [core]);
            let elsewhere = std::thread::spawn(move || {
                device.pin_current_thread();
                affinity::allowed()
            });
            assert_eq!(elsewhere.join().unwrap(), [core]);
        }
        let device = Device::cpu("cpu", None, 3).unwrap();
        assert_eq!(device.install(rayon::current_num_threads), 3);
        assert_eq!(device.install(affinity::allowed), affinity::allowed());
    }

    #[test]
    fn a_core_that_is_not_there_is_named() {
        let error = Device::cpu("cpu:0-99999", Some(0..=99_999), 0).unwrap_err().to_string();
        assert!(error.contains("cpu:0-99999") && error.contains(&ranges(&affinity::allowed())), "{error}");
        assert_eq!(ranges(&[0, 1, 2, 5, 8, 9]), "0-2, 5, 8-9");
    }

    #[test]
    fn a_gpu_that_cannot_be_used_is_named_with_the_remedy() {
        for kind in GpuKind::ALL {
            let error = Device::gpu(kind, 4711).unwrap_err();
            let text = error.to_string();
            let name = if kind == GpuKind::Cuda { "\"cuda:4711\"" } else { "\"metal\"" };
            assert!(text.contains(name), "{text}");
            match kind.is_in_build() {
                false => {
                    assert!(matches!(error, DeviceError::NotInBuild { .. }), "{text}");
                    assert!(text.contains(&format!("the Cargo feature {}", kind.name())), "{text}");
                    assert!(text.contains("computes on the CPU"), "{text}");
                    assert_eq!(kind.gpus().unwrap(), []);
                }
                true => assert!(text.contains("this machine has"), "{text}"),
            }
        }
        let gpu = |index| gpu(index, None);
        assert_eq!(names(&[gpu(0), gpu(2)]), "cuda:0, cuda:2");
        assert!(names(&[]).contains("no GPU"));
    }

    fn gpu(index: usize, compute_capability: Option<(u32, u32)>) -> Gpu {
        let model = "X".to_owned();
        Gpu { kind: GpuKind::Cuda, index, model, cores: None, memory: None, compute_capability }
    }

    #[test]
    fn the_precision_follows_from_the_device_and_an_impossible_one_is_refused() {
        let on = |capability| Device { gpu: Some(Arc::new(gpu(0, capability))), ..Device::host() };
        let reference = || Device::host().with_kernels(Kernels::REFERENCE);
        let of = |device: Device, precision| device.with_precision(precision).map(|device| device.precision());
        assert_eq!(of(Device::host(), None).unwrap(), Precision::F32);
        assert_eq!(of(on(Some((9, 0))), None).unwrap(), Precision::Bf16);
        assert_eq!(of(on(Some((7, 5))), None).unwrap(), Precision::F16);
        assert_eq!(of(on(Some((7, 5))), Some(Precision::F32)).unwrap(), Precision::F32);
        assert_eq!(of(reference(), Some(Precision::F16)).unwrap(), Precision::F16);
        for (device, precision, said) in [
            (Device::host(), Precision::F16, "models.precision is f16, but \"cpu\" cannot compute with it"),
            (Device::host(), Precision::Bf16, "auto is f32 there"),
            (reference(), Precision::Bf16, "no convolutions in bf16"),
            (on(Some((7, 5))), Precision::Bf16, "compute capability 8.0"),
        ] {
            let error = of(device, Some(precision)).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn cpu_devices_share_memory_and_hardware() {
        let core = affinity::allowed()[0];
        let one = Device::cpu("cpu:one", Some(core..=core), 0).unwrap();
        assert_eq!((one.memory(), one.hardware()), (Device::host().memory(), Device::host().hardware()));
        assert_ne!(one.name(), Device::host().name());
        one.synchronize().unwrap();
    }
}
