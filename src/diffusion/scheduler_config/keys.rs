//! The keys of a `scheduler_config.json`: lists of keys that several classes share, and readers of values.

use serde_json::{Map, Value};

use crate::diffusion::error::InvalidScheduler;

pub(in crate::diffusion) const MAX_TRAIN_TIMESTEPS: usize = 10_000;

pub(in crate::diffusion) const TRAINING: [&str; 6] =
    ["num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type"];
pub(in crate::diffusion) const SPACING: [&str; 2] = ["timestep_spacing", "steps_offset"];
pub(in crate::diffusion) const CLIP_SAMPLE: [&str; 2] = ["clip_sample", "clip_sample_range"];
pub(in crate::diffusion) const THRESHOLDING: [&str; 3] =
    ["thresholding", "dynamic_thresholding_ratio", "sample_max_value"];
pub(in crate::diffusion) const RESPACING: [&str; 3] =
    ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"];
/// Keys of models that were distilled for few steps.
pub(in crate::diffusion) const DISTILLED: [&str; 4] =
    ["original_inference_steps", "set_alpha_to_one", "timestep_scaling", "rescale_betas_zero_snr"];
pub(in crate::diffusion) const EDM: [&str; 8] = [
    "sigma_min",
    "sigma_max",
    "sigma_data",
    "sigma_schedule",
    "num_train_timesteps",
    "prediction_type",
    "rho",
    "final_sigmas_type",
];
/// diffusers does not have `probability_flow`, nor corrections (`snr`, `correct_steps`) in its variance-preserving
/// class.
pub(in crate::diffusion) const SCORE_SDE: [&str; 5] =
    ["num_train_timesteps", "sampling_eps", "snr", "correct_steps", "probability_flow"];

/// A configuration to read. A null value equals an absent key, except that a null flag is false, as in Python.
#[derive(Clone, Copy)]
pub(in crate::diffusion) struct Keys<'a>(pub(in crate::diffusion) &'a Map<String, Value>);

impl Keys<'_> {
    pub(in crate::diffusion) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    pub(in crate::diffusion) fn flag(self, key: &str, default: bool) -> Result<bool, InvalidScheduler> {
        match self.0.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(refused(key, value, "true or false".to_owned())),
        }
    }

    pub(in crate::diffusion) fn integer(
        self,
        key: &str,
        default: usize,
        min: usize,
        max: usize,
    ) -> Result<usize, InvalidScheduler> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        // Some programs write whole numbers with a decimal point, such as 1000.0.
        let exact = || value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..9e15).contains(number));
        let number = value.as_u64().or_else(|| exact().map(|number| number as u64));
        let number = number.and_then(|number| usize::try_from(number).ok());
        let number = number.filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| refused(key, value, format!("a whole number from {min} to {max}")))
    }

    /// A finite number that fits `bound`, or `None` if the key is absent.
    pub(in crate::diffusion) fn number(
        self,
        key: &str,
        bound: &str,
        fits: impl Fn(f64) -> bool,
    ) -> Result<Option<f64>, InvalidScheduler> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = value.as_f64().filter(|number| number.is_finite() && fits(*number));
        number.map(Some).ok_or_else(|| refused(key, value, bound.to_owned()))
    }

    /// A number from 1e-6 to 1e6, so that it stays positive and finite in float32.
    pub(in crate::diffusion) fn positive(self, key: &str) -> Result<Option<f64>, InvalidScheduler> {
        self.number(key, "a number from 1e-6 to 1e6", |number| (1e-6..=1e6).contains(&number))
    }

    pub(in crate::diffusion) fn beta(self, key: &str, default: f64) -> Result<f64, InvalidScheduler> {
        Ok(self.number(key, "above 0 and below 1", |beta| beta > 0.0 && beta < 1.0)?.unwrap_or(default))
    }

    /// The meaning of the word at `key`. Fails unless the word is one of `words`.
    pub(in crate::diffusion) fn word<T: Copy>(
        self,
        key: &str,
        default: &str,
        words: &[(&str, T)],
    ) -> Result<T, InvalidScheduler> {
        let value = self.get(key).cloned().unwrap_or_else(|| Value::from(default));
        let found = words.iter().find(|(word, _)| value.as_str() == Some(*word));
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            refused(key, &value, format!("one of {}", words.join(", ")))
        })
    }
}

pub(in crate::diffusion) fn refused(key: &str, value: &Value, bound: String) -> InvalidScheduler {
    InvalidScheduler::Value { key: key.to_owned(), value: shown(value), bound }
}

/// A value as JSON for an error message, cut to 80 characters.
fn shown(value: &Value) -> String {
    shortened(value.to_string())
}

/// A class name for an error message, without quotes; other values as [`shown`].
pub(in crate::diffusion) fn beginning(name: &Value) -> String {
    name.as_str().map_or_else(|| shown(name), |name| shortened(name.to_owned()))
}

fn shortened(text: String) -> String {
    if text.chars().count() > 80 { text.chars().take(80).chain(['…']).collect() } else { text }
}
