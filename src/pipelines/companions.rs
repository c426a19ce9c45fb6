//! What stands beside the model of a generation.

use std::sync::Arc;

use super::{Catalogue, CatalogueError, Model};
use crate::{
    diffusion::{InvalidScheduler, SchedulerConfig},
    generation::Generation,
    models::{adapters::AdapterSet, control_net::ControlNet, text_encoders::LearnedTokens},
};

/// Everything that the request names beside its model, loaded.
#[derive(Clone, Debug, Default)]
pub struct Companions {
    /// What changes the layers of the model.
    pub adapters: AdapterSet,
    /// What triggers in the prompts stand for.
    pub learned: LearnedTokens,
    /// One for each of the generation's `controls`.
    pub control_nets: Vec<Arc<ControlNet>>,
    /// The model of the last steps, and how it is sampled.
    pub refiner: Option<(Arc<Model>, SchedulerConfig)>,
}

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

impl Companions {
    /// Loads what the generation names beside its models. Blocks for as long as that takes.
    ///
    /// # Errors
    /// A name is unknown, or what it names cannot be loaded.
    pub fn of(
        generation: &Generation,
        catalogue: &Catalogue,
        model: &Model,
        refiner: Option<Arc<Model>>,
    ) -> Result<Companions, CompanionError> {
        let controls = generation.controls.iter();
        let control_nets = controls.map(|control| catalogue.control_nets().load(&control.model));
        let refiner = match refiner {
            Some(model) => {
                let card = catalogue.card(&model.name);
                let card = card.ok_or_else(|| CatalogueError::Unknown(model.name.clone()))?;
                Some((model, SchedulerConfig::overlay(&card.scheduler_config, &generation.scheduler)?))
            }
            None => None,
        };
        let adapters = catalogue.adapters();
        Ok(Companions {
            adapters: adapters.changes(generation, model).map_err(CompanionError::Load)?,
            learned: adapters.learned(generation, model).map_err(CompanionError::Load)?,
            control_nets: control_nets.collect::<Result<_, _>>().map_err(CompanionError::Load)?,
            refiner,
        })
    }
}
