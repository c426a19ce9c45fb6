//! Opens the devices of the settings.

use anyhow::{Context, Result, bail};

use super::probe;
use crate::{
    config::{self, Config, DeviceName},
    device::{Device, DeviceError, Gpu, GpuKind, Precision},
    kernels::{
        Kernels, Rows,
        bf16::{self, Unit},
        winograd,
    },
};

/// Opens the devices in the settings, with their threads.
///
/// # Errors
/// A core in the settings is not available to this process, the build does not support a GPU in the settings, the
/// machine does not have the GPU, a device cannot compute with `models.precision`, or the processor lacks what
/// `kernels.fast` names.
pub fn devices(config: &Config) -> Result<Vec<Device>> {
    if config.kernels.matrix_unit == config::MatrixUnit::Auto && !bf16::turn_on() {
        tracing::info!("kernels.matrix_unit: this processor has no matrix unit that latentd can use");
    }
    let names = match &config.engine.devices[..] {
        [DeviceName::Auto] => found(&Gpu::all().context("engine.devices: \"auto\"")?),
        names => names.to_vec(),
    };
    let opened = names.iter().map(|name| open(name, config)).collect::<Result<Vec<_>, _>>();
    let opened = opened.context("engine.devices")?;
    if !opened.iter().all(Device::is_gpu) {
        choose_fast(config.kernels.fast)?;
    }
    Ok(opened)
}

/// Chooses what multiplies the numbers of requests with `precision: fast`.
fn choose_fast(setting: config::Fast) -> Result<()> {
    let unit = match setting {
        config::Fast::Off => None,
        config::Fast::Amx => Some(Unit::Amx),
        config::Fast::Avx512Bf16 => Some(Unit::Dot),
        config::Fast::Auto => {
            let speeds = probe::speeds().context("kernels.fast: the units of the processor cannot be measured")?;
            let fastest = probe::fastest(&speeds);
            let measured: Vec<String> =
                speeds.iter().map(|speed| format!("{} {:.0}", speed.name(), speed.multiplications / 1e9)).collect();
            tracing::info!(
                chosen = fastest.map_or("float32", Unit::name),
                measured = measured.join(", "),
                "kernels.fast: 10⁹ multiplications per second of one thread"
            );
            fastest
        }
    };
    if let Some(unit) = unit.filter(|unit| !unit.is_available()) {
        bail!("kernels.fast: this processor has no {}; use \"auto\" or \"off\"", unit.name());
    }
    bf16::use_for_fast(unit);
    Ok(())
}

/// The meaning of `auto`: all GPUs, or the CPU if there are none.
fn found(gpus: &[Gpu]) -> Vec<DeviceName> {
    let name = |gpu: &Gpu| match gpu.kind {
        GpuKind::Cuda => DeviceName::Cuda { index: gpu.index },
        GpuKind::Metal => DeviceName::Metal,
    };
    match gpus {
        [] => vec![DeviceName::Cpu { cores: None }],
        gpus => gpus.iter().map(name).collect(),
    }
}

fn open(name: &DeviceName, config: &Config) -> Result<Device, DeviceError> {
    let precision = match config.models.precision {
        config::Precision::Auto => None,
        config::Precision::F32 => Some(Precision::F32),
        config::Precision::F16 => Some(Precision::F16),
        config::Precision::Bf16 => Some(Precision::Bf16),
    };
    let gpu = |device: Device| {
        let kernels = kernels_of_gpus(config.engine.batch_invariant);
        device.with_kernels(kernels).with_offload(config.models.offload).with_precision(precision)
    };
    let cores = match name {
        DeviceName::Cuda { index } => return gpu(Device::gpu(GpuKind::Cuda, *index)?),
        DeviceName::Metal => return gpu(Device::gpu(GpuKind::Metal, 0)?),
        DeviceName::Cpu { cores } => cores.clone(),
        // `auto` is the only entry of its list, which `found` has replaced.
        DeviceName::Auto => None,
    };
    let name = DeviceName::Cpu { cores: cores.clone() }.to_string();
    Device::cpu(&name, cores, config.engine.threads)?.with_kernels(kernels(config)).with_precision(precision)
}

/// The kernels of networks on GPUs.
fn kernels_of_gpus(batch_invariant: bool) -> Kernels {
    Kernels::Reference(if batch_invariant { Rows::Apart } else { Rows::Together })
}

/// The kernels of networks on the CPU. With all of them, the bits of a row do not depend on its batch.
fn kernels(config: &Config) -> Kernels {
    let winograd = match config.kernels.winograd {
        config::Winograd::Auto => winograd::Use::Auto,
        config::Winograd::Off => winograd::Use::Off,
        config::Winograd::Force => winograd::Use::Always(winograd::TileSize::Four),
    };
    match config.engine.kernels {
        config::KernelSet::Packed => Kernels::Packed(winograd),
        config::KernelSet::Reference => Kernels::REFERENCE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_computes_rows_apart_if_their_bytes_must_not_depend_on_the_batch() {
        assert_eq!(kernels_of_gpus(true), Kernels::REFERENCE);
        assert_ne!(kernels_of_gpus(true), kernels_of_gpus(false));
    }

    #[test]
    fn auto_is_all_gpus_or_else_the_cpu() {
        let gpu = |kind, index| Gpu {
            kind,
            index,
            model: "X".to_owned(),
            cores: None,
            memory: None,
            compute_capability: None,
        };
        let names = |gpus: &[Gpu]| found(gpus).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&[]), ["cpu"]);
        assert_eq!(names(&[gpu(GpuKind::Cuda, 0), gpu(GpuKind::Cuda, 3)]), ["cuda:0", "cuda:3"]);
        assert_eq!(names(&[gpu(GpuKind::Metal, 0)]), ["metal"]);
    }
}
