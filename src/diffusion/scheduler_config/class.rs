//! A scheduler class of diffusers, as its sampler's own file describes it.

use std::sync::Arc;

use serde_json::Value;

use super::Sampler;
use super::flow::FlowKeys;
use super::keys::Keys;
use super::options::any_prediction;
use crate::diffusion::betas::BetaSchedule;
use crate::diffusion::error::InvalidScheduler;
use crate::diffusion::prediction::Prediction;

/// What is known of a class before a configuration of it is read.  Each row is in the file of the class's sampler, and
/// `samplers.rs` lists them.
#[derive(Debug)]
pub(in crate::diffusion) struct Class {
    /// diffusers' name.
    pub name: &'static str,
    /// diffusers' names of classes with the same keys and the same steps.
    pub aliases: &'static [&'static str],
    /// What a request may call the class.  The overlay of the first name on a model of this class changes nothing.
    pub names: &'static [Name],
    /// The keys of the class, list by list: diffusers' own, and those that only this program has.
    pub keys: &'static [&'static [&'static str]],
    /// The reader of the options which are the class's own.
    pub read: fn(Keys<'_>) -> Result<Arc<dyn Sampler>, InvalidScheduler>,
    /// What the keys of training say when they are missing.
    pub training: Training,
    /// What the network's answers mean.
    pub prediction: fn(Keys<'_>, &Class) -> Result<Prediction, InvalidScheduler>,
    /// The default of `timestep_spacing`.
    pub spacing: &'static str,
    pub flow: FlowKeys,
    /// Whether Karras' levels are spread between the ends of the schedule, whatever `sigma_min` and `sigma_max` say.
    pub keeps_karras_ends: bool,
    /// A key that other classes have too, with other words, and the words of this class.  Where a model's file has a word of
    /// another class, it speaks of its own scheduler, and this class takes its default.
    pub own_words: Option<(&'static str, &'static [&'static str])>,
    pub zero_signal: ZeroSignal,
    /// Whether the sampler's states are `x/α`, hence `x0 + (σ/α) ε`, and not `α x0 + σ ε`.
    pub is_over_alpha: bool,
    /// What AUTOMATIC1111's web interface calls `eta`, where the sampler has one.
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
            own_words: None,
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

/// A name that a request may give, and what it stands for.
#[derive(Debug)]
pub(in crate::diffusion) struct Name {
    pub name: &'static str,
    pub description: &'static str,
    /// A key of the class that the name sets.
    pub preset: Option<(&'static str, Preset)>,
}

impl Name {
    /// The name of the class alone.
    pub(in crate::diffusion) const fn new(name: &'static str, description: &'static str) -> Name {
        Name { name, description, preset: None }
    }

    pub(in crate::diffusion) const fn with(self, key: &'static str, value: Preset) -> Name {
        Name { preset: Some((key, value)), ..self }
    }
}

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
    /// Ho et al. (2020), arXiv:2006.11239: models of pixels.
    pub(in crate::diffusion) const PIXELS: Training = Training {
        num_train_timesteps: 1000,
        beta_start: 0.0001,
        beta_end: 0.02,
        beta_schedule: "linear",
        beta_schedules: &[],
    };

    /// Rombach et al. (2022), arXiv:2112.10752: models of latents; without their schedule, which few classes have as default.
    pub(in crate::diffusion) const LATENTS: Training =
        Training { beta_start: 0.00085, beta_end: 0.012, ..Training::PIXELS };
}

/// Whether a run may begin at a level without any signal, where a predicted ε says nothing about x0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::diffusion) enum ZeroSignal {
    /// The sampler divides by α.
    Refused,
    /// The sampler steps in (α, σ), and needs a prediction other than ε.
    WithoutEpsilon,
    /// The sampler's levels always have a formula there.
    Taken,
}
