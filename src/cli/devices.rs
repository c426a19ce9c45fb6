//! `latentd devices`: the devices of this build and machine, and which models fit into their memory.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use latentd::{
    app::{self, HostMemory, probe},
    catalogue::Catalogue,
    config::Config,
    device::{Device, Gpu, GpuKind},
    kernels::bf16::{self, Unit},
};
use serde::Serialize;

use super::Settings;

#[derive(Debug, Args)]
pub(super) struct Devices {
    #[command(flatten)]
    settings: Settings,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Everything that the command prints.
#[derive(Debug, Serialize)]
struct Report {
    /// The kinds of devices that the build supports.
    build: Vec<&'static str>,
    devices: Vec<Listed>,
    /// `None` if it cannot be measured.
    fast: Option<FastPrecision>,
    /// Why the devices of the settings, or the devices of a driver, cannot be used.
    errors: Vec<String>,
}

/// What computes requests with `precision: fast` on the CPU.
#[derive(Debug, Serialize)]
struct FastPrecision {
    /// float32 if such requests are computed exactly.
    computes_with: &'static str,
    /// Multiplications per second of one thread, for everything that this processor has.
    measured: BTreeMap<&'static str, f64>,
}

/// The CPU or a GPU.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    kind: &'static str,
    /// The product name of a GPU; `None` for the CPU.
    model: Option<String>,
    /// Cores of the CPU that the process may use, or multiprocessors of a GPU.
    cores: Option<usize>,
    memory_bytes: Option<u64>,
    free_bytes: Option<u64>,
    /// The entries of `engine.devices` that compute here; empty if the settings do not use the device.
    computes: Vec<String>,
    models: Vec<Loadable>,
}

/// A usable model of the catalogue, on a device.
#[derive(Debug, Serialize)]
struct Loadable {
    name: String,
    /// Bytes of the weights in memory.
    bytes: u64,
    /// Whether the server loads the model at its start, and not only for a request.
    at_start: bool,
    /// Whether the weights fit into the free memory; `None` if that is unknown.
    fits: Option<bool>,
}

impl Devices {
    pub(super) fn run(&self) -> Result<()> {
        let config = self.settings.load(Vec::new())?;
        let catalogue = app::catalogue_of_any_size(&config, vec![Device::host()])?;
        let report = Report::of(&config, &catalogue);
        match self.json {
            true => println!("{}", serde_json::to_string_pretty(&report)?),
            false => report.print(),
        }
        Ok(())
    }
}

impl Report {
    fn of(config: &Config, catalogue: &Catalogue) -> Report {
        let mut errors = Vec::new();
        let mut devices = vec![Listed::cpu()];
        for kind in GpuKind::ALL {
            match kind.gpus() {
                Ok(gpus) => devices.extend(gpus.into_iter().map(Listed::gpu)),
                Err(error) => errors.push(error.to_string()),
            }
        }
        // The devices are opened after the free memory was read, because drivers reserve memory for each process that
        // opens a device.
        match app::devices(config) {
            Ok(opened) => devices.iter_mut().for_each(|device| device.computes = computing_on(&device.name, &opened)),
            Err(error) => errors.push(format!("{error:#}")),
        }
        devices.iter_mut().for_each(|device| device.models = loadable(catalogue, device.free_bytes));
        let gpus = GpuKind::ALL.into_iter().filter(|kind| kind.is_in_build()).map(GpuKind::name);
        // The devices have chosen it.
        let fast = FastPrecision::now().inspect_err(|error| errors.push(error.to_string())).ok();
        Report { build: ["cpu"].into_iter().chain(gpus).collect(), devices, fast, errors }
    }

    fn print(&self) {
        println!("this build computes on: {}", self.build.join(", "));
        for device in &self.devices {
            println!("{}", device.line());
            device.models.iter().for_each(|model| println!("    {}", model.line()));
        }
        self.fast.iter().for_each(|fast| println!("{}", fast.line()));
        self.errors.iter().for_each(|error| println!("error: {error}"));
    }
}

impl FastPrecision {
    fn now() -> candle_core::Result<FastPrecision> {
        let measured = probe::speeds()?.into_iter().map(|speed| (speed.name(), speed.multiplications)).collect();
        Ok(FastPrecision { computes_with: bf16::of_fast().map_or("float32", Unit::name), measured })
    }

    fn line(&self) -> String {
        let speeds = self.measured.iter().map(|(name, speed)| format!("{name} {:.0}", speed / 1e9));
        let speeds = speeds.collect::<Vec<_>>().join(", ");
        format!(
            "precision fast computes with {} on the CPU (10⁹ multiplications per second of one thread: {speeds})",
            self.computes_with
        )
    }
}

impl Listed {
    fn cpu() -> Listed {
        let HostMemory { total, free } = HostMemory::now();
        Listed {
            name: "cpu".to_owned(),
            kind: "cpu",
            model: None,
            cores: std::thread::available_parallelism().ok().map(usize::from),
            memory_bytes: Some(total),
            free_bytes: free,
            computes: Vec::new(),
            models: Vec::new(),
        }
    }

    fn gpu(gpu: Gpu) -> Listed {
        Listed {
            name: gpu.name(),
            kind: gpu.kind.name(),
            model: Some(gpu.model),
            cores: gpu.cores,
            memory_bytes: gpu.memory.map(|memory| memory.total),
            free_bytes: gpu.memory.map(|memory| memory.free),
            computes: Vec::new(),
            models: Vec::new(),
        }
    }

    fn line(&self) -> String {
        let unit = if self.kind == "cpu" { "cores" } else { "multiprocessors" };
        let memory = |bytes: Option<u64>, what| bytes.map(|bytes| format!("{:.1} GB {what}", bytes as f64 / 1e9));
        let facts = [
            self.model.clone(),
            self.cores.map(|cores| format!("{cores} {unit}")),
            memory(self.memory_bytes, "of memory"),
            memory(self.free_bytes, "free"),
            Some(match &self.computes[..] {
                [] => "not used by engine.devices".to_owned(),
                [only] if *only == self.name => "used by engine.devices".to_owned(),
                parts => format!("used by engine.devices as {}", parts.join(", ")),
            }),
        ];
        format!("{}: {}", self.name, facts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl Loadable {
    fn line(&self) -> String {
        let fits = match self.fits {
            Some(true) => ", fits",
            Some(false) => ", does not fit into the free memory",
            None => "",
        };
        let at_start = if self.at_start { ", loaded at the start" } else { "" };
        format!("{}: {} MB{fits}{at_start}", self.name, self.bytes.div_ceil(1_000_000))
    }
}

/// The names of the devices whose tensors are in the memory of the listed device `name`.
fn computing_on(name: &str, opened: &[Device]) -> Vec<String> {
    opened.iter().filter(|device| device.memory() == name).map(|device| device.name().to_owned()).collect()
}

/// The usable models of the catalogue, each with whether it fits into `free_bytes`.
fn loadable(catalogue: &Catalogue, free_bytes: Option<u64>) -> Vec<Loadable> {
    let awaited = catalogue.awaited();
    let model = |name: String| {
        let bytes = catalogue.bytes(&name)?;
        Some(Loadable { at_start: awaited.contains(&name), bytes, fits: free_bytes.map(|free| bytes <= free), name })
    };
    catalogue.names().into_iter().filter_map(model).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_contain_the_known_facts_of_a_device() {
        let (kind, model) = (GpuKind::Cuda, "X 1".to_owned());
        let gpu = Gpu { kind, index: 1, model, cores: Some(132), memory: None, compute_capability: None };
        assert_eq!(Listed::gpu(gpu).line(), "cuda:1: X 1, 132 multiprocessors, not used by engine.devices");
        let parts = ["cpu:0".to_owned(), "cpu:1".to_owned()].to_vec();
        let cpu = Listed { cores: None, memory_bytes: Some(2_000_000_000), free_bytes: None, ..Listed::cpu() };
        assert_eq!(cpu.line(), "cpu: 2.0 GB of memory, not used by engine.devices");
        let cpu = Listed { computes: parts, ..cpu };
        assert_eq!(cpu.line(), "cpu: 2.0 GB of memory, used by engine.devices as cpu:0, cpu:1");
        let model = |fits| Loadable { name: "a".to_owned(), bytes: 1_500_000, at_start: fits == Some(true), fits };
        assert_eq!(model(Some(true)).line(), "a: 2 MB, fits, loaded at the start");
        assert_eq!(model(Some(false)).line(), "a: 2 MB, does not fit into the free memory");
        assert_eq!(model(None).line(), "a: 2 MB");
    }

    #[test]
    fn the_line_about_fast_precision_names_the_choice_and_all_speeds() {
        let measured = BTreeMap::from([("float32", 79.4e9), ("amx", 346e9)]);
        let fast = FastPrecision { computes_with: "amx", measured };
        let line = "precision fast computes with amx on the CPU (10⁹ multiplications per second of one thread: \
                    amx 346, float32 79)";
        assert_eq!(fast.line(), line);
    }

    #[test]
    fn a_model_fits_into_as_many_bytes_as_it_has() {
        let config = Config::load(&latentd::config::Sources::default()).unwrap();
        let catalogue = app::catalogue_of_any_size(&config, vec![Device::host()]).unwrap();
        let bytes = catalogue.bytes(catalogue.default_name()).unwrap();
        for (free, fits) in [(Some(bytes), Some(true)), (Some(bytes - 1), Some(false)), (None, None)] {
            let models = loadable(&catalogue, free);
            assert_eq!(models.len(), 1);
            assert_eq!((models[0].fits, models[0].at_start, models[0].bytes), (fits, true, bytes));
        }
    }
}
