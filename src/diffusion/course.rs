//! What a run goes by: a number of steps, or levels of its own.

use super::error::InvalidSteps;
use super::scheduler_config::SchedulerConfig;
use crate::generation::Levels;

#[derive(Clone, Copy)]
pub(super) enum Course<'a> {
    Steps(usize),
    Over(&'a Levels),
}

impl<'a> Course<'a> {
    pub(super) fn len(self) -> usize {
        match self {
            Course::Steps(steps) => steps,
            Course::Over(Levels::Sigmas(sigmas)) => sigmas.len(),
            Course::Over(Levels::Timesteps(timesteps)) => timesteps.len(),
        }
    }

    /// For classes that take no lists.
    pub(super) fn steps(self, config: &SchedulerConfig) -> Result<usize, InvalidSteps> {
        match self {
            Course::Steps(steps) => Ok(steps),
            Course::Over(levels) => Err(InvalidSteps::NoList { class: config.class_name(), list: levels.name() }),
        }
    }

    /// The same course where it is a number of steps, for classes that take no lists.
    pub(super) fn without_lists(self, config: &SchedulerConfig) -> Result<Course<'a>, InvalidSteps> {
        self.steps(config).map(Course::Steps)
    }

    /// For classes that take timesteps alone.
    pub(super) fn without_sigmas(self, config: &SchedulerConfig) -> Result<Course<'a>, InvalidSteps> {
        if let Course::Over(Levels::Sigmas(_)) = self {
            self.steps(config)?;
        }
        Ok(self)
    }
}

/// A list of timesteps of a request, if they fall and the model was trained on them.
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
