//! Options that several higher-order solvers share.

use serde_json::Value;

use super::FinalSigma;
use super::keys::{Keys, refused};
use crate::diffusion::error::InvalidScheduler;

/// Which formula a DPM-Solver step uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::diffusion) struct DpmSolver {
    /// From 1 to 3.
    pub order: usize,
    /// Whether the solver integrates x0 (DPM-Solver++); otherwise it integrates ε (DPM-Solver).
    pub plus_plus: bool,
    /// Whether the solver solves the stochastic equation and adds noise in every step.
    pub sde: bool,
    /// Whether `solver_type` is heun; otherwise it is midpoint. Matters in second-order steps, and in the singlestep
    /// solver also in third-order steps.
    pub heun: bool,
    /// Whether the last steps have lower order; in the multistep solver only in runs of fewer than 15 steps.
    pub lower_order_final: bool,
    /// Whether the last step has first order.
    pub euler_at_final: bool,
}

impl Keys<'_> {
    /// Reads `lambda_min_clipped`. The value −∞ clips nothing. diffusers writes −∞ into every file of these classes, as
    /// `-Infinity`, which the JSON reader returns as a string.
    pub(in crate::diffusion) fn lambda_min_clipped(self) -> Result<f64, InvalidScheduler> {
        let key = "lambda_min_clipped";
        if self.get(key).and_then(Value::as_str) == Some("-Infinity") {
            return Ok(f64::NEG_INFINITY);
        }
        Ok(self.number(key, "a number or -Infinity", |_| true)?.unwrap_or(f64::NEG_INFINITY))
    }

    /// Rejects learned variances. These classes ignore a fixed variance, which is present if the model's own scheduler
    /// is DDPM.
    pub(in crate::diffusion) fn no_learned_variance(self) -> Result<(), InvalidScheduler> {
        let is_not_fixed = |value: &&Value| !matches!(value.as_str(), Some(word) if word.starts_with("fixed"));
        match self.get("variance_type").filter(is_not_fixed) {
            Some(value) => {
                Err(refused("variance_type", value, "null, because learned variances are not supported".to_owned()))
            }
            None => Ok(()),
        }
    }

    pub(in crate::diffusion) fn dpm_solver(
        self,
        end: FinalSigma,
        lower_order_final: bool,
    ) -> Result<DpmSolver, InvalidScheduler> {
        // (plus_plus, sde)
        let algorithms = [
            ("dpmsolver++", (true, false)),
            ("dpmsolver", (false, false)),
            ("sde-dpmsolver++", (true, true)),
            ("sde-dpmsolver", (false, true)),
            ("deis", (true, false)),
        ];
        // The last three values belong to other classes; diffusers treats them as midpoint.
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
