//! The plan of a generation with the models of the catalogue.

use super::Catalogue;
use crate::{device::Device, families::Plan, generation::Job};

/// Why no device has enough memory of its own for a generation. All fields are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Weights of the model that are on the device at the same time.
    pub model: u64,
    /// Weights of the ControlNets.
    pub control_nets: u64,
    /// Activations of one row of the largest call.
    pub call: u64,
    /// The memory of the largest device.
    pub memory: u64,
}

impl TooLarge {
    fn bytes(&self) -> u64 {
        self.model.saturating_add(self.control_nets).saturating_add(self.call)
    }
}

impl Catalogue {
    /// The work and memory of a generation; `None` if its model is unknown or cannot be used.
    pub fn plan(&self, job: &Job) -> Option<Plan> {
        let entry = self.entry(&job.model)?;
        let usable = entry.usable().ok()?;
        let control_nets = self.control_nets();
        let of_control = |name: &str, size, tokens| control_nets.demand(name, size, tokens);
        Some(usable.outline.plan(job, &usable.card, &of_control))
    }

    /// Checks that a device can compute the generation. CPU devices always pass: they use the memory of the process,
    /// whose limits are checked elsewhere (`engine.max_bytes`).
    ///
    /// # Errors
    /// The model, the ControlNets and one row of the largest call exceed the memory of each device.
    pub fn check_devices(&self, job: &Job, plan: Plan) -> Result<(), TooLarge> {
        let mut largest: Option<TooLarge> = None;
        for device in self.devices() {
            let Some(memory) = device.own_bytes() else { return Ok(()) };
            let too_large = self.on_device(job, plan, device, memory);
            if too_large.bytes() <= memory {
                return Ok(());
            }
            largest = largest.filter(|other| other.memory >= memory).or(Some(too_large));
        }
        largest.map_or(Ok(()), Err)
    }

    fn on_device(&self, job: &Job, plan: Plan, device: &Device, memory: u64) -> TooLarge {
        let entry = self.entry(&job.model);
        let usable = entry.as_ref().and_then(|entry| entry.usable().ok());
        let model = usable.map(|usable| usable.bytes_on(device).saturating_add(usable.copied_bytes(device)));
        let (model, control_nets) = (model.unwrap_or(0), self.control_nets().bytes_of(job.work.control_nets(), device));
        TooLarge { model, control_nets, call: plan.call_on(device), memory }
    }
}
