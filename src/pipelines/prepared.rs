//! A prepared generation: everything that is needed to draw it.

use std::sync::Arc;

use super::{Auxiliary, FittedInputs, Model};
use crate::{diffusion::SchedulerConfig, generation::Job};

/// The input of a recipe. The catalogue makes it for the worker, the command line, tests and benches.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub job: Job,
    pub model: Arc<Model>,
    /// The model's own scheduler, with the changes that the request makes.
    pub scheduler: SchedulerConfig,
    /// What the request names in addition to its model.
    pub auxiliary: Auxiliary,
    /// The pictures that the request contains.
    pub inputs: FittedInputs,
}
