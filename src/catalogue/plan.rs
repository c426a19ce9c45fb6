//! The plan of a generation with the models of the catalogue.

use super::Catalogue;
use crate::{families::Plan, generation::Job};

impl Catalogue {
    /// The work and memory of a generation; `None` if its model is unknown or cannot be used.
    pub fn plan(&self, job: &Job) -> Option<Plan> {
        let entry = self.entry(&job.model)?;
        let usable = entry.usable().ok()?;
        let control_nets = self.control_nets();
        let of_control = |name: &str, size, tokens| control_nets.demand(name, size, tokens);
        Some(usable.outline.plan(job, &usable.card, &of_control))
    }
}
