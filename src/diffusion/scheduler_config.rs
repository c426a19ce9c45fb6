//! A scheduler: how the model was trained and which sampler runs it, read from diffusers' `scheduler_config.json`.

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

/// A validated scheduler configuration. Only steps and lists of levels can still be invalid for it.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    pub(super) class: &'static Class,
    /// The sampling algorithm with its own options.
    pub(super) sampler: Arc<dyn Sampler>,
    pub(super) betas: Betas,
    pub(super) prediction: Prediction,
    pub(super) spacing: Spacing,
    pub(super) steps_offset: usize,
    /// Flow-matching levels, which replace the levels of the betas.
    pub(super) flow: Option<Flow>,
    /// The smallest and the largest respaced level (karras, exponential, beta), if the configuration sets them.
    pub(super) range: SigmaRange,
}

impl SchedulerConfig {
    /// The keys of a `scheduler_config.json` that have an effect: all except those that `_use_default_values` lists.
    /// Listed keys had the defaults of the class that wrote the file. A class that reads the file uses its own defaults
    /// for these keys.
    #[must_use]
    pub fn given(mut file: Map<String, Value>) -> Map<String, Value> {
        for key in file.remove("_use_default_values").as_ref().and_then(Value::as_array).into_iter().flatten() {
            key.as_str().and_then(|key| file.remove(key));
        }
        file
    }

    /// Sets the class of the scheduler to the one that `model_index.json` names, as diffusers does. Returns a note if
    /// the scheduler's own file names another class.
    pub fn take_class(index: &Map<String, Value>, scheduler_config: &mut Map<String, Value>) -> Option<String> {
        let class = index.get("scheduler")?.get(1)?.as_str()?;
        let written = scheduler_config.insert("_class_name".into(), class.into());
        let other = written.as_ref().and_then(Value::as_str).filter(|written| *written != class)?;
        Some(format!(
            "model_index.json makes the scheduler a {class}, as in diffusers; scheduler/scheduler_config.json was \
             written for a {other}"
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

    /// The same scheduler, with its flow levels shifted for one picture size if it shifts by size
    /// (`use_dynamic_shifting`); `mu` is the parameter that diffusers' pipelines compute from the size.
    #[must_use]
    pub fn shifted(mut self, mu: f64) -> SchedulerConfig {
        self.flow = self.flow.map(|flow| flow.at(mu));
        self
    }

    /// The same scheduler, with its flow levels shifted for pictures of `tokens` tokens if it shifts by size, as
    /// diffusers' pipelines do with their function `calculate_shift`.
    #[must_use]
    pub fn for_tokens(mut self, tokens: u64) -> SchedulerConfig {
        self.flow = self.flow.map(|flow| flow.for_tokens(tokens));
        self
    }

    /// What the network predicts.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// Whether the network must also predict the variance of each step.
    pub fn learns_variance(&self) -> bool {
        self.sampler.learns_variance()
    }

    /// `T`, the number of training timesteps.
    pub fn num_train_timesteps(&self) -> usize {
        self.betas.alphas_cumprod().len()
    }

    /// The betas of training, rescaled to zero terminal SNR if the configuration requests it.
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
