//! The keys of the solvers of higher order.

use serde_json::Value;

use super::keys::{Keys, refused};
use super::{Deis, DpmMultistep, DpmSinglestep, DpmSolver, FinalSigma, SaSolver, UniPc};
use crate::diffusion::error::InvalidScheduler;
use crate::diffusion::sigmas::Respacing;

/// The words of `SASolverScheduler`'s `algorithm_type`, and whether it integrates x0.
const SA_ALGORITHMS: [(&str, bool); 2] = [("data_prediction", true), ("noise_prediction", false)];

impl Keys<'_> {
    pub(super) fn dpm_multistep(self) -> Result<DpmMultistep, InvalidScheduler> {
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
            lambda_min_clipped: self.lambda_min_clipped()?,
            end,
            clip: self.thresholding()?,
            solver,
        })
    }

    pub(super) fn dpm_singlestep(self) -> Result<DpmSinglestep, InvalidScheduler> {
        self.no_learned_variance()?;
        let end = self.final_sigma()?;
        let solver = self.dpm_solver(end, false)?;
        if solver.sde && !solver.plus_plus {
            let value = Value::from("sde-dpmsolver");
            return Err(refused("algorithm_type", &value, "dpmsolver++, dpmsolver or sde-dpmsolver++".to_owned()));
        }
        Ok(DpmSinglestep {
            respacing: self.respacing()?,
            lambda_min_clipped: self.lambda_min_clipped()?,
            end,
            clip: self.thresholding()?,
            solver,
        })
    }

    pub(super) fn uni_pc(self) -> Result<UniPc, InvalidScheduler> {
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
        let predict_x0 = self.flag("predict_x0", true)?;
        if !predict_x0 && end == FinalSigma::Zero {
            return Err(InvalidScheduler::Conflict {
                keys: "predict_x0 and final_sigmas_type",
                why: "a step to zero noise needs predict_x0 true, or the end must be sigma_min",
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
            predict_x0,
            lower_order_final,
            disable_corrector: self.indices("disable_corrector")?,
        })
    }

    pub(super) fn deis(self) -> Result<Deis, InvalidScheduler> {
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

    /// Whether `algorithm_type` is one of `SASolverScheduler`.
    pub(in crate::diffusion) fn is_of_sa_solver(self) -> bool {
        self.word("algorithm_type", "data_prediction", &SA_ALGORITHMS).is_ok()
    }

    pub(super) fn sa_solver(self) -> Result<SaSolver, InvalidScheduler> {
        self.no_learned_variance()?;
        if let Some(value) = self.get("tau_func") {
            return Err(refused("tau_func", value, "null, a function cannot be sent".to_owned()));
        }
        let predict_x0 = self.word("algorithm_type", "data_prediction", &SA_ALGORITHMS)?;
        if !predict_x0 && self.word("prediction_type", "epsilon", &PREDICTIONS)? == "flow_prediction" {
            return Err(InvalidScheduler::Conflict {
                keys: "algorithm_type and prediction_type",
                why: "flow_prediction needs data_prediction",
            });
        }
        Ok(SaSolver {
            respacing: self.respacing()?,
            lambda_min_clipped: self.lambda_min_clipped()?,
            clip: self.thresholding()?,
            predictor_order: self.integer("predictor_order", 2, 1, 4)?,
            corrector_order: self.integer("corrector_order", 2, 1, 4)?,
            predict_x0,
            lower_order_final: self.flag("lower_order_final", true)?,
        })
    }

    pub(super) fn edm_dpm_multistep(self) -> Result<DpmMultistep, InvalidScheduler> {
        let end = self.final_sigma()?;
        let words = [("dpmsolver++", ()), ("sde-dpmsolver++", ()), ("deis", ())];
        self.word("algorithm_type", "dpmsolver++", &words)?;
        let solver = self.dpm_solver(end, true)?;
        if solver.sde && solver.order == 3 {
            return Err(InvalidScheduler::Conflict {
                keys: "algorithm_type and solver_order",
                why: "sde-dpmsolver++ has no third order here",
            });
        }
        Ok(DpmMultistep {
            respacing: None,
            rounded: false,
            lambda_min_clipped: f64::NEG_INFINITY,
            end,
            clip: self.thresholding()?,
            solver,
        })
    }

    /// −∞ clips nothing. diffusers writes it into every file of these classes, as `-Infinity`, which is read as a string.
    fn lambda_min_clipped(self) -> Result<f64, InvalidScheduler> {
        let key = "lambda_min_clipped";
        if self.get(key).and_then(Value::as_str) == Some("-Infinity") {
            return Ok(f64::NEG_INFINITY);
        }
        Ok(self.number(key, "a number or -Infinity", |_| true)?.unwrap_or(f64::NEG_INFINITY))
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

/// diffusers' words for what a network predicts.
const PREDICTIONS: [(&str, &str); 4] = [
    ("epsilon", "epsilon"),
    ("v_prediction", "v_prediction"),
    ("sample", "sample"),
    ("flow_prediction", "flow_prediction"),
];
