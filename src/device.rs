//! Devices: a device is a value that consists of a place for tensors, a set of kernels, and threads.

#[allow(unsafe_code, reason = "the system's calls that tie threads to cores take pointers; each has its proof")]
mod affinity;
mod fault;
mod script;

use std::{ops::RangeInclusive, sync::Arc};

use rayon::{ThreadPool, ThreadPoolBuilder};

pub use fault::{Fault, FaultError};
pub use script::{Layer, Script};

use crate::kernels::{Kernels, arena};

/// The device of latents, pictures and all other data outside networks: the memory of the process.
pub const HOST: candle_core::Device = candle_core::Device::Cpu;

/// The stack size of each compute thread, in bytes. It is large because a thread that waits for others runs other work
/// on the same stack.
const COMPUTE_STACK: usize = 8 << 20;

/// A device that computes networks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Device {
    name: Arc<str>,
    candle: candle_core::Device,
    kernels: Kernels,
    /// The cores of the device; `None`: all that the process may use.
    cores: Option<Arc<[usize]>>,
    /// The threads of the device; `None`: rayon's current pool computes.
    pool: Option<Arc<ThreadPool>>,
    /// What a test lets happen on the device.
    script: Option<Arc<dyn Script>>,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("core {core} of {name:?} cannot be used; this process may use the cores {allowed}")]
    Core { name: String, core: usize, allowed: String },
    #[error("the threads of {name:?} cannot be started: {source}")]
    Threads { name: String, source: rayon::ThreadPoolBuildError },
}

impl Default for Device {
    fn default() -> Device {
        Device::host()
    }
}

impl Device {
    /// The CPU, with rayon's current thread pool.
    pub fn host() -> Device {
        Device { name: "cpu".into(), candle: HOST, kernels: Kernels::default(), cores: None, pool: None, script: None }
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

    /// The same device with another set of kernels.
    pub fn with_kernels(self, kernels: Kernels) -> Device {
        Device { kernels, ..self }
    }

    /// The same device under the control of a test: `script` decides before each layer whether the device computes it.
    pub fn with_script(self, script: Arc<dyn Script>) -> Device {
        Device { script: Some(script), ..self }
    }

    /// The device's name in the settings: `cpu`, `cpu:0`, `cpu:0-7`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kind of the device: `cpu`, `cuda` or `metal`. Two devices of the same kind and with the same
    /// kernels compute the same bits.
    pub fn kind(&self) -> &'static str {
        match self.candle {
            candle_core::Device::Cpu => "cpu",
            candle_core::Device::Cuda(_) => "cuda",
            candle_core::Device::Metal(_) => "metal",
        }
    }

    /// The device on which candle allocates tensors.
    pub fn candle(&self) -> &candle_core::Device {
        &self.candle
    }

    /// The kernels with which networks on this device compute.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// Runs `work` on the threads of the device.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Called before the device computes a layer.
    ///
    /// # Errors
    /// The fault in the script of a test. Devices without a script have none here.
    pub fn before(&self, layer: Layer) -> Result<(), FaultError> {
        self.script.as_ref().map_or(Ok(()), |script| script.before(layer))
    }

    /// Returns memory that the device keeps for later calls to the system, or makes it available to larger calls.
    pub fn release_memory(&self) {
        arena::release();
    }

    /// Pins the calling thread to the cores of the device, if the device has cores of its own.
    pub fn pin_current_thread(&self) {
        if let Some(cores) = &self.cores {
            affinity::pin_current_thread(cores);
        }
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
}
