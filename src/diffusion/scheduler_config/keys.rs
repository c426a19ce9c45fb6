//! The keys of a `scheduler_config.json`: which class has which, and how their values are read.

use serde_json::{Map, Value};

use super::Class;
use crate::diffusion::error::InvalidScheduler;

pub(in crate::diffusion) const MAX_TRAIN_TIMESTEPS: usize = 10_000;

const TRAINING: [&str; 6] =
    ["num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type"];
const SPACING: [&str; 2] = ["timestep_spacing", "steps_offset"];
const CLIP_SAMPLE: [&str; 2] = ["clip_sample", "clip_sample_range"];
const THRESHOLDING: [&str; 3] = ["thresholding", "dynamic_thresholding_ratio", "sample_max_value"];
pub(in crate::diffusion) const RESPACING: [&str; 3] =
    ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"];
const EULER: [&str; 5] = ["interpolation_type", "sigma_min", "sigma_max", "timestep_type", "final_sigmas_type"];
const DPM: [&str; 13] = [
    "solver_order",
    "algorithm_type",
    "solver_type",
    "lower_order_final",
    "euler_at_final",
    "use_lu_lambdas",
    "use_flow_sigmas",
    "flow_shift",
    "final_sigmas_type",
    "lambda_min_clipped",
    "variance_type",
    "use_dynamic_shifting",
    "time_shift_type",
];

const SINGLESTEP: [&str; 10] = [
    "solver_order",
    "algorithm_type",
    "solver_type",
    "lower_order_final",
    "use_flow_sigmas",
    "flow_shift",
    "final_sigmas_type",
    "lambda_min_clipped",
    "variance_type",
    "use_dynamic_shifting",
];
const UNIPC: [&str; 14] = [
    "solver_order",
    "predict_x0",
    "solver_type",
    "lower_order_final",
    "disable_corrector",
    "solver_p",
    "use_flow_sigmas",
    "flow_shift",
    "final_sigmas_type",
    "use_dynamic_shifting",
    "time_shift_type",
    "sigma_min",
    "sigma_max",
    "shift_terminal",
];
const DEIS: [&str; 8] = [
    "solver_order",
    "algorithm_type",
    "solver_type",
    "lower_order_final",
    "use_flow_sigmas",
    "flow_shift",
    "use_dynamic_shifting",
    "time_shift_type",
];
/// An argument of `step` in diffusers, which its `DDIMPipeline` passes on.
const DDIM_STEP: [&str; 1] = ["use_clipped_model_output"];
const CONSISTENCY: [&str; 4] =
    ["original_inference_steps", "set_alpha_to_one", "timestep_scaling", "rescale_betas_zero_snr"];
const SA_SOLVER: [&str; 9] = [
    "predictor_order",
    "corrector_order",
    "tau_func",
    "algorithm_type",
    "lower_order_final",
    "use_flow_sigmas",
    "flow_shift",
    "lambda_min_clipped",
    "variance_type",
];
const EDM: [&str; 8] = [
    "sigma_min",
    "sigma_max",
    "sigma_data",
    "sigma_schedule",
    "num_train_timesteps",
    "prediction_type",
    "rho",
    "final_sigmas_type",
];
const EDM_DPM: [&str; 5] = ["solver_order", "algorithm_type", "solver_type", "lower_order_final", "euler_at_final"];
const FLOW: [&str; 9] = [
    "use_dynamic_shifting",
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "invert_sigmas",
    "shift_terminal",
    "time_shift_type",
    "stochastic_sampling",
];
const OWN_CONSISTENCY: [&str; 7] =
    ["num_train_timesteps", "sigma_min", "sigma_max", "sigma_data", "s_noise", "rho", "clip_denoised"];

const SCORE_SDE: [&str; 5] = ["num_train_timesteps", "sampling_eps", "snr", "correct_steps", "probability_flow"];

impl Class {
    /// Whether the class has this key: diffusers' own, and for the score SDEs `probability_flow` and corrections.
    pub(in crate::diffusion) fn has(self, key: &str) -> bool {
        let own: &[&[&str]] = match self {
            Class::Ddpm => &[&CLIP_SAMPLE, &THRESHOLDING, &["variance_type", "rescale_betas_zero_snr"]],
            Class::Ddim => &[&CLIP_SAMPLE, &THRESHOLDING, &["set_alpha_to_one", "rescale_betas_zero_snr"], &DDIM_STEP],
            Class::Pndm => &[&["set_alpha_to_one", "skip_prk_steps"]],
            Class::Euler => &[&EULER, &RESPACING, &["rescale_betas_zero_snr"]],
            Class::EulerAncestral => &[&["rescale_betas_zero_snr"]],
            Class::Heun => &[&CLIP_SAMPLE, &RESPACING],
            Class::Lms | Class::Dpm2 | Class::Dpm2Ancestral => &[&RESPACING],
            Class::DpmMultistep => &[&DPM, &THRESHOLDING, &RESPACING, &["rescale_betas_zero_snr"]],
            Class::DpmSinglestep => &[&SINGLESTEP, &THRESHOLDING, &RESPACING, &["time_shift_type"]],
            Class::UniPc => &[&UNIPC, &THRESHOLDING, &RESPACING, &["rescale_betas_zero_snr"]],
            Class::Deis => &[&DEIS, &THRESHOLDING, &RESPACING],
            Class::Lcm | Class::Tcd => &[&CONSISTENCY, &CLIP_SAMPLE, &THRESHOLDING],
            Class::DpmSde => &[&RESPACING, &["noise_sampler_seed"]],
            Class::SaSolver => &[&SA_SOLVER, &THRESHOLDING, &RESPACING],
            Class::Ipndm => &[&["num_train_timesteps", "trained_betas"]],
            Class::EdmEuler => &[&EDM],
            Class::EdmDpmMultistep => &[&EDM, &EDM_DPM, &THRESHOLDING],
            Class::FlowEuler => &[&FLOW, &RESPACING, &["num_train_timesteps", "shift"]],
            Class::FlowHeun => &[&["num_train_timesteps", "shift"]],
            Class::Consistency => &[&OWN_CONSISTENCY],
            Class::ScoreSdeVe => &[&SCORE_SDE, &["sigma_min", "sigma_max"]],
            Class::ScoreSdeVp => &[&SCORE_SDE, &["beta_min", "beta_max"]],
        };
        let has_betas = !matches!(
            self,
            Class::Ipndm
                | Class::EdmEuler
                | Class::EdmDpmMultistep
                | Class::FlowEuler
                | Class::FlowHeun
                | Class::Consistency
                | Class::ScoreSdeVe
                | Class::ScoreSdeVp
        );
        let spaced = has_betas && self != Class::DpmSinglestep && SPACING.contains(&key);
        spaced || has_betas && TRAINING.contains(&key) || own.iter().any(|keys| keys.contains(&key))
    }
}

/// A configuration to be read.  Null is the same as absent, but for a flag, where it is false as in Python.
#[derive(Clone, Copy)]
pub(in crate::diffusion) struct Keys<'a>(pub(in crate::diffusion) &'a Map<String, Value>);

impl Keys<'_> {
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn flag(self, key: &str, default: bool) -> Result<bool, InvalidScheduler> {
        match self.0.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(refused(key, value, "true or false".to_owned())),
        }
    }

    pub(super) fn integer(self, key: &str, default: usize, min: usize, max: usize) -> Result<usize, InvalidScheduler> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        // Some writers print every number as 1000.0.
        let exact = || value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..9e15).contains(number));
        let number = value.as_u64().or_else(|| exact().map(|number| number as u64));
        let number = number.and_then(|number| usize::try_from(number).ok());
        let number = number.filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| refused(key, value, format!("a whole number from {min} to {max}")))
    }

    /// A finite number.
    pub(super) fn number(
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

    /// A number that stays positive and finite in float32.
    pub(super) fn positive(self, key: &str) -> Result<Option<f64>, InvalidScheduler> {
        self.number(key, "a number from 1e-6 to 1e6", |number| (1e-6..=1e6).contains(&number))
    }

    pub(super) fn beta(self, key: &str, default: f64) -> Result<f64, InvalidScheduler> {
        Ok(self.number(key, "above 0 and below 1", |beta| beta > 0.0 && beta < 1.0)?.unwrap_or(default))
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(self, key: &str, default: &str, words: &[(&str, T)]) -> Result<T, InvalidScheduler> {
        let value = self.get(key).cloned().unwrap_or_else(|| Value::from(default));
        let found = words.iter().find(|(word, _)| value.as_str() == Some(*word));
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            refused(key, &value, format!("one of {}", words.join(", ")))
        })
    }
}

pub(super) fn refused(key: &str, value: &Value, bound: String) -> InvalidScheduler {
    InvalidScheduler::Value { key: key.to_owned(), value: shown(value), bound }
}

/// A value as JSON, as an error message shows it: the beginning, however long it is.
fn shown(value: &Value) -> String {
    shortened(value.to_string())
}

/// The beginning of a name, without quotes; of what is no name as [`shown`].
pub(in crate::diffusion) fn beginning(name: &Value) -> String {
    name.as_str().map_or_else(|| shown(name), |name| shortened(name.to_owned()))
}

fn shortened(text: String) -> String {
    if text.chars().count() > 80 { text.chars().take(80).chain(['…']).collect() } else { text }
}
