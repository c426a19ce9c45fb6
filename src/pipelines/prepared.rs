//! A prepared generation: everything that is needed to compute it.

use std::sync::Arc;

use super::{Auxiliary, FittedInputs, Model, PipelineError};
use crate::{
    diffusion::SchedulerConfig,
    generation::{Draw, Film, Job, Sound},
};

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

impl Prepared {
    /// The drawing.
    ///
    /// # Errors
    /// The job has work of another kind.
    pub fn draw(&self) -> Result<&Draw, PipelineError> {
        self.job.work.draw().ok_or(PipelineError::OtherWork("draw pictures"))
    }

    /// The sounds.
    ///
    /// # Errors
    /// The job has work of another kind.
    pub fn sound(&self) -> Result<&Sound, PipelineError> {
        self.job.work.sound().ok_or(PipelineError::OtherWork("make sounds"))
    }

    /// The films.
    ///
    /// # Errors
    /// The job has work of another kind.
    pub fn film(&self) -> Result<&Film, PipelineError> {
        self.job.work.film().ok_or(PipelineError::OtherWork("make films"))
    }
}
