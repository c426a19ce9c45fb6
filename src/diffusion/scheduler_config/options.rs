//! Readers of the keys that several classes share: allowed values, meaning and defaults.

use serde_json::Value;

use super::keys::{Keys, MAX_TRAIN_TIMESTEPS, RESPACING, refused};
use super::{Class, Training, ZeroSignal};
use crate::diffusion::betas::{BetaSchedule, Betas};
use crate::diffusion::error::InvalidScheduler;
use crate::diffusion::prediction::{Clip, Prediction};
use crate::diffusion::sigmas::{Respacing, SigmaRange};
use crate::diffusion::spacing::Spacing;

/// What most networks predict: ε, v or x0, or flow velocity if the class has flow levels.
pub(in crate::diffusion) fn any_prediction(keys: Keys<'_>, class: &Class) -> Result<Prediction, InvalidScheduler> {
    let words =
        [("epsilon", Prediction::Epsilon), ("v_prediction", Prediction::Velocity), ("sample", Prediction::Sample)];
    keys.prediction(class, words.to_vec())
}

/// As [`any_prediction`], without x0, which some of diffusers' classes do not support.
pub(in crate::diffusion) fn epsilon_or_velocity(keys: Keys<'_>, class: &Class) -> Result<Prediction, InvalidScheduler> {
    keys.prediction(class, vec![("epsilon", Prediction::Epsilon), ("v_prediction", Prediction::Velocity)])
}

impl Keys<'_> {
    pub(super) fn betas(self, class: &Class) -> Result<Betas, InvalidScheduler> {
        let Training { num_train_timesteps, beta_start, beta_end, beta_schedule, beta_schedules } = class.training;
        let count = self.integer("num_train_timesteps", num_train_timesteps, 1, MAX_TRAIN_TIMESTEPS)?;
        if !class.has("beta_schedule") {
            // Classes without betas define their own levels and use only the number of timesteps.
            return Ok(Betas::new(BetaSchedule::Linear.betas(0.0001, 0.02, count)));
        }
        let (start, end) = (self.beta("beta_start", beta_start)?, self.beta("beta_end", beta_end)?);
        let mut schedules = vec![
            ("linear", BetaSchedule::Linear),
            ("scaled_linear", BetaSchedule::ScaledLinear),
            ("squaredcos_cap_v2", BetaSchedule::SquaredcosCapV2),
        ];
        schedules.extend(beta_schedules);
        let schedule = self.word("beta_schedule", beta_schedule, &schedules)?;
        let betas = match self.trained_betas(count)? {
            Some(betas) => betas,
            None => schedule.betas(start, end, count),
        };
        let betas = Betas::new(betas);
        if !class.has("rescale_betas_zero_snr") || !self.flag("rescale_betas_zero_snr", false)? {
            return Ok(betas);
        }
        let betas = betas.rescaled_to_zero_terminal_snr().ok_or(InvalidScheduler::Conflict {
            keys: "rescale_betas_zero_snr, num_train_timesteps and betas",
            why: "there is no noise to rescale",
        })?;
        Ok(if class.zero_signal == ZeroSignal::Refused { betas.with_finite_end() } else { betas })
    }

    fn trained_betas(self, count: usize) -> Result<Option<Vec<f32>>, InvalidScheduler> {
        let key = "trained_betas";
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let is_beta = |beta: &f64| *beta > 0.0 && *beta <= 1.0;
        let beta = |value: &Value| value.as_f64().filter(is_beta).map(|beta| beta as f32);
        let betas: Option<Vec<f32>> = value.as_array().and_then(|betas| betas.iter().map(beta).collect());
        match betas {
            Some(betas) if betas.len() == count => Ok(Some(betas)),
            _ => {
                Err(refused(key, value, format!("a list of num_train_timesteps ({count}) numbers above 0 and up to 1")))
            }
        }
    }

    fn prediction(
        self,
        class: &Class,
        mut words: Vec<(&'static str, Prediction)>,
    ) -> Result<Prediction, InvalidScheduler> {
        if class.has("use_flow_sigmas") {
            words.push(("flow_prediction", Prediction::Flow));
        }
        let prediction = self.word("prediction_type", "epsilon", &words)?;
        if prediction == Prediction::Flow && !self.flag("use_flow_sigmas", false)? {
            return Err(InvalidScheduler::Conflict {
                keys: "prediction_type and use_flow_sigmas",
                why: "flow_prediction needs use_flow_sigmas true",
            });
        }
        Ok(prediction)
    }

    pub(super) fn spacing(self, class: &Class) -> Result<Spacing, InvalidScheduler> {
        let words = [("linspace", Spacing::Linspace), ("leading", Spacing::Leading), ("trailing", Spacing::Trailing)];
        self.word("timestep_spacing", class.spacing, &words)
    }

    /// If `thresholding` is true, `clip_sample` is ignored.
    pub(in crate::diffusion) fn clip(self, clip_sample: bool) -> Result<Clip, InvalidScheduler> {
        Ok(match self.thresholding()? {
            Clip::Nothing => self.clip_sample(clip_sample)?,
            thresholding => thresholding,
        })
    }

    pub(in crate::diffusion) fn clip_sample(self, default: bool) -> Result<Clip, InvalidScheduler> {
        let clip = self.flag("clip_sample", default)?;
        let range = self.positive("clip_sample_range")?.unwrap_or(1.0);
        Ok(if clip { Clip::Range(range as f32) } else { Clip::Nothing })
    }

    pub(in crate::diffusion) fn thresholding(self) -> Result<Clip, InvalidScheduler> {
        let thresholding = self.flag("thresholding", false)?;
        let is_share = |ratio: f64| (0.0..=1.0).contains(&ratio);
        let ratio = self.number("dynamic_thresholding_ratio", "from 0 to 1", is_share)?.unwrap_or(0.995);
        let max = self.positive("sample_max_value")?.unwrap_or(1.0);
        Ok(if thresholding { Clip::Dynamic { ratio: ratio as f32, max: max as f32 } } else { Clip::Nothing })
    }

    pub(in crate::diffusion) fn respacing(self) -> Result<Option<Respacing>, InvalidScheduler> {
        let kinds = [Respacing::Karras, Respacing::Exponential, Respacing::Beta];
        let mut chosen = Vec::new();
        for (key, kind) in RESPACING.into_iter().zip(kinds) {
            if self.flag(key, false)? {
                chosen.push(kind);
            }
        }
        match chosen[..] {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            _ => Err(InvalidScheduler::Conflict {
                keys: "use_karras_sigmas, use_exponential_sigmas and use_beta_sigmas",
                why: "only one may be true",
            }),
        }
    }

    /// diffusers' classes read `sigma_min` and `sigma_max` when they respace levels, even if the keys belong to another
    /// class: changing the scheduler of a model keeps the keys of the previous class.
    pub(super) fn sigma_range(self, class: &Class) -> Result<SigmaRange, InvalidScheduler> {
        let read = || Ok(SigmaRange { min: self.positive("sigma_min")?, max: self.positive("sigma_max")? });
        let respacing = if class.has(RESPACING[0]) { self.respacing()? } else { None };
        match respacing {
            Some(Respacing::Karras) if class.keeps_karras_ends => Ok(SigmaRange::default()),
            Some(_) => read(),
            None if class.has("sigma_min") => read().map(|_| SigmaRange::default()),
            None => Ok(SigmaRange::default()),
        }
    }

    pub(in crate::diffusion) fn original_inference_steps(self) -> Result<usize, InvalidScheduler> {
        let train = self.integer("num_train_timesteps", 1000, 1, MAX_TRAIN_TIMESTEPS)?;
        let steps = self.integer("original_inference_steps", 50, 1, train)?;
        // The default may be too large for a short training.
        let bound = || format!("from 1 to {train}, the num_train_timesteps");
        let fault = || InvalidScheduler::Value {
            key: "original_inference_steps".to_owned(),
            value: steps.to_string(),
            bound: bound(),
        };
        (steps <= train).then_some(steps).ok_or_else(fault)
    }
}
