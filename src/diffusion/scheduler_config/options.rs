//! What each key may say, what it means, and what a class takes it to say when it is missing.

use serde_json::Value;

use super::keys::{Keys, MAX_TRAIN_TIMESTEPS, RESPACING, refused};
use super::{Class, Consistency, EdmLevels, EulerLevels, FinalSigma, Sampler, Variance};
use crate::diffusion::betas::{BetaSchedule, Betas};
use crate::diffusion::error::InvalidScheduler;
use crate::diffusion::prediction::{Clip, Prediction};
use crate::diffusion::sigmas::{Respacing, SigmaRange};
use crate::diffusion::spacing::Spacing;

impl Keys<'_> {
    pub(super) fn betas(self, class: Class) -> Result<Betas, InvalidScheduler> {
        let count = match class {
            Class::Consistency => 40,
            Class::ScoreSdeVe | Class::ScoreSdeVp => 2000,
            _ => 1000,
        };
        let count = self.integer("num_train_timesteps", count, 1, MAX_TRAIN_TIMESTEPS)?;
        if !class.has("beta_schedule") {
            // Classes with levels of their own, which only count the timesteps.
            return Ok(Betas::new(BetaSchedule::Linear.betas(0.0001, 0.02, count)));
        }
        // The classes whose defaults are those of Stable Diffusion, the first four without its schedule.
        let of_sd =
            [Class::Heun, Class::Dpm2, Class::Dpm2Ancestral, Class::DpmSde, Class::Lcm, Class::Tcd].contains(&class);
        let (start, end) = if of_sd { (0.00085, 0.012) } else { (0.0001, 0.02) };
        let (start, end) = (self.beta("beta_start", start)?, self.beta("beta_end", end)?);
        let mut schedules = vec![
            ("linear", BetaSchedule::Linear),
            ("scaled_linear", BetaSchedule::ScaledLinear),
            ("squaredcos_cap_v2", BetaSchedule::SquaredcosCapV2),
        ];
        match class {
            Class::Ddpm => schedules.extend([("laplace", BetaSchedule::Laplace), ("sigmoid", BetaSchedule::Sigmoid)]),
            Class::Heun => schedules.push(("exp", BetaSchedule::Exp)),
            _ => {}
        }
        let default = if matches!(class, Class::Lcm | Class::Tcd) { "scaled_linear" } else { "linear" };
        let schedule = self.word("beta_schedule", default, &schedules)?;
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
        // These step in (α, σ) and can start without any signal.
        let any = matches!(class, Class::Ddpm | Class::Ddim | Class::Lcm | Class::Tcd);
        Ok(if any { betas } else { betas.with_finite_end() })
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

    pub(super) fn prediction(self, class: Class) -> Result<Prediction, InvalidScheduler> {
        match class {
            Class::Ipndm => return Ok(Prediction::Velocity),
            Class::FlowEuler | Class::FlowHeun => return Ok(Prediction::Flow),
            Class::ScoreSdeVe => return Ok(Prediction::Score),
            Class::ScoreSdeVp => return Ok(Prediction::Epsilon),
            Class::EdmEuler | Class::EdmDpmMultistep => {
                let sigma_data = self.positive("sigma_data")?.unwrap_or(0.5);
                let negated = self.word("prediction_type", "epsilon", &[("epsilon", false), ("v_prediction", true)])?;
                return Ok(Prediction::Preconditioned { sigma_data, negated });
            }
            Class::Consistency => {
                let sigma_data = self.positive("sigma_data")?.unwrap_or(0.5);
                let sigma_min = self.positive("sigma_min")?.unwrap_or(0.002);
                return Ok(Prediction::Boundary { sigma_data, sigma_min });
            }
            _ => {}
        }
        let mut words = vec![("epsilon", Prediction::Epsilon), ("v_prediction", Prediction::Velocity)];
        if !matches!(class, Class::Pndm | Class::EulerAncestral | Class::Dpm2 | Class::Dpm2Ancestral | Class::DpmSde) {
            words.push(("sample", Prediction::Sample));
        }
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

    pub(super) fn spacing(self, class: Class) -> Result<Spacing, InvalidScheduler> {
        let default = if matches!(class, Class::Ddpm | Class::Ddim | Class::Pndm) { "leading" } else { "linspace" };
        let words = [("linspace", Spacing::Linspace), ("leading", Spacing::Leading), ("trailing", Spacing::Trailing)];
        self.word("timestep_spacing", default, &words)
    }

    pub(super) fn variance(self) -> Result<Variance, InvalidScheduler> {
        // `fixed_small_log` is the same number by another road.  `fixed_large_log` takes the root of a negative number
        // in diffusers.  `learned` is found in no published file.
        let words = [
            ("fixed_small", Variance::Small),
            ("fixed_small_log", Variance::Small),
            ("fixed_large", Variance::Large),
            ("learned_range", Variance::LearnedRange),
        ];
        self.word("variance_type", "fixed_small", &words)
    }

    /// `thresholding` goes before `clip_sample`.
    pub(super) fn clip(self, clip_sample: bool) -> Result<Clip, InvalidScheduler> {
        Ok(match self.thresholding()? {
            Clip::Nothing => self.clip_sample(clip_sample)?,
            thresholding => thresholding,
        })
    }

    pub(super) fn clip_sample(self, default: bool) -> Result<Clip, InvalidScheduler> {
        let clip = self.flag("clip_sample", default)?;
        let range = self.positive("clip_sample_range")?.unwrap_or(1.0);
        Ok(if clip { Clip::Range(range as f32) } else { Clip::Nothing })
    }

    pub(super) fn thresholding(self) -> Result<Clip, InvalidScheduler> {
        let thresholding = self.flag("thresholding", false)?;
        let is_share = |ratio: f64| (0.0..=1.0).contains(&ratio);
        let ratio = self.number("dynamic_thresholding_ratio", "from 0 to 1", is_share)?.unwrap_or(0.995);
        let max = self.positive("sample_max_value")?.unwrap_or(1.0);
        Ok(if thresholding { Clip::Dynamic { ratio: ratio as f32, max: max as f32 } } else { Clip::Nothing })
    }

    pub(super) fn respacing(self) -> Result<Option<Respacing>, InvalidScheduler> {
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

    pub(super) fn final_sigma(self) -> Result<FinalSigma, InvalidScheduler> {
        self.word("final_sigmas_type", "zero", &[("zero", FinalSigma::Zero), ("sigma_min", FinalSigma::SigmaMin)])
    }

    pub(super) fn euler_levels(self) -> Result<EulerLevels, InvalidScheduler> {
        Ok(EulerLevels {
            respacing: self.respacing()?,
            log_linear: self.word("interpolation_type", "linear", &[("linear", false), ("log_linear", true)])?,
            continuous: self.word("timestep_type", "discrete", &[("discrete", false), ("continuous", true)])?,
            end: self.final_sigma()?,
        })
    }

    /// diffusers' classes look for both keys when they space levels anew, whether or not the keys are their own: a swap
    /// keeps those of the class before.
    pub(super) fn sigma_range(self, class: Class) -> Result<SigmaRange, InvalidScheduler> {
        let read = || Ok(SigmaRange { min: self.positive("sigma_min")?, max: self.positive("sigma_max")? });
        let respacing = if class.has(RESPACING[0]) { self.respacing()? } else { None };
        match (respacing, class) {
            // These two spread Karras' levels between the ends of their own schedule.
            (Some(Respacing::Karras), Class::Lms | Class::DpmSde) => Ok(SigmaRange::default()),
            (Some(_), _) => read(),
            (None, Class::Euler | Class::UniPc) => read().map(|_| SigmaRange::default()),
            (None, _) => Ok(SigmaRange::default()),
        }
    }

    pub(super) fn ipndm(self) -> Result<Sampler, InvalidScheduler> {
        match self.get("trained_betas") {
            Some(value) => Err(refused("trained_betas", value, "null, this class has betas of its own".to_owned())),
            None => Ok(Sampler::Ipndm),
        }
    }

    /// numpy takes longer seeds too.
    pub(super) fn noise_sampler_seed(self) -> Result<Option<u64>, InvalidScheduler> {
        let key = "noise_sampler_seed";
        let Some(value) = self.get(key) else { return Ok(None) };
        let seed = value.as_u64().ok_or_else(|| refused(key, value, "a whole number from 0 to 2^64 - 1".to_owned()))?;
        Ok(Some(seed))
    }

    pub(super) fn edm_levels(self) -> Result<EdmLevels, InvalidScheduler> {
        let (sigma_min, sigma_max, rho) = self.edm_range()?;
        let schedules = [("karras", false), ("exponential", true)];
        let exponential = self.word("sigma_schedule", "karras", &schedules)?;
        Ok(EdmLevels { sigma_min, sigma_max, rho, exponential, end: self.final_sigma()? })
    }

    pub(super) fn consistency(self) -> Result<Consistency, InvalidScheduler> {
        let (sigma_min, sigma_max, rho) = self.edm_range()?;
        let clip = if self.flag("clip_denoised", true)? { Clip::Range(1.0) } else { Clip::Nothing };
        Ok(Consistency { sigma_min, sigma_max, rho, s_noise: self.positive("s_noise")?.unwrap_or(1.0), clip })
    }

    /// `sigma_min`, `sigma_max`, `rho`.
    fn edm_range(self) -> Result<(f64, f64, f64), InvalidScheduler> {
        let sigma_min = self.positive("sigma_min")?.unwrap_or(0.002);
        let sigma_max = self.positive("sigma_max")?.unwrap_or(80.0);
        let rho = self.number("rho", "from 1 to 100", |rho| (1.0..=100.0).contains(&rho))?.unwrap_or(7.0);
        if sigma_min > sigma_max {
            return Err(InvalidScheduler::Conflict { keys: "sigma_min and sigma_max", why: "the levels would rise" });
        }
        Ok((sigma_min, sigma_max, rho))
    }

    pub(super) fn original_inference_steps(self) -> Result<usize, InvalidScheduler> {
        let train = self.integer("num_train_timesteps", 1000, 1, MAX_TRAIN_TIMESTEPS)?;
        self.integer("original_inference_steps", 50, 1, train)
    }
}
