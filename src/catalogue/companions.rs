//! What a generation names beside its model, loaded.

use std::sync::Arc;

use super::{Catalogue, CatalogueError};
use crate::{
    diffusion::{InvalidScheduler, SchedulerConfig},
    generation::Generation,
    pipelines::{Companions, Model},
};

/// Why a companion is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum CompanionError {
    #[error(transparent)]
    Model(#[from] CatalogueError),
    #[error("{0}")]
    Load(String),
    #[error("the refiner cannot be sampled so: {0}")]
    Scheduler(#[from] InvalidScheduler),
}

impl Catalogue {
    /// Loads what the generation names beside its models. Blocks for as long as that takes.
    ///
    /// # Errors
    /// A name is unknown, or what it names cannot be loaded.
    pub fn companions(
        &self,
        generation: &Generation,
        model: &Model,
        refiner: Option<Arc<Model>>,
    ) -> Result<Companions, CompanionError> {
        let controls = generation.controls.iter();
        let control_nets = controls.map(|control| self.control_nets().load(&control.model));
        let refiner = match refiner {
            Some(model) => {
                let card = self.card(&model.name);
                let card = card.ok_or_else(|| CatalogueError::Unknown(model.name.clone()))?;
                Some((model, SchedulerConfig::overlay(&card.scheduler_config, &generation.scheduler)?))
            }
            None => None,
        };
        let adapters = self.adapters();
        Ok(Companions {
            adapters: adapters.changes(generation, model).map_err(CompanionError::Load)?,
            learned: adapters.learned(generation, model).map_err(CompanionError::Load)?,
            control_nets: control_nets.collect::<Result<_, _>>().map_err(CompanionError::Load)?,
            refiner,
        })
    }
}
