//! The source of the steps of a run: a number of steps, or explicit levels.

use super::error::InvalidSteps;
use super::scheduler_config::SchedulerConfig;
use crate::generation::Levels;

/// The source of the steps of a run.
#[derive(Clone, Copy)]
pub(super) enum StepSource<'a> {
    /// A number of steps; the scheduler chooses the levels.
    Steps(usize),
    /// Levels that the request lists.
    Over(&'a Levels),
}

impl<'a> StepSource<'a> {
    /// The number of steps, or the length of the list.
    pub(super) fn len(self) -> usize {
        match self {
            StepSource::Steps(steps) => steps,
            StepSource::Over(Levels::Sigmas(sigmas)) => sigmas.len(),
            StepSource::Over(Levels::Timesteps(timesteps)) => timesteps.len(),
        }
    }

    /// The number of steps, for classes that take no lists; an error for a list.
    pub(super) fn steps(self, config: &SchedulerConfig) -> Result<usize, InvalidSteps> {
        match self {
            StepSource::Steps(steps) => Ok(steps),
            StepSource::Over(levels) => Err(InvalidSteps::NoList { class: config.class_name(), list: levels.name() }),
        }
    }

    /// The same source if it is a number of steps, for classes that take no lists; an error for a list.
    pub(super) fn without_lists(self, config: &SchedulerConfig) -> Result<StepSource<'a>, InvalidSteps> {
        self.steps(config).map(StepSource::Steps)
    }

    /// The same source unless it lists sigmas, for classes that take only timesteps.
    pub(super) fn without_sigmas(self, config: &SchedulerConfig) -> Result<StepSource<'a>, InvalidSteps> {
        if let StepSource::Over(Levels::Sigmas(_)) = self {
            self.steps(config)?;
        }
        Ok(self)
    }
}

/// The timesteps that a request lists. Fails if they do not fall, or if one of them is not a training timestep of the
/// model.
pub(super) fn listed(timesteps: &[u32], config: &SchedulerConfig) -> Result<Vec<f64>, InvalidSteps> {
    let num_train_timesteps = config.num_train_timesteps();
    if timesteps.windows(2).any(|pair| pair[1] >= pair[0]) {
        return Err(InvalidSteps::Rising);
    }
    match timesteps.first().filter(|t| **t as usize >= num_train_timesteps) {
        Some(t) => Err(InvalidSteps::OutOfRange { t: f64::from(*t), num_train_timesteps }),
        None => Ok(timesteps.iter().map(|t| f64::from(*t)).collect()),
    }
}
