//! A scheduler: how the model was trained and which sampler runs it, as diffusers' `scheduler_config.json` says it.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::betas::Betas;
use super::error::InvalidScheduler;
use super::prediction::Prediction;
use super::sigmas::SigmaRange;
use super::spacing::Spacing;
use flow::Flow;
use keys::Keys;

mod class;
mod edm;
mod euler;
pub(super) mod flow;
pub(super) mod keys;
mod options;
mod sampler;
mod sde;
mod solvers;

pub(super) use class::{Class, Name, Preset, Training, ZeroSignal};
pub(super) use edm::{EdmLevels, edm_prediction};
pub(super) use euler::{EulerLevels, FinalSigma};
pub(super) use options::epsilon_or_velocity;
pub(super) use sampler::{Label, RunPoints, Sampler};
pub(super) use solvers::DpmSolver;

/// A checked scheduler configuration; whatever exists of it can be run, only the number of steps is open.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    pub(super) class: &'static Class,
    /// The sampling algorithm with the options which are its own.
    pub(super) sampler: Arc<dyn Sampler>,
    pub(super) betas: Betas,
    pub(super) prediction: Prediction,
    pub(super) spacing: Spacing,
    pub(super) steps_offset: usize,
    /// Levels of flow matching in place of those of the betas.
    pub(super) flow: Option<Flow>,
    /// Of levels that are spaced anew.
    pub(super) range: SigmaRange,
}

impl SchedulerConfig {
    /// What counts in a `scheduler_config.json`: all keys but those that `_use_default_values` names.  diffusers lists there
    /// which values were defaults of the class that wrote them, and any class that reads them takes its own.
    #[must_use]
    pub fn given(mut file: Map<String, Value>) -> Map<String, Value> {
        for key in file.remove("_use_default_values").as_ref().and_then(Value::as_array).into_iter().flatten() {
            key.as_str().and_then(|key| file.remove(key));
        }
        file
    }

    /// Makes the scheduler one of the class that `model_index.json` names, as in diffusers, whatever the scheduler's own file
    /// says. Returns a note where they differ.
    pub fn take_class(index: &Map<String, Value>, scheduler_config: &mut Map<String, Value>) -> Option<String> {
        let class = index.get("scheduler")?.get(1)?.as_str()?;
        let written = scheduler_config.insert("_class_name".into(), class.into());
        let other = written.as_ref().and_then(Value::as_str).filter(|written| *written != class)?;
        Some(format!(
            "the scheduler is a {class}, by model_index.json, as in diffusers; scheduler/scheduler_config.json was written for \
             a {other}"
        ))
    }

    pub(super) fn of_class(class: &'static Class, keys: Keys<'_>) -> Result<SchedulerConfig, InvalidScheduler> {
        Ok(SchedulerConfig {
            class,
            sampler: (class.read)(keys)?,
            betas: keys.betas(class)?,
            prediction: (class.prediction)(keys, class)?,
            spacing: keys.spacing(class)?,
            steps_offset: keys.integer("steps_offset", 0, 0, keys::MAX_TRAIN_TIMESTEPS)?,
            flow: keys.flow(class)?,
            range: keys.sigma_range(class)?,
        })
    }

    /// The class of diffusers that this configuration stands for.
    pub fn class_name(&self) -> &'static str {
        self.class.name
    }

    /// The same scheduler with flow levels shifted for pictures of one size, where it shifts by size
    /// (`use_dynamic_shifting`); `mu` is diffusers' number for the size.
    #[must_use]
    pub fn shifted(mut self, mu: f64) -> SchedulerConfig {
        self.flow = self.flow.map(|flow| flow.at(mu));
        self
    }

    /// What the model predicts.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// Whether the network must predict the variance of each step, beside what it predicts of the picture.
    pub fn learns_variance(&self) -> bool {
        self.sampler.learns_variance()
    }

    /// `T`.
    pub fn num_train_timesteps(&self) -> usize {
        self.betas.alphas_cumprod().len()
    }

    /// The noise of training, after a rescaling to zero terminal SNR if the configuration asks for one.
    pub fn betas(&self) -> &Betas {
        &self.betas
    }
}

impl PartialEq for SchedulerConfig {
    fn eq(&self, other: &SchedulerConfig) -> bool {
        let SchedulerConfig { class, sampler, betas, prediction, spacing, steps_offset, flow, range } = self;
        *class == other.class
            && **sampler == *other.sampler
            && *betas == other.betas
            && *prediction == other.prediction
            && *spacing == other.spacing
            && *steps_offset == other.steps_offset
            && *flow == other.flow
            && *range == other.range
    }
}
