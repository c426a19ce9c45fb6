//! A generation with all that it takes to draw it.

use std::sync::Arc;

use super::{Companions, Inputs, Model};
use crate::{diffusion::SchedulerConfig, generation::Job};

/// What a recipe draws from. Made by the catalogue for the worker, the command
/// line, tests and benches alike.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub job: Job,
    pub model: Arc<Model>,
    /// The model's own scheduler with what the request changes.
    pub scheduler: SchedulerConfig,
    /// What the request names beside its model.
    pub companions: Companions,
    /// The pictures that it brings along.
    pub inputs: Inputs,
}
