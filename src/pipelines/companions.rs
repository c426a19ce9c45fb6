//! What stands beside the model of a generation.

use std::sync::Arc;

use super::Model;
use crate::{
    diffusion::SchedulerConfig,
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
