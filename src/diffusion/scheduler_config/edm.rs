//! Options of models that were trained on states `x0 + σ ε` (EDM).

use super::keys::Keys;
use super::{Class, FinalSigma};
use crate::diffusion::error::InvalidScheduler;
use crate::diffusion::prediction::Prediction;

/// How the EDM classes choose their levels (table 1 of Karras et al. 2022, arXiv:2206.00364).
#[derive(Debug, Clone, PartialEq)]
pub(in crate::diffusion) struct EdmLevels {
    pub sigma_min: f64,
    pub sigma_max: f64,
    pub rho: f64,
    /// Whether levels are evenly spaced in `ln σ`; otherwise they are evenly spaced in `σ^(1/ρ)`.
    pub exponential: bool,
    pub end: FinalSigma,
}

/// What the network of these classes predicts: `F` of Karras et al. (2022), equation 7, or `−F`.
pub(in crate::diffusion) fn edm_prediction(keys: Keys<'_>, _: &Class) -> Result<Prediction, InvalidScheduler> {
    let sigma_data = keys.positive("sigma_data")?.unwrap_or(0.5);
    let negated = keys.word("prediction_type", "epsilon", &[("epsilon", false), ("v_prediction", true)])?;
    Ok(Prediction::Preconditioned { sigma_data, negated })
}

impl Keys<'_> {
    pub(in crate::diffusion) fn edm_levels(self) -> Result<EdmLevels, InvalidScheduler> {
        let (sigma_min, sigma_max, rho) = self.edm_range()?;
        let schedules = [("karras", false), ("exponential", true)];
        let exponential = self.word("sigma_schedule", "karras", &schedules)?;
        Ok(EdmLevels { sigma_min, sigma_max, rho, exponential, end: self.final_sigma()? })
    }

    /// Reads `sigma_min`, `sigma_max` and `rho`. Fails if the levels would rise.
    pub(in crate::diffusion) fn edm_range(self) -> Result<(f64, f64, f64), InvalidScheduler> {
        let sigma_min = self.positive("sigma_min")?.unwrap_or(0.002);
        let sigma_max = self.positive("sigma_max")?.unwrap_or(80.0);
        let rho = self.number("rho", "from 1 to 100", |rho| (1.0..=100.0).contains(&rho))?.unwrap_or(7.0);
        if sigma_min > sigma_max {
            return Err(InvalidScheduler::Conflict { keys: "sigma_min and sigma_max", why: "the levels would rise" });
        }
        Ok((sigma_min, sigma_max, rho))
    }
}
