//! The check of the memory plan: weights and generations against the memory of the machine or container.

use latentd::{
    app::{self, HostMemory, MemoryPlan},
    config::Config,
    device::Device,
};

use super::finding::Finding;

pub fn look(config: &Config) -> Vec<Finding> {
    if !config.role.works() {
        return vec![Finding::ok("the process only serves HTTP and loads no weights")];
    }
    let devices = app::devices(config).unwrap_or_else(|_| vec![Device::host()]);
    // Other errors are findings of the check of the models.
    let Ok(catalogue) = app::catalogue_of_any_size(config, devices.clone()) else {
        return vec![Finding::ok("not checked, because the models cannot be listed")];
    };
    if let Err(error) = app::catalogue(config, devices.clone()) {
        return vec![Finding::error(
            crate::one_line(&error),
            "use a smaller model, or a machine or container with more memory",
        )];
    }
    let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
    let mut findings: Vec<Finding> = devices
        .iter()
        .filter_map(|device| {
            let (free, bytes) = (device.own_memory()?.free, catalogue.bytes(catalogue.default_name())?);
            let (name, need, has) = (device.name(), gigabytes(bytes), gigabytes(free));
            let text = format!("the default model needs {need} on {name}, which has {has} free");
            let mend = "set models.offload = true or models.precision, or use a smaller model";
            (bytes > free).then(|| Finding::error(text, mend))
        })
        .collect();
    let plan = MemoryPlan::of(config, &catalogue);
    let (all, memory) = (gigabytes(plan.bytes()), gigabytes(plan.memory));
    let parts = format!("weights {}, generations {}", gigabytes(plan.weights), gigabytes(plan.generations));
    let text = format!("the plan takes {all} of {memory} of memory ({parts})");
    let free = HostMemory::now().free.unwrap_or(u64::MAX);
    findings.push(if plan.bytes() > plan.memory {
        let mend = "lower models.max_bytes, controlnets.max_bytes or engine.max_bytes, or give the process more memory";
        Finding::warning(text, mend)
    } else if plan.weights > free {
        let text = format!("{text}, but only {} are free now", gigabytes(free));
        Finding::warning(text, "stop other programs; a latentd that runs here already has its weights in memory")
    } else {
        Finding::ok(text)
    });
    findings
}
