//! A scheduler class of diffusers: its names, keys and defaults, as the file of its sampler describes them.

use std::sync::Arc;

use serde_json::Value;

use super::Sampler;
use super::flow::FlowKeys;
use super::keys::Keys;
use super::options::any_prediction;
use crate::diffusion::betas::BetaSchedule;
use crate::diffusion::error::InvalidScheduler;
use crate::diffusion::prediction::Prediction;

/// The description of a scheduler class. Each sampler's file has the description of its class, and `samplers.rs` lists
/// them.
#[derive(Debug)]
pub(in crate::diffusion) struct Class {
    /// diffusers' name of the class.
    pub name: &'static str,
    /// diffusers' names of other classes with the same keys and the same steps.
    pub aliases: &'static [&'static str],
    /// Names that a request may use. If the model's scheduler is of this class, a request with the first name gets the
    /// same scheduler as a request without a name.
    pub names: &'static [Name],
    /// Lists of the keys of the class: diffusers' keys, and the keys that only this program has.
    pub keys: &'static [&'static [&'static str]],
    /// Reads the class's own options.
    pub read: fn(Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler>,
    /// Defaults of the keys about training.
    pub training: Training,
    /// Reads what the network predicts.
    pub prediction: fn(Keys<'_>, &Class) -> Result<Prediction, InvalidScheduler>,
    /// Default of `timestep_spacing`.
    pub spacing: &'static str,
    /// Which keys about flow levels the class reads.
    pub flow: FlowKeys,
    /// Whether karras levels always run from the first to the last level of the schedule, regardless of `sigma_min` and
    /// `sigma_max`.
    pub keeps_karras_ends: bool,
    /// A key that other classes have too, but with other values; and the values that this class knows. If a model's
    /// file has another value, which belongs to the model's own scheduler, this class uses its default.
    pub exclusive_values: Option<(&'static str, &'static [&'static str])>,
    /// Whether a run may start at a level without signal.
    pub zero_signal: ZeroSignal,
    /// Whether the sampler's states are `x/α = x0 + (σ/α) ε`; otherwise they are `α x0 + σ ε`.
    pub is_over_alpha: bool,
    /// The name of `eta` in AUTOMATIC1111's web interface; `None` if the sampler does not use `eta`.
    pub eta: Option<&'static str>,
}

impl Class {
    /// A class with diffusers' most common defaults.
    pub(in crate::diffusion) const fn new(
        name: &'static str,
        keys: &'static [&'static [&'static str]],
        read: fn(Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler>,
    ) -> Class {
        Class {
            name,
            aliases: &[],
            names: &[],
            keys,
            read,
            training: Training::PIXELS,
            prediction: any_prediction,
            spacing: "linspace",
            flow: FlowKeys::OPTIONAL,
            keeps_karras_ends: false,
            exclusive_values: None,
            zero_signal: ZeroSignal::Refused,
            is_over_alpha: false,
            eta: None,
        }
    }

    pub(in crate::diffusion) fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|keys| keys.contains(&key))
    }
}

impl PartialEq for Class {
    fn eq(&self, other: &Class) -> bool {
        self.name == other.name
    }
}

/// A scheduler name that a request may use.
#[derive(Debug)]
pub(in crate::diffusion) struct Name {
    pub name: &'static str,
    pub description: &'static str,
    /// A key of the class that the name sets, and its value.
    pub preset: Option<(&'static str, Preset)>,
}

impl Name {
    /// A name that sets only the class.
    pub(in crate::diffusion) const fn new(name: &'static str, description: &'static str) -> Name {
        Name { name, description, preset: None }
    }

    pub(in crate::diffusion) const fn with(self, key: &'static str, value: Preset) -> Name {
        Name { preset: Some((key, value)), ..self }
    }
}

/// The value of a key that a name sets.
#[derive(Debug, Clone, Copy)]
pub(in crate::diffusion) enum Preset {
    Word(&'static str),
    Number(u64),
}

impl From<Preset> for Value {
    fn from(preset: Preset) -> Value {
        match preset {
            Preset::Word(word) => word.into(),
            Preset::Number(number) => number.into(),
        }
    }
}

/// A class's defaults of `num_train_timesteps`, `beta_start`, `beta_end` and `beta_schedule`.
#[derive(Debug)]
pub(in crate::diffusion) struct Training {
    pub num_train_timesteps: usize,
    pub beta_start: f64,
    pub beta_end: f64,
    pub beta_schedule: &'static str,
    /// Words of `beta_schedule` that only this class has.
    pub beta_schedules: &'static [(&'static str, BetaSchedule)],
}

impl Training {
    /// Defaults for models of pixels (Ho et al. 2020, arXiv:2006.11239).
    pub(in crate::diffusion) const PIXELS: Training = Training {
        num_train_timesteps: 1000,
        beta_start: 0.0001,
        beta_end: 0.02,
        beta_schedule: "linear",
        beta_schedules: &[],
    };

    /// Defaults for models of latents (Rombach et al. 2022, arXiv:2112.10752), except for their `beta_schedule`, which
    /// few classes have as default.
    pub(in crate::diffusion) const LATENTS: Training =
        Training { beta_start: 0.00085, beta_end: 0.012, ..Training::PIXELS };
}

/// Whether a run may start at a level without signal, where a predicted ε does not determine x0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::diffusion) enum ZeroSignal {
    /// Not allowed: the sampler divides by α.
    Refused,
    /// Allowed unless the network predicts ε: the sampler works with (α, σ).
    WithoutEpsilon,
    /// Allowed: the sampler has a formula for this level.
    Allowed,
}
