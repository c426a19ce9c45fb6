//! The check of the devices that compute.

use latentd::{
    app,
    config::Config,
    kernels::bf16::{self, Unit},
};

use super::finding::Finding;

pub fn look(config: &Config) -> Vec<Finding> {
    if !config.role.works() {
        return vec![Finding::ok("the process only serves HTTP and computes nothing")];
    }
    let devices = match app::devices(config) {
        Ok(devices) => devices,
        Err(error) => {
            let mend = "correct engine.devices; `latentd devices` lists what this build and machine have";
            return vec![Finding::error(crate::one_line(&error), mend)];
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let names: Vec<&str> = devices.iter().map(|device| device.name()).collect();
    let mut findings = vec![Finding::ok(format!("{}; the process may use {cores} cores", names.join(", ")))];
    let on_cpu = devices.iter().filter(|device| !device.is_gpu());
    let threads: usize = on_cpu.map(|device| device.install(rayon::current_num_threads)).sum();
    if threads > cores {
        let text = format!("{threads} compute threads share {cores} cores, so they slow each other down");
        findings
            .push(Finding::warning(text, "set engine.threads = 0 (one thread for each core), or name fewer devices"));
    }
    if devices.iter().any(|device| !device.is_gpu()) {
        let unit = bf16::of_fast().map_or("float32, as exact requests do", Unit::name);
        findings.push(Finding::ok(format!("precision fast computes with {unit}")));
    }
    findings
}
