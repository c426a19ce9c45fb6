//! What each key may say, what it means, and what a class takes it to say when it is missing.

use serde_json::Value;

use super::keys::{Keys, MAX_TRAIN_TIMESTEPS, RESPACING, refused};
use super::{Class, Deis, DpmMultistep, DpmSinglestep, DpmSolver, EulerLevels, FinalSigma, UniPc, Variance};
use crate::diffusion::betas::{BetaSchedule, Betas};
use crate::diffusion::error::InvalidScheduler;
use crate::diffusion::prediction::{Clip, Prediction};
use crate::diffusion::sigmas::Respacing;
use crate::diffusion::spacing::Spacing;

impl Keys<'_> {
    pub(super) fn betas(self, class: Class) -> Result<Betas, InvalidScheduler> {
        let count = self.integer("num_train_timesteps", 1000, 1, MAX_TRAIN_TIMESTEPS)?;
        // The classes whose defaults are those of Stable Diffusion, the first three without its schedule.
        let of_sd = [Class::Heun, Class::Dpm2, Class::Dpm2Ancestral, Class::Lcm, Class::Tcd].contains(&class);
        let (start, end) = if of_sd { (0.00085, 0.012) } else { (0.0001, 0.02) };
        let (start, end) = (self.beta("beta_start", start)?, self.beta("beta_end", end)?);
        let mut schedules = vec![
            ("linear", BetaSchedule::Linear),
            ("scaled_linear", BetaSchedule::ScaledLinear),
            ("squaredcos_cap_v2", BetaSchedule::SquaredcosCapV2),
        ];
        if class == Class::Ddpm {
            schedules.push(("sigmoid", BetaSchedule::Sigmoid));
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
        let mut words = vec![("epsilon", Prediction::Epsilon), ("v_prediction", Prediction::Velocity)];
        if !matches!(class, Class::Pndm | Class::EulerAncestral | Class::Dpm2 | Class::Dpm2Ancestral) {
            words.push(("sample", Prediction::Sample));
        }
        self.word("prediction_type", "epsilon", &words)
    }

    pub(super) fn spacing(self, class: Class) -> Result<Spacing, InvalidScheduler> {
        let default = if matches!(class, Class::Ddpm | Class::Ddim | Class::Pndm) { "leading" } else { "linspace" };
        let words = [("linspace", Spacing::Linspace), ("leading", Spacing::Leading), ("trailing", Spacing::Trailing)];
        self.word("timestep_spacing", default, &words)
    }

    pub(super) fn variance(self) -> Result<Variance, InvalidScheduler> {
        // `fixed_small_log` is the same number by another road.  `fixed_large_log` takes the root of a negative number
        // in diffusers, and the learned variances need a network with twice the channels.
        let words =
            [("fixed_small", Variance::Small), ("fixed_small_log", Variance::Small), ("fixed_large", Variance::Large)];
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

    fn thresholding(self) -> Result<Clip, InvalidScheduler> {
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

    fn final_sigma(self) -> Result<FinalSigma, InvalidScheduler> {
        self.word("final_sigmas_type", "zero", &[("zero", FinalSigma::Zero), ("sigma_min", FinalSigma::SigmaMin)])
    }

    pub(super) fn euler_levels(self) -> Result<EulerLevels, InvalidScheduler> {
        Ok(EulerLevels {
            respacing: self.respacing()?,
            log_linear: self.word("interpolation_type", "linear", &[("linear", false), ("log_linear", true)])?,
            continuous: self.word("timestep_type", "discrete", &[("discrete", false), ("continuous", true)])?,
            sigma_min: self.positive("sigma_min")?,
            sigma_max: self.positive("sigma_max")?,
            end: self.final_sigma()?,
        })
    }

    pub(super) fn dpm_multistep(self) -> Result<DpmMultistep, InvalidScheduler> {
        self.no_flow()?;
        self.no_learned_variance()?;
        // Lower-priority respacings are not looked at, as in diffusers: karras, then Lu, then the others.
        let respacing = match self.respacing()? {
            Some(Respacing::Karras) => Some(Respacing::Karras),
            other => {
                if self.flag("use_lu_lambdas", false)? {
                    Some(Respacing::Lu)
                } else {
                    other
                }
            }
        };
        let end = self.final_sigma()?;
        let solver = self.dpm_solver(end, true)?;
        Ok(DpmMultistep {
            respacing,
            rounded: self.get("beta_schedule").and_then(Value::as_str) != Some("squaredcos_cap_v2"),
            lambda_min_clipped: self.number("lambda_min_clipped", "a number", |_| true)?.unwrap_or(f64::NEG_INFINITY),
            end,
            clip: self.thresholding()?,
            solver,
        })
    }

    pub(super) fn dpm_singlestep(self) -> Result<DpmSinglestep, InvalidScheduler> {
        self.no_flow()?;
        self.no_learned_variance()?;
        let end = self.final_sigma()?;
        let solver = self.dpm_solver(end, false)?;
        if solver.sde && !solver.plus_plus {
            let value = Value::from("sde-dpmsolver");
            return Err(refused("algorithm_type", &value, "dpmsolver++, dpmsolver or sde-dpmsolver++".to_owned()));
        }
        Ok(DpmSinglestep {
            respacing: self.respacing()?,
            lambda_min_clipped: self.number("lambda_min_clipped", "a number", |_| true)?.unwrap_or(f64::NEG_INFINITY),
            end,
            clip: self.thresholding()?,
            solver,
        })
    }

    pub(super) fn uni_pc(self) -> Result<UniPc, InvalidScheduler> {
        self.no_flow()?;
        if let Some(value) = self.get("solver_p") {
            return Err(refused("solver_p", value, "null".to_owned()));
        }
        let end = self.final_sigma()?;
        // The last three are other classes' words, which diffusers takes for bh2.
        let types = [("bh1", true), ("bh2", false), ("midpoint", false), ("heun", false), ("logrho", false)];
        let bh1 = self.word("solver_type", "bh2", &types)?;
        if bh1 && end == FinalSigma::Zero {
            return Err(InvalidScheduler::Conflict {
                keys: "solver_type and final_sigmas_type",
                why: "bh1 has no step to zero noise, it needs final_sigmas_type sigma_min",
            });
        }
        let (order, lower_order_final) =
            (self.integer("solver_order", 2, 1, 3)?, self.flag("lower_order_final", true)?);
        if order > 1 && !lower_order_final && end == FinalSigma::Zero {
            return Err(InvalidScheduler::Conflict {
                keys: "lower_order_final and final_sigmas_type",
                why: "a step to zero noise is of first order, so lower_order_final must be true or the end sigma_min",
            });
        }
        Ok(UniPc {
            respacing: self.respacing()?,
            end,
            clip: self.thresholding()?,
            order,
            bh1,
            predict_x0: self.flag("predict_x0", true)?,
            lower_order_final,
            disable_corrector: self.indices("disable_corrector")?,
        })
    }

    pub(super) fn deis(self) -> Result<Deis, InvalidScheduler> {
        self.no_flow()?;
        // Other classes' words, which diffusers takes for its own one.
        let words = ["logrho", "midpoint", "heun", "bh1", "bh2"].map(|word| (word, ()));
        self.word("solver_type", "logrho", &words)?;
        self.word("algorithm_type", "deis", &["deis", "dpmsolver", "dpmsolver++"].map(|word| (word, ())))?;
        Ok(Deis {
            respacing: self.respacing()?,
            clip: self.thresholding()?,
            order: self.integer("solver_order", 2, 1, 3)?,
            lower_order_final: self.flag("lower_order_final", true)?,
        })
    }

    pub(super) fn original_inference_steps(self) -> Result<usize, InvalidScheduler> {
        let train = self.integer("num_train_timesteps", 1000, 1, MAX_TRAIN_TIMESTEPS)?;
        self.integer("original_inference_steps", 50, 1, train)
    }

    fn no_flow(self) -> Result<(), InvalidScheduler> {
        for key in ["use_flow_sigmas", "use_dynamic_shifting"] {
            if self.flag(key, false)? {
                return Err(refused(key, &Value::Bool(true), "false, flow matching is not supported here".to_owned()));
            }
        }
        Ok(())
    }

    /// A fixed variance says nothing to these classes; it is found here when the model's own scheduler is DDPM's.
    fn no_learned_variance(self) -> Result<(), InvalidScheduler> {
        let fixed = |value: &&Value| !matches!(value.as_str(), Some(word) if word.starts_with("fixed"));
        match self.get("variance_type").filter(fixed) {
            Some(value) => Err(refused("variance_type", value, "null, learned variances are not supported".to_owned())),
            None => Ok(()),
        }
    }

    fn indices(self, key: &str) -> Result<Vec<usize>, InvalidScheduler> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let index = |value: &Value| value.as_u64().and_then(|index| usize::try_from(index).ok());
        let indices: Option<Vec<usize>> = value.as_array().and_then(|list| list.iter().map(index).collect());
        indices.ok_or_else(|| refused(key, value, "a list of whole numbers from 0".to_owned()))
    }

    fn dpm_solver(self, end: FinalSigma, lower_order_final: bool) -> Result<DpmSolver, InvalidScheduler> {
        // (plus_plus, sde)
        let algorithms = [
            ("dpmsolver++", (true, false)),
            ("dpmsolver", (false, false)),
            ("sde-dpmsolver++", (true, true)),
            ("sde-dpmsolver", (false, true)),
            ("deis", (true, false)),
        ];
        // The last three are other classes' words, which diffusers takes for midpoint.
        let types = [("midpoint", false), ("heun", true), ("logrho", false), ("bh1", false), ("bh2", false)];
        let (plus_plus, sde) = self.word("algorithm_type", "dpmsolver++", &algorithms)?;
        let order = self.integer("solver_order", 2, 1, 3)?;
        if !plus_plus && end == FinalSigma::Zero {
            return Err(InvalidScheduler::Conflict {
                keys: "algorithm_type and final_sigmas_type",
                why: "dpmsolver and sde-dpmsolver need final_sigmas_type sigma_min",
            });
        }
        if !plus_plus && sde && order == 3 {
            return Err(InvalidScheduler::Conflict {
                keys: "algorithm_type and solver_order",
                why: "sde-dpmsolver has no third order",
            });
        }
        Ok(DpmSolver {
            order,
            plus_plus,
            sde,
            heun: self.word("solver_type", "midpoint", &types)?,
            lower_order_final: self.flag("lower_order_final", lower_order_final)?,
            euler_at_final: self.flag("euler_at_final", false)?,
        })
    }
}
